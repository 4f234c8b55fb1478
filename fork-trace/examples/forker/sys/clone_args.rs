//! The argument of clone3.

use std::{ffi::c_int, fs::File, marker::PhantomData, os::fd::AsRawFd as _, ptr};

use super::flag;

/// The user's `struct clone_args`, all of its 88 bytes.
#[derive(Default)]
#[repr(C)]
pub(crate) struct CloneArgs<'a> {
    pub(crate) flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    pub(crate) exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
    /// The addresses above are of things borrowed for this long.
    borrowed: PhantomData<&'a mut c_int>,
}

impl<'a> CloneArgs<'a> {
    /// A child like fork's, with these flags.
    pub(crate) fn new(flags: u64) -> Self {
        Self { flags, exit_signal: flag::SIGCHLD, ..Self::default() }
    }

    /// Send another signal than SIGCHLD at the child's end; 0 for none.
    pub(crate) fn exit_signal(mut self, signal: u64) -> Self {
        self.exit_signal = signal;
        self
    }

    /// Ask for a pidfd, stored in `fd`.
    pub(crate) fn pidfd(mut self, fd: &'a mut c_int) -> Self {
        self.pidfd = ptr::from_mut(fd).addr() as u64;
        self
    }

    /// Ask for a child in this control group.
    pub(crate) fn cgroup(mut self, group: &'a File) -> Self {
        self.cgroup = group.as_raw_fd().unsigned_abs().into();
        self
    }

    /// Ask for this tid in the caller's pid namespace.
    pub(crate) fn set_tid(mut self, tid: &'a mut c_int) -> Self {
        self.set_tid = ptr::from_mut(tid).addr() as u64;
        self.set_tid_size = 1;
        self
    }
}

const _: () = assert!(size_of::<CloneArgs<'_>>() == 88, "the kernel's size");

/// The sizes of `struct clone_args` that lie inside [`CloneArgs`].
#[derive(Clone, Copy)]
pub(crate) enum Clone3Size {
    /// Smaller than any version of the struct.
    TooSmall = 32,
    /// Linux 5.3.
    V0 = 64,
    /// Linux 5.7.
    V2 = 88,
}
