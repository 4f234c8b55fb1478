//! The stages of one attempt, from the times of its record: pure.
//!
//! A stage lies between the two points that the plan gives it. Self times add up to the total,
//! because a stage's interval lies within that of the stage around it.

use fork_trace_common::{
    record::{TracerProgram, bits},
    stage::{Mark, ORDER, Occurs, Point, Row, STAGES, Side, Stage},
};

use crate::{
    assemble::{failure::Failure, times::Times},
    event::{
        span::{Precision, Span, Status},
        values::Name,
    },
    plan::{
        Plan, Timed,
        points::{optional, point_name},
    },
};

/// The stages that were timed, those that shared instead of copying, and of a failed attempt the
/// one that failed.
///
/// Before the stage that failed all are done, and after it none stands but the undoing.
#[must_use]
pub(super) fn spans(times: Times<'_>, plan: &Plan, failure: Option<Failure>) -> Vec<Span> {
    let attempt = Attempt::new(times, plan, failure);
    let mut spans = Vec::with_capacity(plan.timed.len());
    // Both tables are in kernel order.
    let mut rest = plan.timed.as_slice();
    let mut passed = attempt.passed.as_slice();
    for row in STAGES {
        if let ([timed, later @ ..], [of_timed, of_later @ ..]) = (rest, passed)
            && timed.stage == row.stage
        {
            (rest, passed) = (later, of_later);
            if let Some(seen) = &of_timed.seen {
                spans.push(attempt.span(timed, seen, of_timed));
                continue;
            }
        }
        if let Some(status) = attempt.untimed(row) {
            spans.push(untimed(row.name, status));
        }
    }
    spans
}

fn untimed(name: &'static str, status: Status) -> Span {
    Span {
        name: Name::Borrowed(name),
        start_ns: None,
        dur_ns: None,
        self_ns: None,
        off_cpu_ns: None,
        runs: None,
        status,
        precision: Precision::Missing,
        source: None,
        as_covered: false,
        until: None,
        includes_undo: None,
        tracer_ns: None,
        samples: None,
        of: None,
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

impl Interval {
    /// Whether nothing ended it but the end of the attempt.
    fn is_open(&self) -> bool {
        matches!(self.closed_by, None | Some(Point::Mark(Mark::SysExit)))
    }

    /// Whether a moment lies within it.
    const fn has(&self, at: u64) -> bool {
        at >= self.opens_ns && at < self.opens_ns.saturating_add(self.dur_ns)
    }
}

/// From its opening point to its closing one, or where the attempt did not pass that, to the next
/// that it passed; of a failed attempt no further than to where it turned back.
fn interval(times: Times<'_>, timed: &Timed, failure: Option<Failure>) -> Option<Interval> {
    let stage = timed.stage;
    let turn = failure.and_then(|failure| failure.turn);
    let undoing = stage.row().occurs == Occurs::OnFailure;
    if undoing && failure.is_none() || failure.is_some_and(|failure| !failure.reached(stage)) {
        return None;
    }
    let opens_ns = match turn {
        // Undoing as a whole has no point of its own: it begins where the attempt turned back.
        _ if stage == Stage::BadForkCleanup => {
            turn.filter(|_| failure.is_some_and(|failure| failure.undoes(times)))?.1
        }
        _ => times.at(timed.opens).filter(|at| *at >= times.began_ns())?,
    };
    if let (true, Some(runs)) =
        (timed.exact, timed.opens.function().and_then(|function| times.runs(function)))
    {
        let closed_by = Some(timed.closes);
        let runs_count = Some(runs.count);
        return Some(Interval { opens_ns, dur_ns: runs.spent_ns, runs: runs_count, closed_by });
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
    let ends = Interval { opens_ns, dur_ns: closes_ns - opens_ns, runs: None, closed_by };
    let Some((turn, turned_ns)) = turn.filter(|_| stage.is_within(Stage::CopyProcess) && !undoing)
    else {
        return Some(ends);
    };
    let is_in = failure.is_some_and(|failure| failure.is_in(stage));
    if opens_ns > turned_ns || opens_ns == turned_ns && !is_in {
        return None;
    }
    if closes_ns <= turned_ns {
        return Some(ends);
    }
    Some(Interval { dur_ns: turned_ns - opens_ns, closed_by: Some(turn), ..ends })
}

/// An attempt, and what became of each stage of the plan in it.
struct Attempt<'a> {
    times: Times<'a>,
    plan: &'a Plan,
    failure: Option<Failure>,
    /// A place for each of the plan's timed stages.
    passed: Vec<Passed>,
    /// The innermost stage that goes on to the end of a failed attempt.
    last: Option<Stage>,
}

/// A stage in one attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// When; `None`: that was not seen.
    seen: Option<Interval>,
    /// The time of the stages next within it.
    inner_ns: u64,
    /// How long this tracer's own programs ran in it, the stages within it apart.
    tracer_ns: u64,
}

/// The innermost stage that goes on to the end of a failed attempt, undoing apart.
fn last(plan: &Plan, passed: &[Passed]) -> Option<Stage> {
    let timed = plan.timed.iter().zip(passed);
    let open = timed.filter(|(timed, passed)| {
        let open = passed.seen.as_ref().is_some_and(Interval::is_open);
        let before = timed.stage < Stage::BadForkCleanup;
        open && before && timed.closes != Point::Mark(Mark::SysExit)
    });
    let open = open.max_by_key(|(timed, _)| (timed.opens.rank(), timed.stage));
    open.map(|(timed, _)| timed.stage)
}

/// The places in the plan of the timed stages around the one at `place`, the nearest first.
fn around(plan: &Plan, place: usize) -> impl Iterator<Item = usize> {
    let next = |place: &usize| plan.timed.get(*place).and_then(|timed| timed.around);
    std::iter::successors(next(&place), next)
}

impl<'a> Attempt<'a> {
    fn new(times: Times<'a>, plan: &'a Plan, failure: Option<Failure>) -> Self {
        let seen = plan.timed.iter().map(|timed| interval(times, timed, failure));
        let passed: Vec<_> = seen.map(|seen| Passed { seen, ..Passed::default() }).collect();
        let last = failure.and_then(|_| last(plan, &passed));
        let mut attempt = Self { times, plan, failure, passed, last };
        for place in 0..attempt.passed.len() {
            attempt.add_inner(place);
        }
        attempt.add_tracer();
        attempt
    }

    fn seen(&self, place: usize) -> Option<&Interval> {
        self.passed.get(place)?.seen.as_ref()
    }

    /// Counts the time of the stage at `place` with the nearest stage around it that was timed too.
    fn add_inner(&mut self, place: usize) {
        let Some(dur_ns) = self.seen(place).map(|seen| seen.dur_ns) else { return };
        let nearest = around(self.plan, place).find(|outer| self.seen(*outer).is_some());
        if let Some(outer) = nearest.and_then(|outer| self.passed.get_mut(outer)) {
            outer.inner_ns += dur_ns;
        }
    }

    /// Counts what this tracer's own programs took with the innermost stage in which each ran.
    fn add_tracer(&mut self) {
        const PROGRAMS: [(TracerProgram, Mark); TracerProgram::COUNT] = [
            (TracerProgram::SysEnter, Mark::SysEnter),
            (TracerProgram::TaskNewtask, Mark::TaskNewtask),
            (TracerProgram::SchedWakeupNew, Mark::SchedWakeupNew),
        ];
        for (program, mark) in PROGRAMS {
            let ns = self.times.record.tracer_ns.get(program as usize).copied().unwrap_or_default();
            let Some(at) = self.times.mark(mark).filter(|_| ns > 0) else { continue };
            let mut outer = Vec::new();
            // A stage comes before those within it.
            for place in (0..self.passed.len()).rev() {
                let ran = self.seen(place).is_some_and(|seen| seen.runs.is_none() && seen.has(at));
                if !ran {
                    continue;
                }
                outer.extend(around(self.plan, place));
                let innermost = !outer.contains(&place);
                if let Some(passed) = self.passed.get_mut(place).filter(|_| innermost) {
                    passed.tracer_ns += ns;
                }
            }
        }
    }

    fn span(&self, timed: &Timed, seen: &Interval, passed: &Passed) -> Span {
        let on_time = seen.closed_by == Some(timed.closes);
        let until = seen.closed_by.filter(|_| !on_time);
        let exact = timed.exact && on_time;
        Span {
            name: Name::Borrowed(timed.stage.row().name),
            start_ns: Some(seen.opens_ns.saturating_sub(self.times.began_ns())),
            dur_ns: Some(seen.dur_ns),
            self_ns: Some(seen.dur_ns.saturating_sub(passed.inner_ns)),
            off_cpu_ns: None,
            runs: seen.runs,
            status: if self.failed(timed.stage, seen) { Status::Failed } else { Status::Done },
            precision: if exact { Precision::Exact } else { Precision::Bounded },
            source: Some(timed.source),
            as_covered: exact == timed.exact,
            until: until.map(|point| point_name(point, &self.plan.probes)),
            includes_undo: self.includes_undo(timed.stage).then_some(true),
            tracer_ns: Some(passed.tracer_ns).filter(|ns| *ns > 0),
            samples: None,
            of: None,
        }
    }

    /// Whether a stage is the one that failed, or around it.
    fn failed(&self, stage: Stage, seen: &Interval) -> bool {
        let Some(failure) = self.failure.filter(|_| stage.row().occurs != Occurs::OnFailure) else {
            return false;
        };
        match failure.stage {
            Some(_) if failure.is_in(stage) => true,
            // An error while the mappings are copied leads out by the release of the child's lock.
            Some(failed) if stage.is_within(failed) => {
                let mark = Mark::ChildMmapReleased;
                seen.is_open() || seen.closed_by == Some(Point::Mark(mark))
            }
            Some(_) => false,
            None => {
                let last = self.last.is_some_and(|last| last == stage || last.is_within(stage));
                let turned = failure.turn.map(|(turn, _)| turn);
                let around = matches!(stage, Stage::CopyProcess | Stage::KernelClone);
                last || around || turned.is_some() && seen.closed_by == turned
            }
        }
    }

    /// Whether a stage's time goes on to the end of the attempt, with undoing in it that was not
    /// seen apart.
    fn includes_undo(&self, stage: Stage) -> bool {
        let failure = self.failure.filter(|failure| failure.turn.is_none());
        self.last == Some(stage) && failure.is_some_and(|failure| failure.undoes(self.times))
    }

    /// What an attempt is known to have done in a stage for which it has no time.
    fn untimed(&self, row: &Row) -> Option<Status> {
        if row.side != Side::Parent {
            return None;
        }
        if self.failure.is_some_and(|failure| failure.stage == Some(row.stage)) {
            return Some(Status::Failed);
        }
        self.shares(row).then_some(Status::Shared)
    }

    /// Whether an attempt shared what a stage would copy.
    fn shares(&self, row: &Row) -> bool {
        if row.shared_by == 0 {
            return false;
        }
        let record = self.times.record;
        let flags = match self.failure {
            None => record.task_flags,
            // What a failed attempt would have shared later it did not come to.
            Some(failure) if failure.stage.is_some_and(|failed| row.stage < failed) => {
                if record.has(bits::FLAGS) { record.clone_flags } else { 0 }
            }
            Some(_) => 0,
        };
        row.shared_by & flags != 0
    }
}
