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
        // The call returns from what comes before `kernel_clone` too.
        let entering = self.stage.is_some_and(|failed| failed.is_within(Stage::SysEnter));
        let call = [Stage::SysEnter, Stage::KernelClone];
        let in_call = call.iter().any(|part| stage == *part || stage.is_within(*part));
        let inside = stage.is_within(Stage::CopyProcess) || entering && in_call;
        let after = |failed: Stage| stage > failed && !stage.is_within(failed);
        !inside || stage.row().occurs == Occurs::OnFailure || !self.stage.is_some_and(after)
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

#[cfg(test)]
mod tests {
    use fork_trace_common::record::ForkRecord;

    use super::*;
    use crate::{
        assemble::spans::spans,
        event::span::{Span, Status},
        host::{call_sites::all_unknown, facts::Facts},
        plan::{backend::Backend, stages::Stages},
    };

    /// A host with every inner mark.
    fn plan() -> Plan {
        let tracepoints = Tracepoint::ALL.iter().copied().collect();
        let known = all_unknown("").into_keys().map(|mark| (mark, Ok(0x1000 + mark as u64)));
        let facts = Facts { tracepoints, inner: known.collect(), ..Facts::default() };
        Plan::new(&facts, Backend::Auto, &Stages::All).unwrap()
    }

    /// A refused fork that passed every mark up to `last`, ten microseconds apart, and returned at
    /// 1,000 us.
    fn refused(last: Mark, errno: Errno) -> ForkRecord {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::ENTERED | bits::FLAGS;
        record.clone_flags = 0x11;
        record.start_ns = 10_000;
        let marks = Mark::ALL.iter().take_while(|mark| **mark <= last);
        for mark in marks.filter(|mark| **mark < Mark::StartTime) {
            record.marks[mark.place()] = 10_000 * (*mark as u64 + 1);
        }
        record.marks[Mark::SysExit.place()] = 1_000_000;
        record.ret = -i64::from(errno as i32);
        record
    }

    fn stages(record: &ForkRecord, decided: Option<Stage>) -> Vec<Span> {
        let times = Times::new(record, None);
        let plan = plan();
        spans(times, &plan, Failure::of(times, &plan, decided))
    }

    fn find(spans: &[Span], stage: Stage) -> Option<&Span> {
        spans.iter().find(|span| span.name == stage.row().name)
    }

    fn names(spans: &[Span], status: Status) -> Vec<&str> {
        let of = spans.iter().filter(|span| span.status == status);
        of.map(|span| span.name.as_ref()).collect()
    }

    #[test]
    fn a_copy_that_failed_ends_at_its_lock_s_release_and_undoing_begins_there() {
        let record = refused(Mark::ParentMmapReleased, Errno::ENOMEM);
        let spans = stages(&record, Some(Stage::DupMmap));
        let around = ["copy_process", "copy_mm", "dup_mmap", "copy_page_range"];
        assert_eq!(names(&spans, Status::Failed), around);
        assert_eq!(find(&spans, Stage::CopyNamespaces), None, "it was not reached");
        let released = record.marks[Mark::ParentMmapReleased.place()] - record.start_ns;
        let undo = find(&spans, Stage::BadForkCleanup).unwrap();
        assert_eq!((undo.start_ns, undo.dur_ns), (Some(released), Some(990_000 - released)));
        assert_eq!(undo.status, Status::Done);
        let own: u64 = spans.iter().filter_map(|span| span.self_ns).sum();
        assert_eq!(own, 990_000, "nothing is counted twice");
        assert!(spans.iter().all(|span| span.includes_undo.is_none()));
    }

    #[test]
    fn where_undoing_began_unseen_the_last_stage_says_that_it_includes_it() {
        let record = refused(Mark::PidAlloc, Errno::EAGAIN);
        let spans = stages(&record, Some(Stage::CgroupCanFork));
        assert_eq!(find(&spans, Stage::BadForkCleanup), None);
        let pid = find(&spans, Stage::AllocPid).unwrap();
        assert_eq!((pid.status, pid.includes_undo), (Status::Done, Some(true)));
        assert_eq!(pid.until.as_deref(), Some("sys_exit"));
        let failed = find(&spans, Stage::CgroupCanFork).unwrap();
        assert_eq!((failed.status, failed.dur_ns), (Status::Failed, None));
        assert_eq!(names(&spans, Status::Failed), ["copy_process", "cgroup_can_fork"]);
    }

    #[test]
    fn nothing_is_undone_of_what_was_refused_before_anything_was_made() {
        let record = refused(Mark::SysEnter, Errno::EINVAL);
        let spans = stages(&record, Some(Stage::FlagChecks));
        let entry = find(&spans, Stage::SysEnter).unwrap();
        assert_eq!((entry.status, entry.includes_undo), (Status::Done, None));
        assert_eq!(names(&spans, Status::Failed), ["clone_flag_checks"]);
    }

    #[test]
    fn nothing_stands_after_a_check_that_failed_before_kernel_clone() {
        let failure = Failure { stage: Some(Stage::CopyCloneArgs), turn: None };
        for later in [Stage::Clone3ArgsValid, Stage::KernelClone, Stage::CopyProcess] {
            assert!(!failure.reached(later), "{later:?}");
        }
        assert!(failure.reached(Stage::SysEnter) && failure.reached(Stage::CopyCloneArgs));
        let failure = Failure { stage: Some(Stage::FlagChecks), turn: None };
        assert!(failure.reached(Stage::Clone3ArgsValid) && failure.reached(Stage::KernelClone));
    }

    #[test]
    fn without_a_stage_that_failed_it_is_the_one_under_way() {
        let spans = stages(&refused(Mark::FsAlloc, Errno::ENOMEM), None);
        assert_eq!(names(&spans, Status::Failed), ["copy_process", "copy_fs"]);
        assert_eq!(find(&spans, Stage::CopyFs).unwrap().includes_undo, Some(true));
    }

    #[test]
    fn what_is_shared_before_the_failure_is_shared() {
        let mut record = refused(Mark::PidAlloc, Errno::ENOMEM);
        record.clone_flags = 0x4100 | 17;
        for mark in Mark::ALL
            .iter()
            .filter(|mark| **mark >= Mark::MmAlloc && **mark <= Mark::ParentMmapReleased)
        {
            record.marks[mark.place()] = 0;
        }
        let spans = stages(&record, Some(Stage::AllocPid));
        assert_eq!(names(&spans, Status::Shared), ["copy_mm"]);
        assert_eq!(names(&spans, Status::Failed), ["copy_process", "alloc_pid"]);
        assert_eq!(find(&spans, Stage::CopySignal).unwrap().status, Status::Done);
    }

    #[test]
    fn an_allocation_counts_from_where_it_began_to_reclaim() {
        let mut record = refused(Mark::SighandAlloc, Errno::ENOMEM);
        let sighand = SITES.iter().position(|(_, mark, _)| *mark == Mark::SighandAlloc).unwrap();
        let marked = record.marks[Mark::SighandAlloc.place()];
        record.alloc_began_ns[sighand] = marked - 9_000;
        record.failed_alloc = Mark::SighandAlloc as u64 + 1;
        let spans = stages(&record, Some(Stage::CopySighand));
        assert_eq!(find(&spans, Stage::CopyFs).unwrap().dur_ns, Some(1_000));
        assert_eq!(find(&spans, Stage::CopySighand).unwrap().dur_ns, Some(9_000));
        let undo = find(&spans, Stage::BadForkCleanup).unwrap();
        assert_eq!(undo.dur_ns, Some(1_000_000 - marked));
        // One that succeeded keeps its time too.
        record.failed_alloc = 0;
        let spans = stages(&record, None);
        assert_eq!(find(&spans, Stage::CopyFs).unwrap().dur_ns, Some(1_000));
        assert_eq!(find(&spans, Stage::CopySighand).unwrap().includes_undo, Some(true));
    }

    #[test]
    fn a_fatal_signal_is_met_where_the_marks_end() {
        let failed = |record: &ForkRecord| {
            Failure::of(Times::new(record, None), &plan(), None).unwrap().stage
        };
        let copying = refused(Mark::ParentMmapReleased, Errno::EINTR);
        assert_eq!(failed(&copying), Some(Stage::DupMmap));
        let waiting = refused(Mark::MmapLockTaken, Errno::EINTR);
        assert_eq!(failed(&waiting), Some(Stage::MmapWriteLock));
        let spans = stages(&waiting, None);
        assert_eq!(find(&spans, Stage::CopyPageRange), None, "the lock was never held");
        assert_eq!(find(&spans, Stage::MmapWriteLock).unwrap().status, Status::Failed);
        assert_eq!(failed(&refused(Mark::PidAlloc, Errno::EINTR)), None, "later");
        let mut namespaces = copying;
        namespaces.clone_flags |= 0x4000_0000;
        assert_eq!(failed(&namespaces), None, "or in them");
    }
}
