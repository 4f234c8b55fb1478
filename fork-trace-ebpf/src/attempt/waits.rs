//! Where a task stands still inside a fork: each time that the caller leaves its CPU during the
//! attempt and on the way back from it, and each time that the child does before it first runs in
//! user space.
//!
//! The waits of an attempt lie beside its record, under the same key. They are gathered while the
//! attempt lasts and sent right before its record. A wait after that is sent as soon as it is over:
//! nobody knows whether it was the last one before user space. So that user space can tell a task
//! that is still away from one that came back unseen, the head of the record is sent when the task
//! leaves, too.
//!
//! Nearly every switch of a host is between tasks that do not fork. For those two words are looked
//! at: whether the task that leaves may be inside a fork, which its CPU knows, and whether any task
//! is away that was. Only then are the registers of the one read, which decide, and is the other looked
//! up. So that no wait is
//! missed, the word of a CPU is set wherever a task is seen inside a fork, and it is taken back when
//! that task leaves its CPU.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_stack},
    programs::BtfTracePointContext,
};
use fork_trace_common::{
    counter::Counter,
    record::{ForkRecord, bits},
    stage::Mark,
    wait::{KEPT, MARKS, PLACES, Phase, STACK_BYTES, Wait, WaitsRecord, bits as wait_bits},
};

use super::record::under_way;
use crate::{
    current::{cpu, low_half, now, tgid},
    filter,
    kernel::{arch::ARCH, task::Task},
    maps::{AWAY, IN_FORK, OFF_CPU, WAITS, count},
    ring,
};

/// 1 if it is measured where a fork stands still.
#[unsafe(no_mangle)]
static MEASURE_WAITS: Global<u8> = Global::new(1);

/// What the waits of every task begin as.
static EMPTY: WaitsRecord = WaitsRecord::zeroed();

/// KERNEL: include/linux/errno.h: what a system call returns as long as it has not returned.
const NOT_RETURNED: i64 = -38;

/// The part of a fork that a task is in.
struct Part {
    phase: Phase,
    /// As in the record.
    start_ns: u64,
    /// The last mark of the attempt.
    mark: u32,
}

/// The task that runs on this CPU is inside a fork. A switch that comes before this is called comes
/// before anything that is measured of the task.
#[inline(always)]
pub(crate) fn runs_in_fork() {
    if let Some(may_be) = IN_FORK.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own.
        unsafe { may_be.write(1) };
    }
}

/// Whether the task that runs on this CPU may be inside a fork.
#[inline(always)]
pub(super) fn may_run() -> bool {
    IN_FORK.get(0).is_some_and(|may_be| *may_be != 0)
}

/// Whether the task that leaves this CPU may be inside a fork; of the next one that is not known.
#[inline(always)]
pub(crate) fn may_leave() -> bool {
    if MEASURE_WAITS.load() == 0 {
        return false;
    }
    let Some(may_be) = IN_FORK.get_ptr_mut(0) else { return false };
    // SAFETY: the slot is this CPU's own, and no task runs on it at this moment.
    let was = unsafe { may_be.replace(0) };
    was != 0
}

/// Whether a task is away that was inside a fork when it left its CPU.
#[inline(always)]
pub(crate) fn may_come_back() -> bool {
    MEASURE_WAITS.load() != 0 && AWAY.get(0).is_some_and(|away| *away != 0)
}

/// Adds to the count of tasks that are away.
#[inline(always)]
fn add_away(change: u64) {
    if let Some(away) = AWAY.get_ptr_mut(0) {
        // All CPUs change it. The target has atomic additions, but Rust gives it none.
        // SAFETY: the slot exists, and is only changed like this.
        unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) away, in(reg) change) };
    }
}

/// The calling task is inside a fork, or on its way back from one, and leaves its CPU. `returns` is
/// what its call returns.
#[inline(always)]
pub(crate) fn leaves(ctx: &BtfTracePointContext, task: Task, preempted: bool, returns: i64) {
    // A task that ends does not come back.
    if task.ends() {
        return;
    }
    // The scheduler has stopped its clock already: what follows is no work of the task.
    let left_ns = now();
    let key = bpf_get_current_pid_tgid();
    let Some(part) = part(key, task, returns) else { return };
    let Some(switches) = task.switches() else { return };
    let Some(log) = log(key, &part) else { return };
    no_longer_away(log);
    log.switches = switches;
    let place = log.current as usize;
    let Some(wait) = log.waits.get_mut(place) else { return };
    let state = if preempted { 0 } else { task.state() };
    wait.state = state;
    wait.bits = 0;
    wait.owner = 0;
    wait.cpu = cpu();
    wait.mark = part.mark;
    wait.back_ns = 0;
    if state == 0 {
        leaves_runnable(wait, task);
    } else if let Some((owner, reads)) = task.mmap_lock_owner() {
        wait.owner = owner;
        wait.bits |= if reads { wait_bits::OWNER_READS } else { 0 };
    }
    let stack = wait.stack.as_mut_ptr().cast();
    // SAFETY: the helper writes no more bytes than the array has.
    let bytes = unsafe { bpf_get_stack(ctx.as_ptr(), stack, STACK_BYTES, 0) };
    wait.frames = u32::try_from(bytes).map_or(0, |bytes| bytes / 8);
    wait.left_ns = left_ns;
    log.left_ns = left_ns;
    add_away(1);
    if log.phase >= Phase::Return as u32 {
        send_bytes(log, WaitsRecord::HEAD as u64);
    }
}

/// Fills in what may keep a task that is runnable.
#[inline(always)]
fn leaves_runnable(wait: &mut Wait, task: Task) {
    wait.bits |= wait_bits::RUNNABLE;
    if task.throttled() {
        wait.bits |= wait_bits::THROTTLED;
    }
    wait.throttled_ns = match task.throttled_ns() {
        Some(throttled_ns) => {
            wait.bits |= wait_bits::THROTTLED_NS;
            throttled_ns
        }
        None => 0,
    };
}

/// A CPU is about to switch to a task, which may be one that is away. Whether it is, its entry tells
/// and not its registers: they may have changed meanwhile.
#[inline(always)]
pub(crate) fn comes_back(task: Task) {
    let Some(key) = task.key() else { return };
    let Some(log) = log_of(key) else { return };
    if log.left_ns == 0 {
        return;
    }
    if task.switches() != Some(log.switches) {
        // It came back unseen, and has left again since: whatever this is, it is not that wait.
        drop_log(key, log);
        return;
    }
    runs_in_fork();
    add_away(1_u64.wrapping_neg());
    let now = now();
    let place = log.current as usize;
    let Some(wait) = log.waits.get_mut(place) else { return };
    wait.back_ns = now;
    if wait.bits & wait_bits::THROTTLED_NS != 0 {
        match task.throttled_ns() {
            Some(throttled_ns) => wait.throttled_ns = throttled_ns - wait.throttled_ns,
            None => wait.bits &= !wait_bits::THROTTLED_NS,
        }
    }
    let off_ns = now - log.left_ns;
    log.off_ns += off_ns;
    if wait.was_preempted() {
        log.preempted_ns += off_ns;
    } else if wait.was_held_back() {
        log.quota_ns += off_ns;
    }
    log.left_ns = 0;
    log.count += 1;
    if log.used < KEPT {
        log.used += 1;
        log.current = log.used;
    } else {
        log.used = PLACES;
        drop_shortest(log);
    }
    if log.phase >= Phase::Return as u32 {
        send(log);
        // It cannot have gone meanwhile: only the task itself removes it, which is about to run.
        _ = OFF_CPU.remove(key);
    }
}

/// Makes room for the next wait where the shortest one is.
#[inline(always)]
fn drop_shortest(log: &mut WaitsRecord) {
    let mut shortest = 0;
    let mut shortest_ns = u64::MAX;
    for place in 0..PLACES {
        let Some(wait) = log.waits.get(place as usize) else { return };
        let ns = wait.back_ns - wait.left_ns;
        if ns < shortest_ns {
            shortest_ns = ns;
            shortest = place;
        }
    }
    let Some(wait) = log.waits.get(shortest as usize) else { return };
    let mark = wait.mark as usize;
    if let Some(other_ns) = log.other_ns.get_mut(mark) {
        *other_ns += shortest_ns;
    }
    log.current = shortest;
}

/// The waits of an attempt, or of the caller of a vfork, that is over: they are sent, if there are
/// any.
#[inline(always)]
pub(super) fn submit(key: u64) {
    if let Some(log) = log_of(key) {
        no_longer_away(log);
        send(log);
        // It was there a moment ago, and only this task removes it.
        _ = OFF_CPU.remove(key);
    }
}

/// The record of an attempt was sent and is about to be removed. If its caller was preempted between
/// the two, it stood still on its way back.
#[inline(always)]
pub(super) fn submit_late(record: &ForkRecord, key: u64) {
    if let Some(log) = log_of(key) {
        let returned = record.mark_ns(Mark::SysExit) != 0;
        log.phase = if returned { Phase::Return } else { Phase::Held } as u32;
        no_longer_away(log);
        if filter::outcome_wanted(record) {
            send(log);
        }
        // As above.
        _ = OFF_CPU.remove(key);
    }
}

/// The attempt of a thread is not shown, or the thread ends.
#[inline(always)]
pub(super) fn forget(key: u64) {
    if let Some(log) = log_of(key) {
        drop_log(key, log);
    }
}

/// Removes what is known of a task.
#[inline(always)]
fn drop_log(key: u64, log: &mut WaitsRecord) {
    no_longer_away(log);
    // As above.
    _ = OFF_CPU.remove(key);
}

/// A task runs, or has run since it left its CPU. If it was not seen to come back, nobody knows how
/// long it was away.
#[inline(always)]
fn no_longer_away(log: &mut WaitsRecord) {
    if log.left_ns != 0 {
        log.left_ns = 0;
        log.missed += 1;
        add_away(1_u64.wrapping_neg());
        count(Counter::OffCpuMissed);
    }
}

/// Sends the places that were used.
#[inline(always)]
fn send(log: &mut WaitsRecord) {
    let used = u64::from(log.used);
    if used > u64::from(PLACES) {
        return;
    }
    send_bytes(log, WaitsRecord::HEAD as u64 + used * size_of::<Wait>() as u64);
}

/// Sends the first `size` bytes.
#[inline(always)]
fn send_bytes(log: &mut WaitsRecord, size: u64) {
    if !ring::send_waits(log, size) {
        count(Counter::RingFullOffCpu);
    }
}

/// The part of a fork that the calling task is in; `None` if its fork is not shown.
#[inline(always)]
fn part(key: u64, task: Task, returns: i64) -> Option<Part> {
    if let Some(record) = under_way(key) {
        record.bits |= bits::WAITED;
        let mark = last_mark(record);
        return Some(Part { phase: Phase::Call, start_ns: record.start_ns, mark });
    }
    let part = |phase, start_ns| Part { phase, start_ns, mark: 0 };
    match returns {
        NOT_RETURNED => {
            // SAFETY: only this thread's own programs change its entry.
            let born = unsafe { WAITS.get(key) }?;
            Some(part(Phase::Held, born.began_ns))
        }
        // KERNEL: arch/*/kernel/process.c `copy_thread`: the child's call returns 0 from the
        // beginning.
        0 => {
            let wanted = || filter::start_wanted(tgid(key), low_half(key));
            // Its record is sent before that where its return is not seen.
            let ids = task.ids().filter(|_| ARCH.child_passes_exit && wanted())?;
            Some(part(Phase::Child, ids.start_ns))
        }
        _ => filter::wanted(task, tgid(key)).then(|| part(Phase::Return, 0)),
    }
}

/// The last mark that an attempt has passed.
#[inline(always)]
fn last_mark(record: &ForkRecord) -> u32 {
    let mut last = 0;
    for mark in 0..MARKS {
        if record.marks.get((MARKS - 1 - mark) as usize).is_some_and(|at| *at != 0) {
            last = mark;
        }
    }
    last
}

/// The waits of the calling task in a part of a fork; `None` if the map is full.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would pass the stack")]
fn log(key: u64, part: &Part) -> Option<&'static mut WaitsRecord> {
    if let Some(log) = log_of(key) {
        if log.phase == part.phase as u32 && log.start_ns == part.start_ns {
            return Some(log);
        }
        no_longer_away(log);
    }
    if OFF_CPU.insert(key, &EMPTY, 0).is_err() {
        count(Counter::OffCpuFull);
        return None;
    }
    let log = log_of(key)?;
    log.phase = part.phase as u32;
    log.tid = low_half(key);
    log.start_ns = part.start_ns;
    Some(log)
}

/// The waits of a task, if it has any.
#[inline(always)]
fn log_of(key: u64) -> Option<&'static mut WaitsRecord> {
    // SAFETY: an entry changes only while its task leaves a CPU or is given one, which never happens
    // at the same time.
    OFF_CPU.get_ptr_mut(key).and_then(|log| unsafe { log.as_mut() })
}
