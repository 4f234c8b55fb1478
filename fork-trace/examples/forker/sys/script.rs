//! What a child does that never comes back into Rust: the calls that the assembler makes for it.

use std::{io, os::fd::AsRawFd as _, ptr};

use super::errno::{Errno, number};

/// One system call made by a child; laid out as the assembler reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ChildCall {
    nr: u64,
    args: [u64; 3],
}

impl ChildCall {
    const fn new(nr: u64, args: [u64; 3]) -> Self {
        Self { nr, args }
    }

    /// Close a file.
    const fn close(fd: u64) -> Self {
        Self::new(3, [fd, 0, 0])
    }

    /// Wait for a file, at most this long. The struct must outlive the child's use of it.
    fn poll(file: &libc::pollfd, ms: u64) -> Self {
        Self::new(7, [ptr::from_ref(file).addr() as u64, 1, ms])
    }

    /// Become another program. Path and vectors must outlive the child's use of them.
    pub(crate) fn exec(path: *const i8, argv: *const *mut i8, envp: *const *mut i8) -> Self {
        Self::new(59, [path.addr() as u64, argv.addr() as u64, envp.addr() as u64])
    }

    /// End with this status; a script that runs out ends with 0.
    pub(crate) const fn exit(status: u64) -> Self {
        Self::new(60, [status, 0, 0])
    }
}

/// The longest time that poll takes: a larger one would be negative, which means for ever.
const LONGEST_MS: u32 = i32::MAX.unsigned_abs();

/// It holds a scripted child until its time is over or its parent has died: a pipe that only the
/// parent writes to. A death signal alone does not do: the parent may die before the child asks for
/// it.
pub(crate) struct Leash {
    file: libc::pollfd,
    _reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Leash {
    /// Made by the process that is to be the parent.
    pub(crate) fn new() -> Result<Self, Errno> {
        let (reader, writer) = io::pipe().map_err(number)?;
        let file = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        Ok(Self { file, _reader: reader, writer })
    }

    /// What the child does.
    pub(crate) fn script(&self, ms: u32) -> [ChildCall; 2] {
        let writer = u64::from(self.writer.as_raw_fd().unsigned_abs());
        [ChildCall::close(writer), ChildCall::poll(&self.file, ms.min(LONGEST_MS).into())]
    }
}
