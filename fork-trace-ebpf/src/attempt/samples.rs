//! What an attempt is doing for long: the kernel stack of its thread, each time that a timer
//! interrupts it.
//!
//! A sample is sent as soon as it is taken, and nothing is kept: an attempt that no timer meets
//! costs nothing, and no map can be full. This program interrupts others, also those that write the
//! record of the same attempt, so it reads that record and never writes it.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_stack},
    programs::PerfEventContext,
};
use fork_trace_common::{
    counter::Counter,
    record::{RecordKind, bits},
    sample::SampleRecord,
    stage::Mark,
    wait::STACK_BYTES,
};

use super::{record::under_way, waits};
use crate::{
    current::{low_half, now},
    maps::{SAMPLE, count},
    ring,
};

/// A timer has interrupted the task that runs on this CPU.
#[inline(always)]
pub(crate) fn take(ctx: &PerfEventContext) {
    if !waits::may_run() {
        return;
    }
    let key = bpf_get_current_pid_tgid();
    let Some(record) = under_way(key) else { return };
    // The call of this attempt goes on: it is not on its way back, nor restarted, nor a vfork that
    // waits.
    let over = record.has(bits::RESTARTING | bits::VFORK_WAIT);
    if over || !record.has(bits::ENTERED) || record.mark_ns(Mark::SysExit) != 0 {
        return;
    }
    if !ring::has_room_to_spare() {
        count(Counter::SamplesLost);
        return;
    }
    let start_ns = record.start_ns;
    let Some(sample) = SAMPLE.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's own, and a program is not interrupted by itself.
    let Some(sample) = (unsafe { sample.as_mut() }) else { return };
    sample.kind = RecordKind::Sample as u32;
    sample.tid = low_half(key);
    sample.start_ns = start_ns;
    sample.at_ns = now();
    let stack = sample.stack.as_mut_ptr().cast();
    // SAFETY: the helper writes no more bytes than the array has.
    let bytes = unsafe { bpf_get_stack(ctx.as_ptr(), stack, STACK_BYTES, 0) };
    let bytes = u64::try_from(bytes).unwrap_or_default() & !7;
    if bytes > u64::from(STACK_BYTES) {
        return;
    }
    sample.frames = bytes / 8;
    if !ring::send_sample(sample, SampleRecord::HEAD as u64 + bytes) {
        count(Counter::SamplesLost);
    }
}
