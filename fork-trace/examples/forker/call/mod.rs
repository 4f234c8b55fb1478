//! One attempt as it is asked for, without making it: the system call, its flags, and what the
//! kernel ought to answer.

mod note;
mod outcome;

pub(crate) use self::{
    note::Note,
    outcome::{Outcome, Skip, judge},
};
use crate::sys::{Errno, clone_args::CloneArgs, flag, machine};

/// The system call that makes the task.
#[derive(Clone, Copy)]
pub(crate) enum Syscall {
    Fork,
    Vfork,
    Clone,
    Clone3,
}

impl Syscall {
    pub(crate) const ALL: [Self; 4] = [Self::Fork, Self::Vfork, Self::Clone, Self::Clone3];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Vfork => "vfork",
            Self::Clone => "clone",
            Self::Clone3 => "clone3",
        }
    }
}

/// What one attempt asks for.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) syscall: Syscall,
    /// As the caller passes them; those of clone have the exit signal in their low byte.
    pub(crate) flags: u64,
    pub(crate) exit_signal: u64,
    /// The times are those of a libc function around the system call.
    pub(crate) in_libc: bool,
    pub(crate) note: Note,
    /// The errno this should fail with, 0 for none.
    pub(crate) expected: Errno,
    /// Why: the kind of cause, and the rule that is broken; empty where there is none.
    pub(crate) cause: &'static str,
    pub(crate) rule: &'static str,
}

impl Call {
    const fn new(syscall: Syscall, flags: u64, exit_signal: u64) -> Self {
        Self {
            syscall,
            flags,
            exit_signal,
            in_libc: false,
            note: Note::None,
            expected: 0,
            cause: "",
            rule: "",
        }
    }

    /// fork, which the kernel turns into a clone with SIGCHLD; a clone where the machine has no fork.
    pub(crate) const fn fork() -> Self {
        let syscall = if machine::FORK.is_some() { Syscall::Fork } else { Syscall::Clone };
        Self::new(syscall, flag::SIGCHLD, flag::SIGCHLD)
    }

    /// vfork, which the kernel turns into a clone with VM, VFORK and SIGCHLD; such a clone where the machine
    /// has no vfork.
    pub(crate) const fn vfork() -> Self {
        let syscall = if machine::VFORK.is_some() { Syscall::Vfork } else { Syscall::Clone };
        Self::new(syscall, flag::VM | flag::VFORK | flag::SIGCHLD, flag::SIGCHLD)
    }

    /// clone with these flags, exit signal included.
    pub(crate) const fn clone(flags: u64) -> Self {
        Self::new(Syscall::Clone, flags, flags & 0xff)
    }

    /// clone3 with this struct.
    pub(crate) fn clone3(args: &CloneArgs<'_>) -> Self {
        Self::new(Syscall::Clone3, args.flags, args.exit_signal)
    }

    /// clone3 with a struct that has these flags and this exit signal.
    pub(crate) const fn words(flags: u64, exit_signal: u64) -> Self {
        Self::new(Syscall::Clone3, flags, exit_signal)
    }

    /// libc's `fork`.
    pub(crate) const fn libc_fork() -> Self {
        let call = if cfg!(target_env = "musl") { Self::fork() } else { Self::clone(0x120_0011) };
        Self { in_libc: true, ..call }
    }

    /// libc's `pthread_create`.
    pub(crate) fn libc_thread() -> Self {
        let call = match glibc_minor() {
            None => Self::clone(0x7d_0f00), // musl
            Some(..34) => Self::clone(flag::PTHREAD),
            Some(_) => Self::new(Syscall::Clone3, flag::PTHREAD, 0),
        };
        Self { in_libc: true, ..call }
    }

    /// libc's `posix_spawn`.
    pub(crate) fn libc_spawn() -> Self {
        let shared = flag::VM | flag::VFORK;
        let call = match glibc_minor() {
            None | Some(..34) => Self::clone(shared | flag::SIGCHLD),
            Some(34..38) => Self::new(Syscall::Clone3, shared, flag::SIGCHLD),
            Some(_) => Self::new(Syscall::Clone3, shared | flag::CLEAR_SIGHAND, flag::SIGCHLD),
        };
        Self { in_libc: true, ..call }
    }

    /// The same call, with a note.
    pub(crate) const fn note(self, note: Note) -> Self {
        Self { note, ..self }
    }

    /// The same call, that should fail.
    pub(crate) const fn fails(self, expected: Errno) -> Self {
        Self { expected, ..self }
    }

    /// The same call, with the reason for which it should fail.
    pub(crate) const fn because(self, cause: &'static str, rule: &'static str) -> Self {
        Self { cause, rule, ..self }
    }
}

/// The x in glibc 2.x; None with another libc.
#[cfg(target_env = "gnu")]
fn glibc_minor() -> Option<u32> {
    // SAFETY: always succeeds.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: a static string, ended by a NUL.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    version.to_str().ok()?.split('.').nth(1)?.parse().ok()
}

/// The x in glibc 2.x; None with another libc.
#[cfg(not(target_env = "gnu"))]
fn glibc_minor() -> Option<u32> {
    None
}
