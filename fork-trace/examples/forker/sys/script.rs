//! What a child does that never comes back into Rust: the calls that the assembler makes for it.

use std::{
    cell::UnsafeCell,
    ffi::{c_char, c_int},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::errno::{Errno, check, number};

/// One system call made by a child; laid out as the assembler reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ChildCall {
    nr: u64,
    args: [u64; 5],
}

impl ChildCall {
    const fn new(nr: i64, [first, second, third]: [u64; 3]) -> Self {
        Self { nr: nr.cast_unsigned(), args: [first, second, third, 0, 0] }
    }

    /// Close a file.
    const fn close(fd: u64) -> Self {
        Self::new(libc::SYS_close, [fd, 0, 0])
    }

    /// Wait for an event, at most this long. It is written to a place that must outlive the child's use of it.
    fn await_event(epoll: u64, place: *mut libc::epoll_event, ms: u64) -> Self {
        let args = [epoll, place.addr() as u64, 1, ms, 0];
        Self { nr: libc::SYS_epoll_pwait.cast_unsigned(), args }
    }

    /// Become another program. Path and vectors must outlive the child's use of them.
    pub(crate) fn exec(
        path: *const c_char,
        argv: *const *mut c_char,
        envp: *const *mut c_char,
    ) -> Self {
        Self::new(libc::SYS_execve, [path.addr() as u64, argv.addr() as u64, envp.addr() as u64])
    }

    /// End with this status; a script that runs out ends with 0.
    pub(crate) const fn exit(status: u64) -> Self {
        Self::new(libc::SYS_exit, [status, 0, 0])
    }
}

/// The longest time that can be waited for: a larger one would be negative, which means for ever.
const LONGEST_MS: u32 = i32::MAX.unsigned_abs();

/// It holds a scripted child until its time is over or its parent has died: a pipe that only the
/// parent writes to. A death signal alone does not do: the parent may die before the child asks for
/// it.
pub(crate) struct Leash {
    epoll: OwnedFd,
    event: UnsafeCell<libc::epoll_event>,
    _reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Leash {
    /// Made by the process that is to be the parent.
    pub(crate) fn new() -> Result<Self, Errno> {
        let (reader, writer) = io::pipe().map_err(number)?;
        // SAFETY: the call takes no address.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just opened it, for nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        let (at, add) = (epoll.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: the kernel reads the event during the call.
        let added = unsafe { libc::epoll_ctl(at, add, reader.as_raw_fd(), &raw mut event) };
        check(added)?;
        Ok(Self { epoll, event: event.into(), _reader: reader, writer })
    }

    /// What the child does.
    pub(crate) fn script(&self, ms: u32) -> [ChildCall; 2] {
        let fd = |fd: c_int| u64::from(fd.unsigned_abs());
        let (writer, epoll) = (fd(self.writer.as_raw_fd()), fd(self.epoll.as_raw_fd()));
        let held = ChildCall::await_event(epoll, self.event.get(), ms.min(LONGEST_MS).into());
        [ChildCall::close(writer), held]
    }
}
