//! What to attach on this host, what each stage is bounded by, and why the rest is missing.
//!
//! Pure: the stage table and the host's facts in, a plan out.

mod tracepoint;

use std::collections::{BTreeMap, BTreeSet};

use fork_trace_common::{
    call_site::SITES,
    function::Function,
    stage::{Bounds, Mark, Occurs, Point, Row, STAGES, Side, Stage},
};

pub use self::tracepoint::Tracepoint;
use self::tracepoint::needs;
use crate::{
    call_sites::is_inner,
    cli::Stages,
    error::UserError,
    fork::{Coverage, Name, Precision, Source},
    functions::{ProbeKind, Probes, affordable},
    host::Facts,
};

/// Where stage boundaries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The best this host has, stage by stage
    Auto,
    /// Kernel functions, by BTF trampoline
    Fentry,
    /// Kernel functions, by breakpoint
    Kprobe,
    /// Also tracepoints that fire inside a fork: slab call sites, timers, locks, FPU
    Inner,
    /// Only fork's own tracepoints
    Tracepoint,
}

impl Backend {
    /// ProbeKind it probes functions, the preferred way first.
    #[must_use]
    pub const fn functions(self) -> &'static [ProbeKind] {
        match self {
            Self::Auto => &[ProbeKind::Fentry, ProbeKind::Kprobe],
            Self::Fentry => &[ProbeKind::Fentry],
            Self::Kprobe => &[ProbeKind::Kprobe],
            Self::Inner | Self::Tracepoint => &[],
        }
    }

    /// Whether it takes inner marks.
    #[must_use]
    pub const fn inner(self) -> bool {
        matches!(self, Self::Auto | Self::Inner)
    }

    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Inner => "inner",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// A stage whose time this host can show.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The stage.
    pub stage: Stage,
    /// Begins at this point.
    pub opens: Point,
    /// Ends at this point; where an attempt does not pass it, at the next that it passes.
    pub closes: Point,
    /// The place of `closes` in the order of points.
    pub rank: usize,
    /// Whether the two are a function's own.
    pub exact: bool,
    /// What takes them.
    pub source: Source,
}

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The best source in use; never [`Backend::Auto`].
    pub backend: Backend,
    /// Why [`Backend::Auto`] came to less than inner marks.
    pub shortfall: Option<String>,
    /// What to attach, in order.
    pub tracepoints: Vec<Tracepoint>,
    /// The caller's stages that can be timed, in kernel order.
    pub timed: Vec<Timed>,
    /// Every stage of the table, in kernel order.
    pub coverage: Vec<Coverage>,
    /// The functions that are probed, for their names.
    pub probes: Probes,
    /// Every point that bounds a stage.
    points: Vec<Point>,
}

/// Which ends of a function are probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Its entry.
    pub enter: bool,
    /// Its return.
    pub leave: bool,
}

/// The functions that the stages asked for can need.
#[must_use]
pub fn functions(wanted: &Stages) -> BTreeSet<Function> {
    let rows = STAGES.iter().filter(|row| wanted.wants(row.stage));
    let ends = rows.flat_map(|row| {
        let bounds = row.gaps.iter().chain(row.coarse);
        let ends = bounds.flat_map(|bounds| [bounds.opens.function(), bounds.closes.function()]);
        ends.flatten().chain(row.function)
    });
    affordable(&ends.collect(), matches!(wanted, Stages::All | Stages::Only(_)))
}

/// Call sites to set before load, as global of the object and address: those of marks that the
/// stages asked for can need.
#[must_use]
pub fn sites(facts: &Facts, backend: Backend, wanted: &Stages) -> Vec<(&'static str, u64)> {
    let rows = STAGES.iter().filter(|row| backend.inner() && wanted.wants(row.stage));
    let bounds = rows.flat_map(|row| row.inner.into_iter().chain(row.gaps.iter().copied()));
    let ends: Vec<_> = bounds.flat_map(|bounds| [bounds.opens, bounds.closes]).collect();
    let needed: BTreeSet<Mark> = marks(&ends).collect();
    let site = |(global, mark, _): &(&'static str, Mark, Stage)| {
        let site = facts.inner.get(mark)?.as_ref().ok()?;
        needed.contains(mark).then_some((*global, *site))
    };
    SITES.iter().filter_map(site).collect()
}

/// The marks among these points, and those without which the kernel side does not take them.
fn marks(points: &[Point]) -> impl Iterator<Item = Mark> {
    let own = points.iter().filter_map(|point| match point {
        Point::Mark(mark) => Some(*mark),
        _ => None,
    });
    own.flat_map(|mark| std::iter::once(mark).chain(needs(mark).iter().copied()))
}

impl Plan {
    /// Makes the plan, once functions were probed.
    ///
    /// # Errors
    /// [`UserError::KernelLacks`]: without one of the needed tracepoints nothing can be recorded.
    /// [`UserError::Backend`]: `backend` was asked for and is not to be had.
    pub fn new(facts: &Facts, backend: Backend, wanted: &Stages) -> Result<Self, UserError> {
        let exists = |at: &Tracepoint| facts.tracepoints.contains(at);
        if let Some(lacking) = Tracepoint::ALL.iter().find(|at| at.needed() && !exists(at)) {
            let name = lacking.name();
            return Err(UserError::KernelLacks {
                what: format!("the BTF tracepoint {name} (release {})", facts.release),
            });
        }
        let used = used(facts, backend)?;
        let planner = Planner { facts, inner: backend.inner() && has_inner(facts) };
        let mut bounds: Vec<_> = STAGES
            .iter()
            .map(|row| match wanted.wants(row.stage) {
                true => planner.bounds(row),
                false => Err("it was not asked for".to_owned()),
            })
            .collect();
        fit(&mut bounds);
        let timed = STAGES.iter().zip(&bounds);
        let timed =
            timed.filter(|(row, _)| row.side == Side::Parent).filter_map(|(row, bounds)| {
                let bounds = bounds.as_ref().ok()?;
                Some(Timed {
                    stage: row.stage,
                    opens: bounds.opens,
                    closes: bounds.closes,
                    rank: bounds.closes.rank(),
                    exact: exact(bounds),
                    source: planner.source(bounds),
                })
            });
        let ends: Vec<_> =
            bounds.iter().flatten().flat_map(|bounds| [bounds.opens, bounds.closes]).collect();
        let taken: BTreeSet<Mark> = marks(&ends).collect();
        let wanted = |at: &&Tracepoint| {
            at.needed() || taken.iter().any(|mark| Tracepoint::taking(*mark).contains(at))
        };
        Ok(Self {
            backend: used,
            shortfall: (backend == Backend::Auto && used == Backend::Tracepoint)
                .then(|| no_inner(facts)),
            tracepoints: Tracepoint::ALL
                .iter()
                .filter(|at| exists(at))
                .filter(wanted)
                .copied()
                .collect(),
            timed: timed.collect(),
            coverage: planner.coverage(&bounds),
            probes: facts.probes.clone(),
            points: ends,
        })
    }

    /// The entries and returns of functions that it needs.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Function, Ends> {
        let mut calls = BTreeMap::new();
        for point in &self.points {
            match point {
                Point::Mark(_) => {}
                Point::Enter(function) => {
                    calls.entry(*function).or_insert(Ends::default()).enter = true
                }
                Point::Leave(function) => {
                    calls.entry(*function).or_insert(Ends::default()).leave = true
                }
            }
        }
        calls
    }

    /// ProbeKind many stages have each precision: exact, bounded, missing.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let count = |precision| {
            self.coverage.iter().filter(|coverage| coverage.precision == precision).count()
        };
        [Precision::Exact, Precision::Bounded, Precision::Missing].map(count)
    }
}

/// The best source that is to be had of those that `backend` names.
fn used(facts: &Facts, backend: Backend) -> Result<Backend, UserError> {
    let probed = |how| facts.probes.values().flatten().any(|probe| probe.how == how);
    let of = |how| if how == ProbeKind::Fentry { Backend::Fentry } else { Backend::Kprobe };
    if let Some(how) = backend.functions().iter().copied().find(|how| probed(*how)) {
        return Ok(of(how));
    }
    match backend {
        Backend::Tracepoint => Ok(backend),
        Backend::Auto | Backend::Inner if has_inner(facts) => Ok(Backend::Inner),
        Backend::Auto => Ok(Backend::Tracepoint),
        Backend::Inner => Err(UserError::Backend { name: "inner", reason: no_inner(facts) }),
        Backend::Fentry | Backend::Kprobe => {
            let name = backend.name();
            Err(UserError::Backend { name, reason: no_function(facts) })
        }
    }
}

fn has_inner(facts: &Facts) -> bool {
    facts.inner.values().any(Result::is_ok)
}

/// Why there are no inner marks.
fn no_inner(facts: &Facts) -> String {
    let reason = facts.inner.values().find_map(|mark| mark.as_ref().err());
    reason.map_or("no inner tracepoint is known", String::as_str).to_owned()
}

/// Why no function is probed.
fn no_function(facts: &Facts) -> String {
    let each = || facts.probes.values().find_map(|probe| probe.as_ref().err());
    let reason = facts.no_functions.as_ref().or_else(each);
    reason.map_or("no function was probed", String::as_str).to_owned()
}

/// Whether the two points are a function's entry and return.
fn exact(bounds: &Bounds) -> bool {
    matches!((bounds.opens, bounds.closes), (Point::Enter(one), Point::Leave(other)) if one == other)
}

/// Whether one stage is part of the other.
fn nested(one: &Row, other: &Row) -> bool {
    one.stage.is_within(other.stage) || other.stage.is_within(one.stage)
}

/// A bounded stage ends where the next one begins, and begins where a function around its first
/// mark returns, or a shorter stage that begins with it ends: what is timed is timed once.
fn fit(all: &mut [Result<Bounds, String>]) {
    let rows = || STAGES.iter().enumerate().filter(|(_, row)| row.side == Side::Parent);
    for (place, row) in rows() {
        let Some(Ok(own)) = all.get(place).cloned().filter(|own| {
            own.as_ref().is_ok_and(|own| !exact(own)) && row.occurs != Occurs::OnFailure
        }) else {
            continue;
        };
        let others = rows().filter(|(other, candidate)| {
            *other != place && !nested(row, candidate) && candidate.occurs != Occurs::OnFailure
        });
        let others: Vec<Bounds> =
            others.filter_map(|(other, _)| all.get(other)?.as_ref().ok().copied()).collect();
        let around = others.iter().find(|other| match exact(other) {
            true => (other.opens.rank()..other.closes.rank()).contains(&own.opens.rank()),
            false => other.opens == own.opens && other.closes.rank() < own.closes.rank(),
        });
        let opens = around.map_or(own.opens, |around| around.closes);
        let begins = others
            .iter()
            .map(|other| other.opens)
            .filter(|other| (opens.rank() + 1..own.closes.rank()).contains(&other.rank()));
        let closes = begins.min_by_key(|point| point.rank()).unwrap_or(own.closes);
        if let Some(slot) = all.get_mut(place) {
            *slot = if opens.rank() < closes.rank() {
                Ok(Bounds { opens, closes, ..own })
            } else {
                Err("its marks lie within another stage's function".to_owned())
            };
        }
    }
}

struct Planner<'a> {
    facts: &'a Facts,
    inner: bool,
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
    fn bounds(&self, row: &Row) -> Result<Bounds, String> {
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

    fn source(&self, bounds: &Bounds) -> Source {
        let funcs = [bounds.opens.function(), bounds.closes.function()];
        let probe =
            funcs.into_iter().flatten().find_map(|function| self.facts.probes.get(&function));
        match probe {
            Some(Ok(probe)) if probe.how == ProbeKind::Fentry => Source::Fentry,
            Some(Ok(_)) => Source::Kprobe,
            _ => Source::Tracepoint,
        }
    }

    fn coverage(&self, bounds: &[Result<Bounds, String>]) -> Vec<Coverage> {
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

/// A point's name in output: a mark's, or `enter` or `leave` and the kernel's name of the function.
#[must_use]
pub fn point_name(point: Point, probes: &Probes) -> Name {
    let kernel_name = |function: Function| match probes.get(&function) {
        Some(Ok(probe)) => probe.name,
        _ => function.row().id,
    };
    match point {
        Point::Mark(mark) => Name::Borrowed(mark.name()),
        Point::Enter(function) => Name::Owned(format!("enter {}", kernel_name(function))),
        Point::Leave(function) => Name::Owned(format!("leave {}", kernel_name(function))),
    }
}

/// Points that an attempt passes only at times: nothing else ends there.
#[must_use]
pub fn optional(point: Point) -> bool {
    match point {
        Point::Mark(mark) => matches!(mark, Mark::LockContended | Mark::LockTaken),
        Point::Enter(function) | Point::Leave(function) => {
            let stage = STAGES.iter().find(|row| row.function == Some(function));
            stage.is_some_and(|row| row.occurs == Occurs::AtTimes)
        }
    }
}

#[cfg(test)]
mod tests;
