//! The numbers of the system calls of fork and exec.

use fork_trace_common::record::Syscall;

use super::arch::ARCH;

/// Whether `nr` can be one of fork's calls, on either entry. It is cheap, because it is asked for
/// every system call of the host.
#[inline(always)]
pub(crate) fn may_fork(nr: u64) -> bool {
    ARCH.may_fork(nr)
}

/// Whether a tracer has put -1 in the place of the number, or the kernel itself has, as it returns
/// from a signal handler.
#[inline(always)]
pub(crate) fn is_taken(nr: u64) -> bool {
    const LOW_HALF: u64 = 0xffff_ffff;
    nr & LOW_HALF == LOW_HALF
}

/// A system call that runs another program.
#[derive(Clone, Copy)]
pub(crate) enum Exec {
    /// `execve(2)`, whose first argument is the program's name.
    Execve,
    /// `execveat(2)`, whose second argument it is.
    Execveat,
}

/// Whether `nr` can be one of those, on either entry. It is cheap too.
#[inline(always)]
pub(crate) fn may_exec(nr: u64) -> bool {
    ARCH.may_exec(nr)
}

/// Which of them `nr` is; `compat` says that the call came through the 32-bit entry.
#[inline(always)]
pub(crate) fn exec(nr: u64, compat: bool) -> Option<Exec> {
    match ARCH.exec_call(nr, compat) {
        (true, _) => Some(Exec::Execve),
        (_, true) => Some(Exec::Execveat),
        _ => None,
    }
}

/// Which of fork's calls `nr` is; `compat` says that the call came through the 32-bit entry.
#[inline(always)]
pub(crate) fn syscall(nr: u64, compat: bool) -> Syscall {
    ARCH.fork_call(nr, compat)
}
