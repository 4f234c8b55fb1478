//! Finds for each stage the points that bound it on this host, or the reason why none do.

use std::collections::BTreeSet;

use fork_trace_common::{
    function::Function,
    stage::{Bounds, Mark, Occurs, Point, Row, STAGES, Side, Stage},
};

use crate::{
    event::{
        span::{Precision, Source},
        start::Coverage,
        values::Name,
    },
    host::{call_sites::is_inner, facts::Facts, functions::ProbeKind, tracepoint::Tracepoint},
    plan::{
        backend::no_inner,
        fit::exact,
        libc,
        points::{optional, point_name},
    },
};

/// Answers which points can be recorded on one host, and what that means for each stage.
pub(super) struct Planner<'a> {
    /// What is known of the host.
    pub(super) facts: &'a Facts,
    /// Whether inner marks are used.
    pub(super) inner: bool,
}

impl Planner<'_> {
    /// Whether `point` can be recorded, or the reason why not.
    fn point(&self, point: Point) -> Result<(), String> {
        match point {
            Point::Mark(mark) => self.mark(mark),
            Point::Enter(function) => self.function(function, false),
            Point::Leave(function) => self.function(function, true),
        }
    }

    /// Whether a function's return (with `leaves`) or its entry can be recorded, or the reason why
    /// not.
    fn function(&self, function: Function, leaves: bool) -> Result<(), String> {
        match self.facts.probes.get(&function) {
            Some(Ok(probe)) if probe.leaves || !leaves => Ok(()),
            Some(Ok(probe)) => Err(format!(
                "the return of {} is not probed, because callers may stay in it for long, and the \
                     kernel remembers only a few callers of a kretprobe at a time",
                probe.name
            )),
            Some(Err(reason)) => Err(reason.clone()),
            // This plan probes no functions at all, so a stage gives another reason, not this one.
            None if self.facts.probes.is_empty() => Err(String::new()),
            None => Err(format!("{} is only probed with --stages=all", function.row().id)),
        }
    }

    /// Whether a mark can be recorded, or the reason why not.
    fn mark(&self, mark: Mark) -> Result<(), String> {
        let [first, ..] = Tracepoint::taking(mark) else {
            return Err("no tracepoint takes it".to_owned());
        };
        if is_inner(mark) && !self.inner {
            return Err(no_inner(self.facts));
        }
        if !Tracepoint::taking(mark).iter().any(|at| self.facts.tracepoints.contains(at)) {
            return Err(format!("this kernel has no tracepoint {}", first.name()));
        }
        match self.facts.inner.get(&mark) {
            Some(Err(reason)) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// The points that bound a stage: the first pair of its row of which both can be recorded.
    /// Otherwise the reason why there is none.
    pub(super) fn bounds(&self, row: &Row) -> Result<Bounds, String> {
        let returns = row.stage == Stage::RetFromFork || row.stage.is_within(Stage::RetFromFork);
        if self.facts.no_child_exit && returns {
            // The child's record is complete as it is given a CPU, before any of this.
            return Err("no tracepoint tells of a child's first return on this machine".to_owned());
        }
        let own = row.function.map(|function| Bounds {
            opens: Point::Enter(function),
            closes: Point::Leave(function),
            includes: &[],
        });
        let inner = row.inner.filter(|_| self.inner);
        let probed = own.iter().chain(row.gaps).copied();
        let unlearned = row.inner.filter(|_| !self.inner).map(|inner| inner.opens);
        let mut first = unlearned.and_then(|point| self.point(point).err());
        for bounds in probed.chain(inner).chain(row.coarse.iter().copied()).chain(row.tracepoint) {
            let is_inner = inner.is_some_and(|inner| inner.opens == bounds.opens);
            let taken = self.point(bounds.opens).and_then(|()| match self.point(bounds.closes) {
                Err(reason) if is_inner => self.extended(row, bounds).ok_or(reason),
                closes => closes.map(|()| bounds),
            });
            match taken {
                Ok(bounds) => return Ok(bounds),
                // The reason of the narrowest pair says most. Where inner marks are used, the
                // reason of the inner pair says more.
                Err(reason) if is_inner => first = Some(reason),
                Err(reason) if reason.is_empty() => {}
                Err(reason) => _ = first.get_or_insert(reason),
            }
        }
        Err(self.reason(row.stage, first))
    }

    /// The points of an inner stage whose closing mark cannot be recorded: it ends at the next mark
    /// that can be, within the stage around it, and so includes the stages up to there.
    fn extended(&self, row: &Row, bounds: Bounds) -> Option<Bounds> {
        let around = self.bounds(row.parent?.row()).ok()?;
        let mut later: Vec<Point> = Mark::ALL.iter().copied().map(Point::Mark).collect();
        later.retain(|point| point.rank() > bounds.closes.rank());
        let closes = later
            .into_iter()
            .filter(|point| point.rank() <= around.closes.rank() && !optional(*point))
            .find(|point| self.point(*point).is_ok())?;
        (!optional(bounds.closes)).then_some(Bounds { closes, ..bounds })
    }

    /// The kind of source that records the two points: a probe's where one of them is a function's.
    pub(super) fn source(&self, bounds: &Bounds) -> Source {
        let funcs = [bounds.opens.function(), bounds.closes.function()];
        let probe =
            funcs.into_iter().flatten().find_map(|function| self.facts.probes.get(&function));
        match probe {
            Some(Ok(probe)) if probe.how == ProbeKind::Fentry => Source::Fentry,
            Some(Ok(_)) => Source::Kprobe,
            _ => Source::Tracepoint,
        }
    }

    /// What can be seen of every stage, from the points of each.
    pub(super) fn coverage(&self, bounds: &[Result<Bounds, String>]) -> Vec<Coverage> {
        let coverage = |(row, bounds): (&Row, &Result<Bounds, String>)| {
            let name = Name::Borrowed(row.name);
            if matches!(row.side, Side::Libc | Side::ChildLibc) {
                return libc::coverage(row, self.facts.libc.as_ref());
            }
            match bounds {
                Err(reason) if self.facts.sampled.contains(&row.stage) => Coverage {
                    source: Some(Source::Sample),
                    reason: Some(reason.clone()),
                    ..Coverage::new(name, Precision::Sampled)
                },
                Err(reason) => Coverage {
                    reason: Some(reason.clone()),
                    ..Coverage::new(name, Precision::Missing)
                },
                Ok(bounds) => Coverage {
                    name,
                    precision: if exact(bounds) { Precision::Exact } else { Precision::Bounded },
                    source: Some(self.source(bounds)),
                    opens: Some(self.name(bounds.opens)),
                    closes: Some(self.name(bounds.closes)),
                    includes: self.includes(row, bounds),
                    reason: None,
                },
            }
        };
        let mut all: Vec<Coverage> = STAGES.iter().zip(bounds).map(coverage).collect();
        // A stage that has a time of its own is not included in another's.
        let own: BTreeSet<Name> = all
            .iter()
            .filter(|row| matches!(row.precision, Precision::Exact | Precision::Bounded))
            .map(|row| row.name.clone())
            .collect();
        for row in &mut all {
            row.includes.retain(|included| !own.contains(included));
        }
        all
    }

    /// The name of a point in output.
    fn name(&self, point: Point) -> Name {
        point_name(point, &self.facts.probes)
    }

    /// The other stages that lie between the two points: those that the row names, and those that
    /// it includes because it ends at a later mark.
    fn includes(&self, row: &Row, bounds: &Bounds) -> Vec<Name> {
        let planned = row.inner.filter(|_| self.inner).map(|inner| inner.closes.rank());
        let closes = bounds.closes.rank();
        let swallowed = STAGES.iter().filter(|other| {
            let own = other.inner.map(|inner| inner.opens.rank());
            planned.zip(own).is_some_and(|(planned, own)| planned <= own && own < closes)
        });
        let swallowed = swallowed.map(|row| row.stage);
        let all = bounds.includes.iter().copied().chain(swallowed);
        all.map(|stage| Name::Borrowed(stage.row().name)).collect()
    }

    /// The reason why a stage cannot be seen, and the stage that includes its time.
    fn reason(&self, stage: Stage, why: Option<String>) -> String {
        let why = why.unwrap_or_else(|| "no tracepoint marks it".to_owned());
        if stage.row().occurs == Occurs::OnFailure {
            return why;
        }
        let of = |row: &Row| {
            let inner = row.inner.filter(|_| self.inner);
            let taken =
                |gap: &&Bounds| self.point(gap.opens).is_ok() && self.point(gap.closes).is_ok();
            let probed = row.gaps.iter().find(taken);
            probed.copied().or(inner).or(row.tracepoint)
        };
        let includes =
            |stage| STAGES.iter().find(|row| of(row).is_some_and(|b| b.includes.contains(&stage)));
        let mut inside = Some(stage);
        while let Some(candidate) = inside {
            let row = candidate.row();
            let own = row.function.is_some_and(|function| self.function(function, true).is_ok());
            let around = includes(candidate).or_else(|| (own || of(row).is_some()).then_some(row));
            if let Some(around) = around.filter(|around| around.stage != stage) {
                return format!("{why}; its time falls into {}", around.name);
            }
            inside = row.parent;
        }
        why
    }
}
