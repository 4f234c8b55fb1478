//! The stages of one attempt, from the times of its record: pure.
//!
//! A stage lies between the two points that the plan gives it. Self times add up to the total,
//! because a stage's interval lies within that of the stage around it.

use fork_trace_common::{
    function::{Frequency, Function},
    record::bits,
    stage::{Mark, ORDER, Occurs, Point, STAGES, Side, Stage},
};

use crate::{
    assemble::times::{Times, failed_stage},
    event::{
        span::{Precision, Source, Span, Status},
        values::Name,
    },
    plan::{
        Plan, Timed,
        points::{optional, point_name},
    },
};

/// The stages that were timed, and those that shared instead of copying.
#[must_use]
pub fn spans(times: Times<'_>, plan: &Plan) -> Vec<Span> {
    let seen: Vec<_> = plan.timed.iter().map(|timed| interval(times, timed)).collect();
    let around = plan.timed.iter().map(|timed| around(timed.stage, plan, &seen)).collect();
    let attempt = Attempt { times, plan, seen, around };
    let mut spans = Vec::with_capacity(plan.timed.len());
    for row in STAGES.iter().filter(|row| row.side == Side::Parent) {
        let place = plan.timed.iter().position(|timed| timed.stage == row.stage);
        let timed = place.and_then(|place| plan.timed.get(place));
        let seen = place.and_then(|place| attempt.seen.get(place).copied().flatten());
        let made = times.record.has(bits::CHILD);
        if let (Some(timed), Some(seen)) = (timed, seen) {
            spans.push(attempt.span(timed, seen));
        } else if made && row.shared_by & times.record.task_flags != 0 {
            spans.push(untimed(row.name, Status::Shared, Source::Derived));
        } else if let Some(timed) = timed.filter(|timed| made && attempt.must_have(timed)) {
            spans.push(untimed(row.name, Status::Missing, timed.source));
        }
    }
    spans
}

fn untimed(name: &'static str, status: Status, source: Source) -> Span {
    Span {
        name: Name::Borrowed(name),
        start_ns: None,
        dur_ns: None,
        self_ns: None,
        runs: None,
        status,
        precision: Precision::Missing,
        source: Some(source),
        until: None,
    }
}

/// When a stage began, how long it took, and what ended it.
#[derive(Clone, Copy, Debug)]
struct Interval {
    opens_ns: u64,
    dur_ns: u64,
    /// How often its function ran, where it runs many times.
    runs: Option<u64>,
    /// `None`: the end of the attempt, as far as it is shown.
    closed_by: Option<Point>,
}

/// From its opening point to its closing one, or where the attempt did not pass that, to the next
/// that it passed.
fn interval(times: Times<'_>, timed: &Timed) -> Option<Interval> {
    let opens_ns = times.at(timed.opens).filter(|at| *at >= times.began_ns())?;
    if let (true, Some(runs)) =
        (timed.exact, timed.opens.function().and_then(|function| times.runs(function)))
    {
        let closed_by = Some(timed.closes);
        let runs_count = Some(runs.count);
        return Some(Interval { opens_ns, dur_ns: runs.spent_ns, runs: runs_count, closed_by });
    }
    let row = timed.stage.row();
    let failed = !times.record.has(bits::CHILD);
    if row.occurs == Occurs::OnFailure && !failed {
        return None;
    }
    let mut passed = ORDER
        .iter()
        .copied()
        .skip(timed.rank)
        .filter(|later| *later == timed.closes || !optional(*later))
        .filter_map(|later| Some((later, times.at(later).filter(|at| *at >= opens_ns)?)));
    let (closed_by, closes_ns) = match passed.next() {
        Some((point, at)) => (Some(point), at),
        None => (None, times.ended_ns().filter(|end| *end > opens_ns)?),
    };
    // What follows the function that failed is not a stage that was come to.
    let came_to = closed_by == Some(timed.closes) || !row.stage.is_within(Stage::CopyProcess);
    let failure = times.failed_in().and_then(|function| times.at(Point::Leave(function)));
    if !came_to && failure.is_some_and(|failure| opens_ns >= failure) {
        return None;
    }
    Some(Interval { opens_ns, dur_ns: closes_ns - opens_ns, runs: None, closed_by })
}

/// An attempt, and what was seen of each stage of the plan.
struct Attempt<'a> {
    times: Times<'a>,
    plan: &'a Plan,
    seen: Vec<Option<Interval>>,
    /// The nearest timed stage around each.
    around: Vec<Option<Stage>>,
}

/// The nearest stage around `stage` that was timed in this attempt.
fn around(stage: Stage, plan: &Plan, seen: &[Option<Interval>]) -> Option<Stage> {
    let timed = |candidate: Stage| {
        let mut seen = plan.timed.iter().zip(seen).filter(|(_, seen)| seen.is_some());
        seen.any(|(timed, _)| timed.stage == candidate)
    };
    std::iter::successors(stage.row().parent, |parent| parent.row().parent)
        .find(|candidate| timed(*candidate))
}

impl Attempt<'_> {
    fn span(&self, timed: &Timed, seen: Interval) -> Span {
        let inner = self.around.iter().zip(&self.seen).filter_map(|(around, seen)| {
            let seen = seen.as_ref().filter(|_| *around == Some(timed.stage))?;
            Some(seen.dur_ns)
        });
        let on_time = seen.closed_by == Some(timed.closes);
        let until = seen.closed_by.filter(|_| !on_time);
        let exact = timed.exact && on_time;
        Span {
            name: Name::Borrowed(timed.stage.row().name),
            start_ns: Some(seen.opens_ns.saturating_sub(self.times.began_ns())),
            dur_ns: Some(seen.dur_ns),
            self_ns: Some(seen.dur_ns.saturating_sub(inner.sum())),
            runs: seen.runs,
            status: if self.failed(timed.stage, on_time) { Status::Failed } else { Status::Done },
            precision: if exact { Precision::Exact } else { Precision::Bounded },
            source: Some(timed.source),
            until: until.map(|point| point_name(point, &self.plan.probes)),
        }
    }

    /// Whether a stage is the one that failed, or around it.
    fn failed(&self, stage: Stage, on_time: bool) -> bool {
        if self.times.record.has(bits::CHILD) || stage.row().occurs == Occurs::OnFailure {
            return false;
        }
        match failed_stage(self.times) {
            Some(failed) => failed == stage || failed.is_within(stage),
            // Around what failed unseen, functions return on time.
            None => !on_time || matches!(stage, Stage::CopyProcess | Stage::KernelClone),
        }
    }

    /// Whether an attempt that made a task must have passed a stage.
    fn must_have(&self, timed: &Timed) -> bool {
        let row = timed.stage.row();
        let record = self.times.record;
        let shared = std::iter::successors(Some(timed.stage), |stage| stage.row().parent)
            .any(|stage| stage.row().shared_by & record.task_flags != 0);
        let waits = record.has(bits::VFORK_WAIT | bits::KERNEL_MADE)
            && timed.rank > Point::Mark(Mark::SchedWakeupNew).rank();
        let entry = record.has(bits::KERNEL_MADE) && timed.stage == Stage::SysEnter;
        row.occurs == Occurs::Always && !shared && !waits && !entry && !seldom(row.function)
    }
}

/// Whether a function that runs many times may run not at all.
fn seldom(function: Option<Function>) -> bool {
    function.is_some_and(|function| function.row().frequency == Frequency::Many)
}
