//! The numbers of the system calls of fork and exec.

use fork_trace_common::record::Syscall;

/// KERNEL: arch/x86/include/uapi/asm/unistd.h: this bit marks calls of the x32 ABI.
const X32_BIT: u64 = 0x4000_0000;

/// Whether `nr` can be one of fork's calls, on either entry. It is cheap, because it is asked for
/// every system call of the host.
#[inline(always)]
pub(crate) fn may_fork(nr: u64) -> bool {
    matches!(nr & !X32_BIT, 56..=58 | 435 | 2 | 120 | 190)
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
    matches!(nr & !X32_BIT, 59 | 322 | 520 | 545 | 11 | 358)
}

/// Which of them `nr` is; `compat` says that the call came through the 32-bit entry.
///
/// KERNEL: `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`.
#[inline(always)]
pub(crate) fn exec(nr: u64, compat: bool) -> Option<Exec> {
    match (compat, nr & !X32_BIT) {
        (false, 59 | 520) | (true, 11) => Some(Exec::Execve),
        (false, 322 | 545) | (true, 358) => Some(Exec::Execveat),
        _ => None,
    }
}

/// Which of fork's calls `nr` is; `compat` says that the call came through the 32-bit entry.
///
/// KERNEL: `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`.
#[inline(always)]
pub(crate) fn syscall(nr: u64, compat: bool) -> Syscall {
    match (compat, nr & !X32_BIT) {
        (false, 56) | (true, 120) => Syscall::Clone,
        (false, 57) | (true, 2) => Syscall::Fork,
        (false, 58) | (true, 190) => Syscall::Vfork,
        (_, 435) => Syscall::Clone3,
        _ => Syscall::None,
    }
}
