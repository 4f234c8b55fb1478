//! The machine that the object is for.

use aya_ebpf::bindings::pt_regs;
#[cfg(bpf_target_arch = "aarch64")]
use fork_trace_common::arch::AARCH64;
use fork_trace_common::arch::Arch;
#[cfg(bpf_target_arch = "x86_64")]
use fork_trace_common::arch::X86_64;

/// Its row of the table.
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) const ARCH: &Arch = &X86_64;
/// Its row of the table.
#[cfg(bpf_target_arch = "aarch64")]
pub(crate) const ARCH: &Arch = &AARCH64;

/// The stack pointer of a task at a probe.
#[inline(always)]
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) fn sp(regs: &pt_regs) -> u64 {
    regs.rsp
}

/// The stack pointer of a task at a probe.
#[inline(always)]
#[cfg(bpf_target_arch = "aarch64")]
pub(crate) fn sp(regs: &pt_regs) -> u64 {
    regs.sp
}
