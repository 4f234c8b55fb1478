//! The marks that an attempt passes on its way through the kernel. At a place that many others
//! pass too, a mark counts only if the calling thread has an attempt under way, and for some marks
//! only between two others.

use aya_ebpf::{cty::c_void, helpers::bpf_get_current_pid_tgid};
use fork_trace_common::{flags::CLONE_FS, record::bits, stage::Mark};

use super::record::{set_first_mark, set_mark, under_way};
use crate::{current::now, kernel::task::Task};

/// Takes `mark`; the first time counts.
#[inline(always)]
pub(crate) fn mark(mark: Mark) {
    if let Some(record) = under_way(bpf_get_current_pid_tgid()) {
        set_first_mark(record, mark, now());
    }
}

/// The kernel sets up the child's timers: the last mark of a thread before the kernel looks whether
/// another thread is inside `execve`.
#[inline(always)]
pub(crate) fn sched_fork() {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    set_first_mark(record, Mark::SchedForkTimer, now());
    if record.clone_flags & CLONE_FS != 0 && Task::current().shares_exec() == Some(true) {
        record.bits |= bits::IN_EXEC;
    }
}

/// The kernel has allocated memory, or has found none if there is no `object`: takes `mark` in
/// either case.
#[inline(always)]
pub(crate) fn allocated(mark: Mark, object: bool) {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    set_first_mark(record, mark, now());
    if !object && record.failed_alloc == 0 {
        record.failed_alloc = mark as u64 + 1;
    }
}

/// The calling thread begins to reclaim memory in its attempt, for the allocation that has the place
/// `place` in the table of call sites. That allocation has begun by now, and its mark comes only when
/// it is done.
#[inline(always)]
pub(crate) fn reclaim_begins(place: usize) {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    if let Some(slot) = record.alloc_began_ns.get_mut(place)
        && *slot == 0
    {
        *slot = now();
    }
}

/// Whether the calling thread has an attempt under way.
#[inline(always)]
pub(crate) fn is_under_way() -> bool {
    under_way(bpf_get_current_pid_tgid()).is_some()
}

/// The lock of the address space `mm` is wanted or taken: takes `mark` if it is the caller's own
/// and the attempt has passed `after`.
#[inline(always)]
pub(crate) fn mmap_lock(mm: *const c_void, mark: Mark, after: Mark) {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    if record.mark_ns(after) != 0 && Task::current().has_mm(mm) {
        set_first_mark(record, mark, now());
    }
}

/// The lock of the address space `mm` is released. It is the caller's own, or its child's.
#[inline(always)]
pub(crate) fn mmap_unlock(mm: *const c_void) {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    if record.mark_ns(Mark::MmapLockTaken) == 0 {
        return;
    }
    let own = Task::current().has_mm(mm);
    let mark = if own { Mark::ParentMmapReleased } else { Mark::ChildMmapReleased };
    set_first_mark(record, mark, now());
}

/// A thread that wants to write begins to spin at a lock. In an attempt that has its pid, that is
/// `tasklist_lock`.
#[inline(always)]
pub(crate) fn lock_contended() {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    if record.mark_ns(Mark::PidAlloc) != 0 && record.mark_ns(Mark::TaskNewtask) == 0 {
        set_first_mark(record, Mark::LockContended, now());
    }
}

/// A thread has got a lock that it waited for.
#[inline(always)]
pub(crate) fn lock_taken() {
    let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return };
    if record.mark_ns(Mark::LockContended) != 0 {
        set_first_mark(record, Mark::LockTaken, now());
    }
}

/// `kernel_clone` announces the child.
#[inline(always)]
pub(crate) fn process_fork() {
    if let Some(record) = under_way(bpf_get_current_pid_tgid()) {
        set_mark(record, Mark::SchedProcessFork, now());
    }
}
