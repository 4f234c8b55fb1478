//! The child's own start: its first moments on a CPU, up to its first return to user space. They
//! are sent as a record of their own, which user space joins with the parent's.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use fork_trace_common::{
    counter::Counter,
    record::{RecordKind, StartRecord},
};

use crate::{
    current::{cpu, low_half, now, tgid},
    filter,
    kernel::task::Task,
    maps::{ON_CPU, OnCpu, count},
    ring,
};

/// A CPU is about to switch to a task for the first time.
#[inline(always)]
pub(crate) fn first_switch(child: Task) {
    let Some(ids) = child.ids() else { return };
    if !filter::start_followed(ids.tgid) {
        return;
    }
    let on_cpu = OnCpu { at_ns: now(), cpu: u64::from(cpu()), tail_entered_ns: 0, tail_ns: 0 };
    if ON_CPU.insert(ids.tid, on_cpu, 0).is_err() {
        count(Counter::OnCpuFull);
    }
}

/// The child enters `schedule_tail`.
#[inline(always)]
pub(crate) fn tail_begins() -> i32 {
    let key = bpf_get_current_pid_tgid();
    if let Some(on_cpu) = ON_CPU.get_ptr_mut(low_half(key)) {
        // SAFETY: only this thread's own programs change its entry.
        unsafe { (*on_cpu).tail_entered_ns = now() };
    }
    0
}

/// The child leaves `schedule_tail`.
#[inline(always)]
pub(crate) fn tail_ends() -> i32 {
    let now = now();
    let key = bpf_get_current_pid_tgid();
    let Some(on_cpu) = ON_CPU.get_ptr_mut(low_half(key)) else { return 0 };
    // SAFETY: only this thread's own programs change its entry.
    let Some(on_cpu) = (unsafe { on_cpu.as_mut() }) else { return 0 };
    if on_cpu.tail_entered_ns != 0 {
        on_cpu.tail_ns = now - on_cpu.tail_entered_ns;
    }
    0
}

/// The child returns from its parent's call, and so to user space for the first time.
#[inline(always)]
pub(super) fn child_returns(task: Task, key: u64) {
    if !filter::start_wanted(tgid(key)) {
        return;
    }
    let Some(child) = task.ids() else { return };
    // SAFETY: only this thread's own programs change its entry.
    let on_cpu = unsafe { ON_CPU.get(low_half(key)) }.copied();
    let record = StartRecord {
        kind: RecordKind::Start as u32,
        cpu: on_cpu.map_or_else(cpu, |on_cpu| low_half(on_cpu.cpu)),
        child,
        return_ns: now(),
        on_cpu_ns: on_cpu.map_or(0, |on_cpu| on_cpu.at_ns),
        tail_ns: on_cpu.map_or(0, |on_cpu| on_cpu.tail_ns),
    };
    // It may never have been there.
    _ = ON_CPU.remove(low_half(key));
    if ring::is_crowded() || !ring::send_beside(&record) {
        count(Counter::RingFullStarts);
    }
}

/// The task ends, perhaps before it has returned to user space.
#[inline(always)]
pub(super) fn forget(key: u64) {
    // Most tasks have returned before, and have no entry any more.
    _ = ON_CPU.remove(low_half(key));
}
