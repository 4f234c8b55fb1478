//! Where an attempt stood still: its waits with the functions on their stacks, and the share of them
//! in each stage. Pure.
//!
//! A stage's time comes from marks, which may be coarse: a wait in `cgroup_can_fork` falls between
//! two marks that stand for another stage. The stack of a wait is exact. So a wait is also a mark:
//! the stage on its stack lasted from its beginning to its end, and the stage of the marks had not
//! begun by then, or was over.

use fork_trace_common::{
    callee::stage_of,
    record::bits::KERNEL_MADE,
    stage::{Mark, ORDER, Point, Stage},
    wait::{Phase, Wait, WaitsRecord},
};

use crate::{
    assemble::{joined::Joined, times::Times},
    event::{
        fork::Fork,
        span::{Precision, Source, Span, Status},
        values::Name,
        wait::WaitsMore,
    },
};

/// A wait, with the functions on its stack.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As the kernel side wrote it down.
    pub wait: Wait,
    /// The part of the fork.
    pub phase: Phase,
    /// The functions on the kernel stack, the innermost first; empty where they are not known.
    pub names: Vec<String>,
    /// The stage that the stack tells.
    pub stage: Option<Stage>,
}

/// All waits of an attempt that were kept, in order; `names` turns a stack into the names of its
/// functions.
#[must_use]
pub fn seen(joined: &Joined, names: &mut dyn FnMut(&[u64]) -> Option<Vec<String>>) -> Vec<Seen> {
    let records = joined.waits.as_deref().into_iter();
    let records = records.chain(&joined.waits_after).chain(&joined.child_waits);
    let waits = records.flat_map(|record| {
        let phase = phase(record);
        record.kept().map(move |wait| (phase, *wait))
    });
    let mut seen: Vec<_> = waits
        .map(|(phase, wait)| {
            let frames = wait.stack.get(..wait.frames as usize).unwrap_or_default();
            let names = names(frames).unwrap_or_default();
            let stage = match phase {
                Phase::Call | Phase::Held => stage_of(names.iter().map(String::as_str)),
                Phase::Return => Some(Stage::SysExit),
                Phase::Child => Some(Stage::RetFromFork),
            };
            Seen { wait, phase, names, stage }
        })
        .collect();
    seen.sort_by_key(|seen| (seen.phase == Phase::Child, seen.wait.left_ns));
    seen
}

fn phase(record: &WaitsRecord) -> Phase {
    const PHASES: [Phase; 4] = [Phase::Call, Phase::Held, Phase::Return, Phase::Child];
    let phase = PHASES.into_iter().find(|phase| *phase as u32 == record.phase);
    phase.unwrap_or(Phase::Call)
}

/// Fills in what is known of the time off the CPU, apart from the reasons: that of the attempt and
/// of its stages, and when its caller and its child were in user space.
pub fn add(fork: &mut Fork, joined: &Joined, seen: &[Seen]) {
    let times = Times::new(&joined.record, joined.functions.as_deref());
    if let Some(waits) = &joined.waits {
        fork.off_cpu_ns = Some(waits.off_ns).filter(|off_ns| *off_ns > 0);
        let kept: Vec<_> = waits.kept().collect();
        let kept_ns: u64 = kept.iter().map(|wait| wait.dur_ns()).sum();
        let count = u64::from(waits.count).saturating_sub(kept.len() as u64);
        let dur_ns = waits.off_ns.saturating_sub(kept_ns);
        let beside = |all_ns: u64, is: fn(&Wait) -> bool| {
            let told = kept.iter().filter(|wait| is(wait)).map(|wait| wait.dur_ns());
            all_ns.checked_sub(told.sum()).filter(|ns| *ns > 0)
        };
        fork.waits_more = (count > 0).then(|| WaitsMore {
            count,
            dur_ns,
            preempted_ns: beside(waits.preempted_ns, Wait::was_preempted),
            quota_ns: beside(waits.quota_ns, Wait::was_held_back),
        });
        // In brief an attempt has no stages, and those of its waits would be the only ones.
        if fork.brief.is_none() {
            place_all(fork, times, waits, seen);
        }
    }
    fork.waits_incomplete = joined.waits_incomplete.then_some(true);
    fork.held_ns = held_ns(joined, times);
    fork.return_ns = return_ns(joined, times);
    if joined.child_away || joined.waits_incomplete {
        if let Some(start) = &mut fork.child_start {
            start.to_user_ns = None;
        }
        return;
    }
    let woken_ns = times.mark(Mark::SchedWakeupNew);
    if let (Some(start), Some(woken_ns)) = (&mut fork.child_start, woken_ns)
        && let Some(in_user_ns) =
            last_ns(&joined.child_waits).and_then(|at| at.checked_sub(woken_ns))
    {
        start.to_user_ns = start.to_user_ns.map(|to_user_ns| to_user_ns.max(in_user_ns));
    }
}

/// Puts the waits of an attempt into its stages.
fn place_all(fork: &mut Fork, times: Times<'_>, waits: &WaitsRecord, seen: &[Seen]) {
    let began_ns = times.began_ns();
    let mut stages = std::mem::take(&mut fork.stages);
    for one in seen.iter().filter(|one| one.phase == Phase::Call) {
        let since = |at_ns: u64| at_ns.saturating_sub(began_ns);
        let (left_ns, back_ns) = (since(one.wait.left_ns), since(one.wait.back_ns));
        place(&mut stages, fork.total_ns, left_ns, back_ns, one.stage);
    }
    for (mark, off_ns) in other(waits) {
        if let Some((left_ns, back_ns)) = between(times, mark, began_ns) {
            let around = around(&stages, left_ns, back_ns);
            charge(&mut stages, around, off_ns);
        }
    }
    let self_ns: u64 = stages.iter().filter_map(|span| span.self_ns).sum();
    fork.other_ns = fork.total_ns.map(|total_ns| total_ns.saturating_sub(self_ns));
    fork.stages = stages;
}

/// How long an attempt held its caller; of a task that the kernel makes for itself, how long it took.
/// `None` where that is not known, or the caller is still held.
#[must_use]
pub fn took_ns(joined: &Joined) -> Option<u64> {
    let times = Times::new(&joined.record, joined.functions.as_deref());
    if joined.record.has(KERNEL_MADE) {
        return times.ended_ns()?.checked_sub(times.start_ns()?);
    }
    held_ns(joined, times)
}

/// When the call returned, if its caller is known to be back in user space.
fn returned_ns(joined: &Joined, times: Times<'_>) -> Option<u64> {
    let returned_ns = joined.returned_ns.or_else(|| times.mark(Mark::SysExit));
    returned_ns.filter(|_| joined.is_back && !joined.waits_incomplete)
}

/// From the entry until the caller was back in user space.
fn held_ns(joined: &Joined, times: Times<'_>) -> Option<u64> {
    let returned_ns = returned_ns(joined, times)?;
    let back_ns = last_ns(&joined.waits_after).unwrap_or_default();
    back_ns.max(returned_ns).checked_sub(times.start_ns()?)
}

/// What kept the caller after its call returned.
fn return_ns(joined: &Joined, times: Times<'_>) -> Option<u64> {
    last_ns(&joined.waits_after)?.checked_sub(returned_ns(joined, times)?)
}

/// When the last wait on the way back to user space was over.
fn last_ns(waits: &[WaitsRecord]) -> Option<u64> {
    let on_the_way = waits.iter().filter(|record| record.phase != Phase::Held as u32);
    on_the_way.flat_map(|record| record.kept()).map(|wait| wait.back_ns).max()
}

/// The time of waits that were not kept, by the mark before them.
fn other(waits: &WaitsRecord) -> impl Iterator<Item = (Mark, u64)> {
    let all = Mark::ALL.iter().copied().zip(waits.other_ns);
    all.filter(|(_, off_ns)| *off_ns > 0)
}

/// When `mark` was passed, and the mark after it: both from the beginning of the attempt.
fn between(times: Times<'_>, mark: Mark, began_ns: u64) -> Option<(u64, u64)> {
    let opens_ns = times.mark(mark)?;
    let marks = ORDER.iter().skip(Point::Mark(mark).rank() + 1);
    let mut marks = marks.filter(|point| matches!(point, Point::Mark(_)));
    let closes_ns = marks.find_map(|point| times.at(*point).filter(|at| *at >= opens_ns));
    let closes_ns = closes_ns.or_else(|| times.ended_ns())?;
    Some((opens_ns.checked_sub(began_ns)?, closes_ns.checked_sub(began_ns)?))
}

/// Puts a wait from `left_ns` to `back_ns`, since the beginning of the attempt, into the stage that
/// its stack tells, or else into the one that the marks tell. The self times of all stages stay within
/// the total.
fn place(
    stages: &mut Vec<Span>,
    total_ns: Option<u64>,
    left_ns: u64,
    back_ns: u64,
    told: Option<Stage>,
) {
    let off_ns = back_ns.saturating_sub(left_ns);
    let by_marks = around(stages, left_ns, back_ns);
    let Some(told) = told.filter(|told| is_elsewhere(*told, by_marks)) else {
        // The stack tells no more than the marks do.
        charge(stages, by_marks, off_ns);
        return;
    };
    // All runs of a function together: they hold the wait already.
    if stages.iter().any(|span| span.runs.is_some() && is(span, told)) {
        charge(stages, Some(told), off_ns);
        return;
    }
    let moved_ns = match by_marks {
        Some(by_marks) => take_out(stages, by_marks, told, left_ns, back_ns),
        None => {
            let self_ns: u64 = stages.iter().filter_map(|span| span.self_ns).sum();
            off_ns.min(total_ns.unwrap_or_default().saturating_sub(self_ns))
        }
    };
    put_in(stages, told, by_marks, (left_ns, moved_ns));
    charge(stages, Some(told), off_ns);
}

/// Whether a stage is neither the one of the marks nor around it.
fn is_elsewhere(told: Stage, by_marks: Option<Stage>) -> bool {
    by_marks.is_none_or(|by_marks| told != by_marks && !by_marks.is_within(told))
}

fn is(span: &Span, stage: Stage) -> bool {
    span.name == stage.row().name
}

/// The innermost stage that lasted from `left_ns` to `back_ns`.
fn around(stages: &[Span], left_ns: u64, back_ns: u64) -> Option<Stage> {
    let lasts = stages.iter().filter(|span| {
        let begins = span.start_ns.is_some_and(|start_ns| start_ns <= left_ns);
        let ends = span.start_ns.zip(span.dur_ns).map(|(start_ns, dur_ns)| start_ns + dur_ns);
        span.runs.is_none() && begins && ends.is_some_and(|ends| ends >= back_ns)
    });
    lasts.filter_map(Span::stage).max_by_key(|stage| stage.row().depth())
}

/// Adds time off the CPU to a stage and to those around it.
fn charge(stages: &mut [Span], of: Option<Stage>, off_ns: u64) {
    let Some(of) = of else { return };
    for span in stages {
        if let Some(stage) = span.stage()
            && (stage == of || of.is_within(stage))
            && let Some(dur_ns) = span.dur_ns
        {
            let sum = span.off_cpu_ns.unwrap_or_default().saturating_add(off_ns);
            span.off_cpu_ns = Some(sum.min(dur_ns));
        }
    }
}

/// Takes out of the stage of the marks what belongs to the one that the stack tells; returns how
/// much that is.
fn take_out(stages: &mut [Span], by_marks: Stage, told: Stage, left_ns: u64, back_ns: u64) -> u64 {
    let off_ns = back_ns.saturating_sub(left_ns);
    let nested = told.is_within(by_marks);
    let mut moved_ns = off_ns;
    for span in stages.iter_mut().filter(|span| is(span, by_marks)) {
        let (Some(start_ns), Some(dur_ns)) = (span.start_ns, span.dur_ns) else { continue };
        let self_ns = span.self_ns.unwrap_or(dur_ns);
        if !nested {
            // What the kernel does before had to be over first, and what it does after had not begun.
            let before = (told as u8) < (by_marks as u8);
            let until_ns = if before { back_ns - start_ns } else { start_ns + dur_ns - left_ns };
            moved_ns = until_ns.min(self_ns);
            if before {
                span.start_ns = Some(start_ns + moved_ns);
            }
            span.dur_ns = Some(dur_ns - moved_ns);
        }
        moved_ns = moved_ns.min(self_ns);
        span.self_ns = Some(self_ns - moved_ns);
    }
    if !nested {
        // Stages around the one, but not around the other, are shorter too.
        for span in stages.iter_mut() {
            if let Some(stage) = span.stage()
                && by_marks.is_within(stage)
                && !told.is_within(stage)
            {
                // One that got its row from a later wait does not hold this one.
                let self_ns = span.self_ns.unwrap_or_default();
                let shorter = |dur_ns: u64| dur_ns.saturating_sub(moved_ns).max(self_ns);
                span.dur_ns = span.dur_ns.map(shorter);
            }
        }
    }
    // A stage that became shorter was off the CPU for no longer than it lasted.
    for span in stages {
        span.off_cpu_ns = span.off_cpu_ns.min(span.dur_ns);
    }
    moved_ns
}

/// Adds time to the stage that the stack tells. If it was not timed, it gets a row.
fn put_in(
    stages: &mut Vec<Span>,
    told: Stage,
    by_marks: Option<Stage>,
    (left_ns, moved_ns): (u64, u64),
) {
    for span in stages.iter_mut().filter(|span| span.dur_ns.is_some()) {
        let Some(stage) = span.stage() else { continue };
        let outer = told.is_within(stage)
            && by_marks.is_none_or(|by_marks| stage != by_marks && !by_marks.is_within(stage));
        if outer || stage == told {
            span.dur_ns = span.dur_ns.map(|dur_ns| dur_ns + moved_ns);
            // The wait is a mark too: it had begun by then.
            span.start_ns = span.start_ns.map(|start_ns| start_ns.min(left_ns));
        }
        if stage == told {
            span.self_ns = span.self_ns.map(|self_ns| self_ns + moved_ns);
        }
    }
    if stages.iter().any(|span| is(span, told) && span.dur_ns.is_some()) {
        return;
    }
    // The stage that refused may stand there without a time.
    let failed = stages.iter().any(|span| is(span, told) && span.status == Status::Failed);
    stages.retain(|span| !is(span, told));
    let next = stages.iter().position(|span| span.stage().is_some_and(|stage| stage > told));
    let span = Span {
        name: Name::Borrowed(told.row().name),
        start_ns: Some(left_ns),
        dur_ns: Some(moved_ns),
        self_ns: Some(moved_ns),
        off_cpu_ns: None,
        runs: None,
        status: if failed { Status::Failed } else { Status::Done },
        precision: Precision::Bounded,
        source: Some(Source::Switch),
        as_covered: false,
        until: None,
        includes_undo: None,
        tracer_ns: None,
        samples: None,
        of: None,
    };
    stages.insert(next.unwrap_or(stages.len()), span);
}

#[cfg(test)]
mod tests {
    use super::*;
    use fork_trace_common::stage::STAGES;

    fn span(stage: Stage, start_ns: u64, dur_ns: u64, self_ns: u64) -> Span {
        Span {
            name: Name::Borrowed(stage.row().name),
            start_ns: Some(start_ns),
            dur_ns: Some(dur_ns),
            self_ns: Some(self_ns),
            off_cpu_ns: None,
            runs: None,
            status: Status::Done,
            precision: Precision::Bounded,
            source: Some(Source::Tracepoint),
            as_covered: false,
            until: None,
            includes_undo: None,
            tracer_ns: None,
            samples: None,
            of: None,
        }
    }

    /// A fork of 1,000 ns: `copy_mm` up to 300, namespaces up to 700, the pid up to 900.
    fn stages() -> Vec<Span> {
        vec![
            span(Stage::CopyProcess, 0, 1000, 100),
            span(Stage::CopyMm, 0, 300, 50),
            span(Stage::DupMmap, 50, 250, 250),
            span(Stage::CopyNamespaces, 300, 400, 400),
            span(Stage::AllocPid, 700, 200, 200),
        ]
    }

    /// Start, duration, own time and time off the CPU of a stage.
    fn of(stages: &[Span], stage: Stage) -> [Option<u64>; 4] {
        let span = stages.iter().find(|span| is(span, stage)).unwrap();
        [span.start_ns, span.dur_ns, span.self_ns, span.off_cpu_ns]
    }

    fn own(stages: &[Span]) -> u64 {
        stages.iter().filter_map(|span| span.self_ns).sum()
    }

    #[test]
    fn a_wait_of_an_earlier_stage_is_its_own() {
        // The mark that ends `dup_mmap` comes before its last part.
        let mut stages = stages();
        place(&mut stages, Some(1000), 310, 610, Some(Stage::DupMmap));
        let seen = |stage| of(&stages, stage);
        assert_eq!(seen(Stage::DupMmap), [Some(50), Some(560), Some(560), Some(300)]);
        assert_eq!(seen(Stage::CopyMm), [Some(0), Some(610), Some(50), Some(300)]);
        assert_eq!(seen(Stage::CopyNamespaces), [Some(610), Some(90), Some(90), None]);
        assert_eq!(seen(Stage::CopyProcess), [Some(0), Some(1000), Some(100), Some(300)]);
        assert_eq!(own(&stages), 1000);
    }

    #[test]
    fn a_wait_of_a_later_stage_without_marks_gets_a_row() {
        let mut stages = stages();
        place(&mut stages, Some(1000), 750, 850, Some(Stage::CgroupCanFork));
        let seen = |stage| of(&stages, stage);
        assert_eq!(seen(Stage::AllocPid), [Some(700), Some(50), Some(50), None]);
        assert_eq!(seen(Stage::CgroupCanFork), [Some(750), Some(150), Some(150), Some(100)]);
        assert_eq!(seen(Stage::CopyProcess), [Some(0), Some(1000), Some(100), Some(100)]);
        assert_eq!(own(&stages), 1000);
        assert!(stages.last().is_some_and(|last| is(last, Stage::CgroupCanFork)));
    }

    #[test]
    fn the_stage_that_refused_stays_failed() {
        let mut stages = stages();
        let mut refused = span(Stage::CgroupCanFork, 0, 0, 0);
        (refused.start_ns, refused.dur_ns, refused.self_ns) = (None, None, None);
        refused.status = Status::Failed;
        stages.push(refused);
        place(&mut stages, Some(1000), 750, 850, Some(Stage::CgroupCanFork));
        assert_eq!(of(&stages, Stage::CgroupCanFork)[0], Some(750));
        let row = stages.iter().find(|span| is(span, Stage::CgroupCanFork)).unwrap();
        assert_eq!(row.status, Status::Failed);
    }

    #[test]
    fn a_wait_of_a_stage_within_one_that_has_marks_gets_a_row_in_it() {
        let mut stages = stages();
        place(&mut stages, Some(1000), 100, 150, Some(Stage::CopyPageRange));
        let seen = |stage| of(&stages, stage);
        assert_eq!(seen(Stage::CopyPageRange), [Some(100), Some(50), Some(50), Some(50)]);
        assert_eq!(seen(Stage::DupMmap), [Some(50), Some(250), Some(200), Some(50)]);
        assert_eq!(own(&stages), 1000);
    }

    #[test]
    fn a_wait_without_a_stage_goes_by_the_marks() {
        for told in [None, Some(Stage::CopyProcess), Some(Stage::CopyMm), Some(Stage::DupMmap)] {
            let mut stages = stages();
            place(&mut stages, Some(1000), 100, 150, told);
            assert_eq!(of(&stages, Stage::DupMmap)[3], Some(50));
            assert_eq!(of(&stages, Stage::CopyMm)[3], Some(50));
            assert_eq!(of(&stages, Stage::CopyNamespaces)[3], None);
            assert_eq!(own(&stages), 1000);
        }
    }

    #[test]
    fn a_second_wait_of_a_stage_that_began_before_its_mark_is_in_it() {
        let mut stages =
            vec![span(Stage::SysEnter, 0, 400, 400), span(Stage::CopyProcess, 400, 600, 600)];
        place(&mut stages, Some(1000), 270, 350, Some(Stage::CopyProcess));
        place(&mut stages, Some(1000), 366, 374, Some(Stage::CopyProcess));
        assert_eq!(of(&stages, Stage::SysEnter), [Some(0), Some(270), Some(270), None]);
        assert_eq!(of(&stages, Stage::CopyProcess), [Some(270), Some(730), Some(730), Some(88)]);
        assert_eq!(own(&stages), 1000);
    }

    proptest::proptest! {
        /// Wherever a fork stands still, and whatever its stack tells: own times add up as before,
        /// and no stage is off the CPU for longer than it lasts.
        #[test]
        fn waits_change_no_sum(
            waits in proptest::collection::vec((0u64..1000, 0u64..300, 0usize..STAGES.len() + 1), 0..6),
        ) {
            let mut stages = stages();
            for (left_ns, dur_ns, told) in waits {
                let parent = |row: &&fork_trace_common::stage::Row| {
                    row.stage.is_within(Stage::CopyProcess)
                };
                let told = STAGES.get(told).filter(parent).map(|row| row.stage);
                let back_ns = (left_ns + dur_ns).min(1000);
                place(&mut stages, Some(1000), left_ns, back_ns, told);
            }
            proptest::prop_assert_eq!(own(&stages), 1000);
            for span in &stages {
                proptest::prop_assert!(span.off_cpu_ns.unwrap_or_default() <= span.dur_ns.unwrap());
                proptest::prop_assert!(span.self_ns <= span.dur_ns, "{:?}", span);
            }
        }
    }
}
