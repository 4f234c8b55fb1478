//! For one stage: the points that bound it on this host, or why nothing does.

use fork_trace_common::{
    function::Function,
    stage::{Bounds, Mark, Occurs, Point, Row, STAGES, Side, Stage},
};
use std::collections::BTreeSet;

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
        points::{optional, point_name},
    },
};

pub(super) struct Planner<'a> {
    pub(super) facts: &'a Facts,
    pub(super) inner: bool,
}

impl Planner<'_> {
    /// Whether `point` can be taken, or why not.
    fn point(&self, point: Point) -> Result<(), String> {
        match point {
            Point::Mark(mark) => self.mark(mark),
            Point::Enter(function) => self.function(function, false),
            Point::Leave(function) => self.function(function, true),
        }
    }

    fn function(&self, function: Function, leaves: bool) -> Result<(), String> {
        match self.facts.probes.get(&function) {
            Some(Ok(probe)) if probe.leaves || !leaves => Ok(()),
            Some(Ok(probe)) => {
                Err(format!("{} may wait for long, which few kretprobes can", probe.name))
            }
            Some(Err(reason)) => Err(reason.clone()),
            // Of no use in this plan; nothing to be said of each stage.
            None if self.facts.probes.is_empty() => Err(String::new()),
            None => Err(format!("{} is only probed with --stages=all", function.row().id)),
        }
    }

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

    /// The points of a stage, or why it has none.
    pub(super) fn bounds(&self, row: &Row) -> Result<Bounds, String> {
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
                // The narrowest way tells best why not, and where inner marks are in use, theirs.
                Err(reason) if is_inner => first = Some(reason),
                Err(reason) if reason.is_empty() => {}
                Err(reason) => _ = first.get_or_insert(reason),
            }
        }
        Err(self.reason(row.stage, first))
    }

    /// Where an inner stage's closing mark cannot be taken it goes on to the next that can, within
    /// the stage around it; then it includes the stages between.
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

    pub(super) fn coverage(&self, bounds: &[Result<Bounds, String>]) -> Vec<Coverage> {
        let coverage = |(row, bounds): (&Row, &Result<Bounds, String>)| {
            let name = Name::Borrowed(row.name);
            match bounds {
                Err(reason) => Coverage {
                    name,
                    precision: Precision::Missing,
                    source: None,
                    opens: None,
                    closes: None,
                    includes: Vec::new(),
                    reason: Some(reason.clone()),
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
        // What has a time of its own does not fall into another's.
        let own: BTreeSet<Name> = all
            .iter()
            .filter(|row| row.precision != Precision::Missing)
            .map(|row| row.name.clone())
            .collect();
        for row in &mut all {
            row.includes.retain(|included| !own.contains(included));
        }
        all
    }

    /// A point's name in output.
    fn name(&self, point: Point) -> Name {
        point_name(point, &self.facts.probes)
    }

    /// Other stages that fall between the points: those of the row, and those whose own mark cannot
    /// be taken.
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

    /// Why nothing takes a stage, and where its time goes.
    fn reason(&self, stage: Stage, why: Option<String>) -> String {
        if stage.row().side == Side::Libc {
            return "the C library is not probed".to_owned();
        }
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
