//! Where a failed attempt turned back: the stage that failed, and the moment from which on the
//! kernel undid what was made. Pure.

use fork_trace_common::{
    call_site::SITES,
    record::bits,
    refusal::NAMESPACES,
    stage::{Mark, Occurs, Point, STAGES, Stage},
};
use nix::errno::Errno;

use crate::{
    assemble::times::Times,
    plan::{Plan, Tracepoint},
};

/// A point that an attempt passed, and when (`CLOCK_MONOTONIC` nanoseconds).
pub(super) type Passed = (Point, u64);

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The stage that failed, where that is known.
    pub(super) stage: Option<Stage>,
    /// Where undoing began: all that this host saw of the attempt from here on is undoing. `None`
    /// where the moment was not seen: then the time of the stage that was under way includes it.
    pub(super) turn: Option<Passed>,
}

impl Failure {
    /// Of an attempt that made no task; `decided` is the stage that its cause names, if any.
    pub(super) fn of(times: Times<'_>, plan: &Plan, decided: Option<Stage>) -> Option<Self> {
        if times.record.has(bits::CHILD) {
            return None;
        }
        let stage = decided.or_else(|| stage_by_signal(times, plan));
        let turn = returned(times)
            .or_else(|| allocation(times))
            .or_else(|| copying(times, plan, stage))
            .or_else(|| first_undone(times));
        Some(Self { stage, turn })
    }

    /// Whether `stage` can have been reached: it does not come after the one that failed.
    pub(super) fn reached(&self, stage: Stage) -> bool {
        let outside = !stage.is_within(Stage::CopyProcess);
        let after = |failed: Stage| stage > failed && !stage.is_within(failed);
        outside || stage.row().occurs == Occurs::OnFailure || !self.stage.is_some_and(after)
    }

    /// Whether `stage` is the one that failed, or around it.
    pub(super) fn is_in(&self, stage: Stage) -> bool {
        self.stage.is_some_and(|failed| failed == stage || failed.is_within(stage))
    }

    /// Whether something had been made by then that had to be undone.
    pub(super) fn undoes(&self, times: Times<'_>) -> bool {
        match self.stage {
            Some(stage) => stage > Stage::SignalGate,
            None => times.mark(Mark::TaskAlloc).is_some(),
        }
    }
}

/// The return of the function that failed.
fn returned(times: Times<'_>) -> Option<Passed> {
    let point = Point::Leave(times.failed_in()?);
    Some((point, times.at(point)?))
}

/// The allocation that found no memory: its mark is taken once that is known.
fn allocation(times: Times<'_>) -> Option<Passed> {
    let stage = times.failed_alloc()?;
    let (_, mark, _) = SITES.iter().find(|(_, _, of)| *of == stage)?;
    Some((Point::Mark(*mark), times.marked(*mark)?))
}

/// The end of a copy of the address space that failed.
///
/// KERNEL: mm/mmap.c `dup_mmap` (kernel/fork.c before 6.16): an error in the loop over the mappings
/// leads to the same way out as success: the child's `mmap_lock` is released, then the parent's.
/// Undoing begins after that.
fn copying(times: Times<'_>, plan: &Plan, stage: Option<Stage>) -> Option<Passed> {
    let copying = |stage: Stage| stage == Stage::DupMmap || stage.is_within(Stage::DupMmap);
    if !stage.is_some_and(copying) {
        return None;
    }
    let mark =
        if lock_refused(times, plan) { Mark::MmapLockTaken } else { Mark::ParentMmapReleased };
    Some((Point::Mark(mark), times.mark(mark)?))
}

/// The first function that only undoes.
fn first_undone(times: Times<'_>) -> Option<Passed> {
    let undoing = STAGES.iter().filter(|row| row.occurs == Occurs::OnFailure);
    let entered = undoing.filter_map(|row| {
        let point = Point::Enter(row.function?);
        Some((point, times.at(point)?))
    });
    entered.min_by_key(|(_, at)| *at)
}

/// The stage in which a fatal signal met an attempt that was copying the address space.
///
/// KERNEL: without new namespaces only three places give `EINTR`: the wait for the caller's `mmap_lock`, the loop over the
/// mappings (both mm/mmap.c `dup_mmap`), and the section under `tasklist_lock` (kernel/fork.c
/// `copy_process`), which comes after `alloc_pid`.
fn stage_by_signal(times: Times<'_>, plan: &Plan) -> Option<Stage> {
    let record = times.record;
    let flags = record.has(bits::FLAGS).then_some(record.clone_flags)?;
    // A new network namespace waits too, for a lock of its own.
    let namespaces = NAMESPACES.iter().any(|(flag, _)| flags & flag != 0);
    if record.ret != -i64::from(Errno::EINTR as i32) || namespaces {
        return None;
    }
    if lock_refused(times, plan) {
        return Some(Stage::MmapWriteLock);
    }
    let pid = Point::Mark(Mark::PidAlloc);
    let seen = plan.timed.iter().any(|timed| timed.opens == pid) && times.at(pid).is_none();
    (seen && times.mark(Mark::ParentMmapReleased).is_some()).then_some(Stage::DupMmap)
}

/// Whether the wait for the caller's `mmap_lock` was given up: the attempt to take it returned, and
/// yet nothing was released, which happens whenever it was taken.
fn lock_refused(times: Times<'_>, plan: &Plan) -> bool {
    plan.tracepoints.contains(&Tracepoint::MmapLockReleased)
        && times.mark(Mark::MmapLockTaken).is_some()
        && times.mark(Mark::ParentMmapReleased).is_none()
        && times.mark(Mark::SysExit).is_some()
}
