//! The child's own start: its first moments on a CPU, up to its first return to user space. They
//! are sent as a record of their own, which user space joins with the parent's. Where nothing tells of that
//! return, the record is sent as the child is given a CPU for the first time.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use fork_trace_common::{
    counter::Counter,
    record::{RecordKind, StartRecord, TaskIds},
};

use crate::{
    current::{cpu, low_half, now, tgid},
    filter,
    kernel::{arch::ARCH, task::Task},
    maps::{ON_CPU, OnCpu, count},
    ring,
};

/// A CPU is about to switch to a task for the first time.
#[inline(always)]
pub(crate) fn first_switch(child: Task) {
    let Some(ids) = child.ids() else { return };
    if !ARCH.child_passes_exit {
        if filter::start_wanted(ids.tgid, ids.tid) {
            send(&start(ids, 0, now(), 0, cpu()));
        }
        return;
    }
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
    if !ARCH.child_passes_exit || !filter::start_wanted(tgid(key), low_half(key)) {
        return;
    }
    let Some(child) = task.ids() else { return };
    // SAFETY: only this thread's own programs change its entry.
    let on_cpu = unsafe { ON_CPU.get(low_half(key)) }.copied();
    let (on_cpu_ns, tail_ns) = on_cpu.map_or((0, 0), |on_cpu| (on_cpu.at_ns, on_cpu.tail_ns));
    let cpu = on_cpu.map_or_else(cpu, |on_cpu| low_half(on_cpu.cpu));
    let record = start(child, now(), on_cpu_ns, tail_ns, cpu);
    // It may never have been there.
    _ = ON_CPU.remove(low_half(key));
    send(&record);
}

#[inline(always)]
fn start(child: TaskIds, return_ns: u64, on_cpu_ns: u64, tail_ns: u64, cpu: u32) -> StartRecord {
    StartRecord { kind: RecordKind::Start as u32, cpu, child, return_ns, on_cpu_ns, tail_ns }
}

#[inline(always)]
fn send(record: &StartRecord) {
    if ring::is_crowded() || !ring::send_beside(record) {
        count(Counter::RingFullStarts);
    }
}

/// The task ends, perhaps before it has returned to user space.
#[inline(always)]
pub(super) fn forget(key: u64) {
    // Most tasks have returned before, and have no entry any more.
    _ = ON_CPU.remove(low_half(key));
}
