//! Between which stages an attempt failed, from the marks it passed and those it did not.

use fork_trace_common::{
    flags::{CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM},
    record::{ForkRecord, bits},
    stage::{Mark, STAGES, Stage},
};

use crate::plan::{Plan, Timed, optional};

/// The stages that can have refused: from the last mark passed to the first not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    first: Option<Stage>,
    last: Option<Stage>,
}

impl Window {
    /// Of a failed attempt; `exact` where a source saw the stage itself.
    #[must_use]
    pub fn of(record: &ForkRecord, plan: &Plan, exact: Option<Stage>) -> Self {
        if exact.is_some() {
            return Self { first: exact, last: exact };
        }
        if !record.has(bits::ENTERED) {
            return Self { first: None, last: None };
        }
        let passed = |mark: Mark| record.marks.get(mark as usize).is_some_and(|at| *at != 0);
        let inner = |timed: &&Timed| {
            timed.stage.row().inner.is_some_and(|inner| {
                inner.opens == timed.opens && inner.opens > Mark::SysEnter && !optional(inner.opens)
            })
        };
        let opened = plan.timed.iter().filter(inner);
        let behind = opened.clone().filter(|timed| passed(timed.opens));
        let first = behind.max_by_key(|timed| {
            // Of stages that one mark opens, the outermost.
            (timed.opens, std::cmp::Reverse(timed.stage))
        });
        let must_pass =
            |timed: &&Timed| flags(record).is_some_and(|flags| !skips(timed.opens, flags));
        let ahead = opened.filter(must_pass).filter(|timed| !passed(timed.opens));
        let last = ahead.min_by_key(|timed| {
            // Of stages that one mark opens, the innermost.
            (timed.opens, std::cmp::Reverse(timed.stage))
        });
        Self { first: first.map(|timed| timed.stage), last: last.map(|timed| timed.stage) }
    }

    /// Whether `stage` can have refused.
    #[must_use]
    pub fn admits(&self, stage: Stage) -> bool {
        let after = |first: Stage| stage >= first || within(first, stage);
        let before = |last: Stage| stage <= last || within(stage, last);
        self.first.is_none_or(after) && self.last.is_none_or(before)
    }

    /// The stage, where it is only one.
    #[must_use]
    pub fn only(&self) -> Option<Stage> {
        self.first.filter(|first| self.last == Some(*first))
    }
}

fn flags(record: &ForkRecord) -> Option<u64> {
    record.has(bits::FLAGS).then_some(record.clone_flags)
}

/// Whether an attempt with `flags` shares what would be made at `mark`, and does not pass it.
fn skips(mark: Mark, flags: u64) -> bool {
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

/// Whether `stage` is part of `outer`.
fn within(stage: Stage, outer: Stage) -> bool {
    let mut parent = STAGES.get(stage as usize).and_then(|row| row.parent);
    while let Some(around) = parent {
        if around == outer {
            return true;
        }
        parent = around.row().parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::tests::{learned_plan, refused};

    #[test]
    fn without_marks_anything_up_to_the_first_can_have_refused() {
        let window = Window::of(&refused(0x11), &learned_plan(), None);
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
        let window = Window::of(&record, &learned_plan(), None);
        assert!(window.admits(Stage::AllocPid) && window.admits(Stage::CgroupCanFork));
        assert!(window.admits(Stage::TasklistLock) && !window.admits(Stage::RlimitNproc));
        record.marks[Mark::PidAlloc as usize] = 0;
        let window = Window::of(&record, &learned_plan(), None);
        assert!(window.admits(Stage::CopyThread) && window.admits(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }

    #[test]
    fn what_is_shared_need_not_be_passed() {
        let mut record = refused(0x3d_0f00);
        for mark in [Mark::SysEnter, Mark::TaskAlloc, Mark::SchedForkTimer, Mark::FpuCopy] {
            record.marks[mark as usize] = 1_000;
        }
        let window = Window::of(&record, &learned_plan(), None);
        assert!(!window.admits(Stage::CopyMm) && window.admits(Stage::CopyThread));
        assert!(window.admits(Stage::AllocPid) && !window.admits(Stage::PidfdPrepare));
    }

    #[test]
    fn a_nested_stage_keeps_those_around_it() {
        let mut record = refused(0x11);
        for mark in Mark::ALL.iter().take_while(|mark| **mark <= Mark::MmapLockTaken) {
            record.marks[*mark as usize] = 1_000;
        }
        let window = Window::of(&record, &learned_plan(), None);
        assert!(window.admits(Stage::DupMmap) && window.admits(Stage::CopyPageRange));
        assert!(!window.admits(Stage::CopySignal) && !window.admits(Stage::AllocPid));
    }

    #[test]
    fn an_exact_stage_is_the_only_one() {
        let window = Window::of(&refused(0x11), &learned_plan(), Some(Stage::AllocPid));
        assert_eq!(window.only(), Some(Stage::AllocPid));
        assert!(!window.admits(Stage::CgroupCanFork));
    }
}
