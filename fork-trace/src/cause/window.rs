//! Between which stages an attempt failed, from the points it passed and those it did not.

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

/// The stages that can have refused: from the last point passed to the first not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    first: Option<Stage>,
    last: Option<Stage>,
    /// Whether `last` was not even come to: the point before it is a function's.
    before_last: bool,
    /// The same, for want of memory: the point before it is an allocation, which is seen whether or
    /// not there is any.
    no_memory: bool,
}

impl Window {
    /// Of a failed attempt.
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
            // Of stages that one point opens, the outermost, but not all of `copy_process`.
            let part = timed.stage != Stage::CopyProcess;
            (timed.opens.rank(), part, std::cmp::Reverse(timed.stage))
        });
        let must_pass =
            |timed: &&Timed| flags(times.record).is_some_and(|flags| !skips(timed, flags));
        // What lies before the last point passed was passed too, though it may not have been seen.
        let reached = first.map_or(0, |timed| timed.opens.rank());
        let ahead = opened
            .filter(must_pass)
            .filter(|timed| timed.opens.rank() > reached && times.at(timed.opens).is_none());
        let last = ahead.min_by_key(|timed| {
            // Of stages that one point opens, the innermost.
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
    pub fn admits(&self, stage: Stage) -> bool {
        let after = |first: Stage| stage >= first || first.is_within(stage);
        let before = |last: Stage| match self.before_last || self.no_memory {
            true => stage < last,
            false => stage <= last || stage.is_within(last),
        };
        self.first.is_none_or(after) && self.last.is_none_or(before)
    }

    /// The stage, where it is only one.
    #[must_use]
    pub fn only(&self) -> Option<Stage> {
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

fn no_memory(record: &ForkRecord) -> bool {
    record.ret == -i64::from(Errno::ENOMEM as i32)
}

/// Whether a point is an allocation, which is passed whether or not there is memory.
fn allocates(point: Point) -> bool {
    SITES.iter().any(|(_, mark, _)| point == Point::Mark(*mark))
}

/// The first stage that can have refused once `timed` was come to: what a function before it
/// returned may be judged only then.
fn decides(timed: &Timed) -> Stage {
    let Point::Leave(function) = timed.opens else { return timed.stage };
    STAGES.iter().find(|row| row.function == Some(function)).map_or(timed.stage, |row| row.stage)
}

/// Whether a point is passed too where the copy of the address space fails and is undone.
fn also_undone(point: Point) -> bool {
    matches!(point, Point::Mark(Mark::ChildMmapReleased | Mark::ParentMmapReleased))
}

fn flags(record: &ForkRecord) -> Option<u64> {
    record.has(bits::FLAGS).then_some(record.clone_flags)
}

/// Whether an attempt with `flags` shares what a stage would make, and does not pass its opening
/// point.
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
        Window::of(Times { record, functions: None }, &learned_plan())
    }

    #[test]
    fn without_marks_anything_up_to_the_first_can_have_refused() {
        let window = window_of(&refused(0x11));
        assert!(window.admits(Stage::FlagChecks) && window.admits(Stage::DupTaskStruct));
        assert!(window.admits(Stage::CopyCloneArgs) && !window.admits(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }

    #[test]
    fn the_last_mark_shuts_out_what_came_before() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::PidAlloc) {
            record.marks[*mark as usize] = 1_000 + *mark as u64;
        }
        let window = window_of(&record);
        assert!(window.admits(Stage::AllocPid) && window.admits(Stage::CgroupCanFork));
        assert!(window.admits(Stage::TasklistLock) && !window.admits(Stage::RlimitNproc));
        record.marks[Mark::PidAlloc as usize] = 0;
        let window = window_of(&record);
        assert!(window.admits(Stage::CopyThread) && window.admits(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }

    #[test]
    fn what_is_shared_need_not_be_passed() {
        let mut record = refused(0x3d_0f00);
        for mark in [Mark::SysEnter, Mark::TaskAlloc, Mark::SchedForkTimer, Mark::FpuCopy] {
            record.marks[mark as usize] = 1_000;
        }
        let window = window_of(&record);
        assert!(!window.admits(Stage::CopyMm) && window.admits(Stage::CopyThread));
        assert!(window.admits(Stage::AllocPid) && !window.admits(Stage::PidfdPrepare));
    }

    #[test]
    fn a_nested_stage_keeps_those_around_it() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::MmapLockTaken) {
            record.marks[*mark as usize] = 1_000;
        }
        let window = window_of(&record);
        assert!(window.admits(Stage::DupMmap) && window.admits(Stage::CopyPageRange));
        assert!(!window.admits(Stage::CopySignal) && !window.admits(Stage::AllocPid));
    }

    #[test]
    fn a_copy_that_is_undone_releases_its_locks_too() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::ParentMmapReleased) {
            record.marks[*mark as usize] = 1_000;
        }
        let window = window_of(&record);
        assert!(window.admits(Stage::DupMmap) && window.admits(Stage::CopyNamespaces));
        assert!(!window.admits(Stage::CopySignal) && !window.admits(Stage::AllocPid));
    }

    #[test]
    fn what_a_function_returned_may_be_judged_after_it() {
        let mut functions = FunctionTimes::zeroed();
        let mut record = refused(0x11);
        record.marks[Mark::TaskAlloc as usize] = 1_010;
        for (at, function) in (1_020..).step_by(10).zip([
            Function::KernelClone,
            Function::CopyProcess,
            Function::TskForkGetNode,
            Function::CopyCreds,
            Function::IsRlimitOverlimit,
        ]) {
            functions.once[function as usize] = [at, at + 5];
        }
        let window =
            Window::of(Times { record: &record, functions: Some(&functions) }, &probed_plan());
        assert!(window.admits(Stage::RlimitNproc) && window.admits(Stage::MaxThreads));
        assert!(!window.admits(Stage::CopyCreds) && !window.admits(Stage::SchedFork));
    }

    #[test]
    fn without_memory_the_next_allocation_was_not_come_to() {
        let mut record = refused(0x11);
        record.ret = -12;
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::FilesAlloc) {
            record.marks[*mark as usize] = 1_000;
        }
        assert_eq!(window_of(&record).only(), Some(Stage::CopyFiles));
        record.ret = -11;
        assert_eq!(window_of(&record).only(), None, "it may have been refused before it allocated");
        record.ret = -12;
        record.marks[Mark::CredAlloc as usize..].fill(0);
        assert_eq!(
            window_of(&record).only(),
            None,
            "from 7.2 on the exec state may have been next"
        );
    }

    #[test]
    fn an_allocation_that_found_no_memory_is_the_only_one() {
        let mut record = refused(0x11);
        record.marks[Mark::SignalAlloc as usize] = 1_000;
        record.failed_alloc = Mark::SignalAlloc as u64 + 1;
        assert_eq!(window_of(&record).only(), Some(Stage::CopySignal));
        record.failed_alloc = u64::MAX;
        assert!(window_of(&record).only().is_none(), "no such mark");
    }

    #[test]
    fn a_function_that_failed_is_the_only_one() {
        let mut functions = FunctionTimes::zeroed();
        functions.failed = Function::AllocPid as u32 + 1;
        let record = refused(0x11);
        let times = Times { record: &record, functions: Some(&functions) };
        let window = Window::of(times, &learned_plan());
        assert_eq!(window.only(), Some(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }
}
