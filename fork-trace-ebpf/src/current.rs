//! What a program can ask about the moment in which it runs: the time, the CPU, and the parts of
//! the ids that helpers return in pairs.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};

/// The time now: `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The CPU on which the program runs.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// The process id in `key`, a value of `bpf_get_current_pid_tgid`.
#[inline(always)]
pub(crate) fn tgid(key: u64) -> u32 {
    (key >> 32) as u32
}

/// The low half of 64 bits. Of a helper's pair of ids it is the thread id, or the user id.
#[inline(always)]
pub(crate) fn low_half(pair: u64) -> u32 {
    (pair & 0xffff_ffff) as u32
}
