//! The numbers of fork's system calls.

use fork_trace_common::record::Syscall;

/// KERNEL: arch/x86/include/uapi/asm/unistd.h: this bit marks calls of the x32 ABI.
const X32_BIT: u64 = 0x4000_0000;

/// Whether `nr` can be one of fork's calls, on either entry. It is cheap, because it is asked for
/// every system call of the host.
#[inline(always)]
pub(crate) fn may_fork(nr: u64) -> bool {
    matches!(nr & !X32_BIT, 56..=58 | 435 | 2 | 120 | 190)
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
