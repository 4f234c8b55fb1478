//! Between which stages an attempt failed, from the points that it reached and those that it did
//! not.

use fork_trace_common::{
    call_site::SITES,
    flags::{CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM},
    function::{Function, Returns},
    record::{ForkRecord, bits},
    stage::{Mark, Occurs, Point, STAGES, Stage},
};
use nix::errno::Errno;

use crate::{
    assemble::times::{Times, failed_stage},
    plan::{Plan, Timed, points::optional},
};

/// The stages that can have refused an attempt: from the last point that it reached to the first
/// point that it did not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first stage that can have refused; `None` where the attempt's beginning bounds it.
    first: Option<Stage>,
    /// The last stage that can have refused; `None` where the attempt's end bounds it.
    last: Option<Stage>,
    /// Whether `last` cannot have refused because it did not begin: it opens with a function's
    /// entry or return, which was not seen.
    before_last: bool,
    /// Whether `last` cannot have run out of memory because it did not begin: it opens with an
    /// allocation, which would have been seen whether or not it found memory.
    no_memory: bool,
}

impl Window {
    /// The window of a failed attempt whose points are `times`, on a host traced by `plan`.
    #[must_use]
    pub fn of(times: Times<'_>, plan: &Plan) -> Self {
        if let Some(exact) = failed_stage(times) {
            return Self {
                first: Some(exact),
                last: Some(exact),
                before_last: false,
                no_memory: false,
            };
        }
        if !times.record.has(bits::ENTERED) {
            return Self { first: None, last: None, before_last: false, no_memory: false };
        }
        let entry = Point::Mark(Mark::SysEnter);
        let opens_inside = |timed: &&Timed| {
            let row = timed.stage.row();
            let own = row.inner.is_some_and(|inner| inner.opens == timed.opens);
            timed.opens != entry
                && (own || timed.opens.function().is_some())
                && row.occurs == Occurs::Always
                && !optional(timed.opens)
                && timed.opens.rank() < Point::Mark(Mark::TaskNewtask).rank()
        };
        let opened = plan.timed.iter().filter(opens_inside);
        let behind = opened
            .clone()
            .filter(|timed| !also_undone(timed.opens) && times.at(timed.opens).is_some());
        let first = behind.max_by_key(|timed| {
            // Where one point opens several stages, the outermost counts, but not all of
            // `copy_process`.
            let part = timed.stage != Stage::CopyProcess;
            (timed.opens.rank(), part, std::cmp::Reverse(timed.stage))
        });
        let must_pass =
            |timed: &&Timed| flags(times.record).is_some_and(|flags| !skips(timed, flags));
        // The attempt also passed every point before the last one that was seen, even where the
        // point itself was not seen.
        let reached = first.map_or(0, |timed| timed.opens.rank());
        let ahead = opened
            .filter(must_pass)
            .filter(|timed| timed.opens.rank() > reached && times.at(timed.opens).is_none());
        let last = ahead.min_by_key(|timed| {
            // Where one point opens several stages, the innermost counts.
            (timed.opens.rank(), std::cmp::Reverse(timed.stage))
        });
        Self {
            first: first.map(decides),
            last: last.map(|timed| timed.stage),
            before_last: last.is_some_and(|timed| timed.opens.function().is_some()),
            no_memory: last.is_some_and(|timed| allocates(timed.opens)) && no_memory(times.record),
        }
    }

    /// Whether `stage` can have refused.
    #[must_use]
    pub(super) fn admits(&self, stage: Stage) -> bool {
        let after = |first: Stage| stage >= first || first.is_within(stage);
        let before = |last: Stage| match self.before_last || self.no_memory {
            true => stage < last,
            false => stage <= last || stage.is_within(last),
        };
        self.first.is_none_or(after) && self.last.is_none_or(before)
    }

    /// The stage that refused, where only one can have.
    #[must_use]
    pub(super) fn only(&self) -> Option<Stage> {
        let first = self.first?;
        if !self.no_memory {
            return (self.last == Some(first) && !self.before_last).then_some(first);
        }
        let apart =
            |stage: Stage| stage != first && !stage.is_within(first) && !first.is_within(stage);
        let fails = |function: Function| function.row().returns != Returns::Nothing;
        let mut others = STAGES.iter().filter(|row| {
            row.occurs == Occurs::Always && apart(row.stage) && row.function.is_some_and(fails)
        });
        others.all(|row| !self.admits(row.stage)).then_some(first)
    }
}

/// Whether the attempt failed because memory was out.
fn no_memory(record: &ForkRecord) -> bool {
    record.ret == -i64::from(Errno::ENOMEM as i32)
}

/// Whether a point is an allocation. Its tracepoint fires whether or not the allocation found
/// memory.
fn allocates(point: Point) -> bool {
    SITES.iter().any(|(_, mark, _)| point == Point::Mark(*mark))
}

/// The first stage that can have refused once `timed` was reached. Where `timed` opens with the
/// return of a function, that is the function's own stage: the kernel may act on the value it
/// returned only afterwards.
fn decides(timed: &Timed) -> Stage {
    let Point::Leave(function) = timed.opens else { return timed.stage };
    STAGES.iter().find(|row| row.function == Some(function)).map_or(timed.stage, |row| row.stage)
}

/// Whether an attempt reaches a point also when the copy of the address space fails: then the point
/// does not show that the copy succeeded.
fn also_undone(point: Point) -> bool {
    matches!(point, Point::Mark(Mark::ChildMmapReleased | Mark::ParentMmapReleased))
}

/// The clone flags, where they were read.
fn flags(record: &ForkRecord) -> Option<u64> {
    record.has(bits::FLAGS).then_some(record.clone_flags)
}

/// Whether an attempt with `flags` does not reach the point that opens `timed`, because it shares
/// with its parent what the stage would copy.
fn skips(timed: &Timed, flags: u64) -> bool {
    let own = timed.stage.row().shared_by;
    let shared_by = timed.stage.around().fold(own, |flags, outer| flags | outer.row().shared_by);
    let Point::Mark(mark) = timed.opens else { return flags & shared_by != 0 };
    let shared_by = match mark {
        // KERNEL: kernel/cred.c `copy_creds`: a thread shares its process's credentials.
        Mark::CredAlloc | Mark::SignalAlloc => CLONE_THREAD,
        Mark::FilesAlloc => CLONE_FILES,
        Mark::FsAlloc => CLONE_FS,
        Mark::SighandAlloc => CLONE_SIGHAND,
        Mark::MmAlloc
        | Mark::MmapLockStart
        | Mark::MmapLockTaken
        | Mark::ChildMmapReleased
        | Mark::ParentMmapReleased => CLONE_VM,
        _ => 0,
    };
    flags & shared_by != 0
}

#[cfg(test)]
mod tests {
    use fork_trace_common::record::FunctionTimes;

    use super::*;
    use crate::cause::tests::{learned_plan, probed_plan, refused};

    fn window_of(record: &ForkRecord) -> Window {
        Window::of(Times::new(record, None), &learned_plan())
    }

    #[test]
    fn without_marks_every_stage_up_to_the_first_mark_can_have_refused() {
        let window = window_of(&refused(0x11));
        assert!(window.admits(Stage::FlagChecks) && window.admits(Stage::DupTaskStruct));
        assert!(window.admits(Stage::CopyCloneArgs) && !window.admits(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }

    #[test]
    fn the_last_mark_rules_out_the_stages_before_it() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::PidAlloc) {
            record.marks[mark.place()] = 1_000 + *mark as u64;
        }
        let window = window_of(&record);
        assert!(window.admits(Stage::AllocPid) && window.admits(Stage::CgroupCanFork));
        assert!(window.admits(Stage::TasklistLock) && !window.admits(Stage::RlimitNproc));
        record.marks[Mark::PidAlloc.place()] = 0;
        let window = window_of(&record);
        assert!(window.admits(Stage::CopyThread) && window.admits(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }

    #[test]
    fn a_stage_that_is_shared_need_not_be_reached() {
        let mut record = refused(0x3d_0f00);
        for mark in [Mark::SysEnter, Mark::TaskAlloc, Mark::SchedForkTimer, Mark::FpuCopy] {
            record.marks[mark.place()] = 1_000;
        }
        let window = window_of(&record);
        assert!(!window.admits(Stage::CopyMm) && window.admits(Stage::CopyThread));
        assert!(window.admits(Stage::AllocPid) && !window.admits(Stage::PidfdPrepare));
    }

    #[test]
    fn a_nested_stage_keeps_those_around_it() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::MmapLockTaken) {
            record.marks[mark.place()] = 1_000;
        }
        let window = window_of(&record);
        assert!(window.admits(Stage::DupMmap) && window.admits(Stage::CopyPageRange));
        assert!(!window.admits(Stage::CopySignal) && !window.admits(Stage::AllocPid));
    }

    #[test]
    fn a_copy_that_is_undone_releases_its_locks_too() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::ParentMmapReleased) {
            record.marks[mark.place()] = 1_000;
        }
        let window = window_of(&record);
        assert!(window.admits(Stage::DupMmap) && window.admits(Stage::CopyNamespaces));
        assert!(!window.admits(Stage::CopySignal) && !window.admits(Stage::AllocPid));
    }

    #[test]
    fn the_value_a_function_returned_may_be_judged_after_it() {
        let mut functions = FunctionTimes::zeroed();
        let mut record = refused(0x11);
        record.marks[Mark::TaskAlloc.place()] = 1_010;
        for (at, function) in (1_020..).step_by(10).zip([
            Function::KernelClone,
            Function::CopyProcess,
            Function::TskForkGetNode,
            Function::CopyCreds,
            Function::IsRlimitOverlimit,
        ]) {
            functions.once[function as usize] = [at, at + 5];
        }
        let window = Window::of(Times::new(&record, Some(&functions)), &probed_plan());
        assert!(window.admits(Stage::RlimitNproc) && window.admits(Stage::MaxThreads));
        assert!(!window.admits(Stage::CopyCreds) && !window.admits(Stage::SchedFork));
    }

    #[test]
    fn without_memory_the_next_allocation_was_not_reached() {
        let mut record = refused(0x11);
        record.ret = -12;
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::FilesAlloc) {
            record.marks[mark.place()] = 1_000;
        }
        assert_eq!(window_of(&record).only(), Some(Stage::CopyFiles));
        record.ret = -11;
        assert_eq!(
            window_of(&record).only(),
            None,
            "the next stage may have refused before it allocated"
        );
        record.ret = -12;
        record.marks[..=Mark::CredAlloc.place()].fill(0);
        assert_eq!(
            window_of(&record).only(),
            None,
            "from 7.2 on the exec state may be the next stage"
        );
    }

    #[test]
    fn an_allocation_that_found_no_memory_is_the_only_one() {
        let mut record = refused(0x11);
        record.marks[Mark::SignalAlloc.place()] = 1_000;
        record.failed_alloc = Mark::SignalAlloc as u64 + 1;
        assert_eq!(window_of(&record).only(), Some(Stage::CopySignal));
        record.failed_alloc = u64::MAX;
        assert!(window_of(&record).only().is_none(), "no such mark");
    }

    #[test]
    fn a_function_that_returned_an_error_is_the_only_one() {
        let mut functions = FunctionTimes::zeroed();
        functions.failed = Function::AllocPid as u32 + 1;
        let record = refused(0x11);
        let times = Times::new(&record, Some(&functions));
        let window = Window::of(times, &learned_plan());
        assert_eq!(window.only(), Some(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }
}
