//! What to attach on this host, by which points each stage is bounded, and why the other stages
//! cannot be seen.
//!
//! The room is pure: a plan follows from the stage table and the host's facts.

use std::collections::{BTreeMap, BTreeSet};

use fork_trace_common::{
    call_site::SITES,
    function::Function,
    stage::{Mark, Point, STAGES, Side, Stage},
};

pub use crate::host::tracepoint::Tracepoint;
use crate::{
    error::UserError,
    event::{
        span::{Precision, Source},
        start::Coverage,
    },
    host::{
        facts::{Facts, ProbedLibraries},
        functions::{Probes, affordable},
    },
    plan::{
        backend::{Backend, has_inner, no_inner, used},
        fit::exact,
        planner::Planner,
        points::marks,
        stages::Stages,
    },
};

pub mod backend;
mod fit;
mod libc;
mod planner;
pub mod points;
pub mod stages;

/// A stage whose time this host can show.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The stage.
    pub stage: Stage,
    /// The point at which its time begins.
    pub opens: Point,
    /// The point at which its time ends. An attempt that does not reach this point ends the stage
    /// at the next point that it reaches.
    pub closes: Point,
    /// The place of `closes` in the order of points.
    pub rank: usize,
    /// Whether the two points are the entry and the return of the stage's own function.
    pub exact: bool,
    /// The kind of source that records the two points.
    pub source: Source,
    /// The nearest stage around it that can be timed: its place in [`Plan::timed`].
    pub around: Option<usize>,
}

/// What a trace attaches, and what it can show of each stage.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The best kind of source that is in use; never [`Backend::Auto`].
    pub backend: Backend,
    /// The reason why [`Backend::Auto`] has only fork's own tracepoints; `None` where it has more,
    /// or where another backend was asked for.
    pub shortfall: Option<String>,
    /// How many samples of kernel stacks are taken a second on each CPU; 0: none.
    pub sample_hz: u32,
    /// The reason why no samples can be taken; `None` where they can, or where none are wanted.
    pub no_samples: Option<String>,
    /// The tracepoints to attach, in this order.
    pub tracepoints: Vec<Tracepoint>,
    /// The caller's stages that can be timed, in the kernel's order.
    pub timed: Vec<Timed>,
    /// What can be seen of every stage of the table, in the kernel's order.
    pub coverage: Vec<Coverage>,
    /// The probes of functions, which hold the kernel's names for them.
    pub probes: Probes,
    /// The C libraries that are probed; `None` where that was not asked for.
    pub libc: Option<ProbedLibraries>,
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

/// The functions that the `wanted` stages may need on some host.
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

/// The call sites of the marks that the `wanted` stages may need: name of the global that is set in
/// the object before it is loaded, and address.
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

impl Plan {
    /// Makes the plan from what `facts` say, with the probes of functions that they name.
    ///
    /// # Errors
    /// [`UserError::KernelLacks`] where the kernel lacks a tracepoint without which no attempt can
    /// be recorded. [`UserError::Backend`] where this host does not have the backend that was asked
    /// for.
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
        fit::fit(&mut bounds);
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
                    around: None,
                })
            });
        let mut timed: Vec<_> = timed.collect();
        let places: BTreeMap<_, _> = timed.iter().map(|timed| timed.stage).zip(0..).collect();
        for timed in &mut timed {
            timed.around = timed.stage.around().find_map(|outer| places.get(&outer).copied());
        }
        let ends: Vec<_> =
            bounds.iter().flatten().flat_map(|bounds| [bounds.opens, bounds.closes]).collect();
        let taken: BTreeSet<Mark> = marks(&ends).collect();
        let allocates = SITES.iter().any(|(_, mark, _)| taken.contains(mark));
        let wanted = |at: &&Tracepoint| {
            at.needed()
                || at.reclaims() && allocates
                || taken.iter().any(|mark| Tracepoint::taking(*mark).contains(at))
        };
        Ok(Self {
            backend: used,
            shortfall: (backend == Backend::Auto && used == Backend::Tracepoint)
                .then(|| no_inner(facts)),
            sample_hz: facts.sample_hz,
            no_samples: facts.no_samples.clone(),
            tracepoints: Tracepoint::ALL
                .iter()
                .filter(|at| exists(at))
                .filter(wanted)
                .copied()
                .collect(),
            timed,
            coverage: planner.coverage(&bounds),
            probes: facts.probes.clone(),
            libc: facts.libc.clone(),
            points: ends,
        })
    }

    /// The time from one sample on a CPU to the next.
    #[must_use]
    pub fn sample_period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.sample_hz.max(1))
    }

    /// For each function that the plan needs, which of its ends.
    #[must_use]
    pub fn function_ends(&self) -> BTreeMap<Function, Ends> {
        let mut ends = BTreeMap::new();
        for point in &self.points {
            match point {
                Point::Mark(_) => {}
                Point::Enter(function) => {
                    ends.entry(*function).or_insert(Ends::default()).enter = true;
                }
                Point::Leave(function) => {
                    ends.entry(*function).or_insert(Ends::default()).leave = true;
                }
            }
        }
        ends
    }

    /// How many stages have each precision: exact, bounded, sampled, missing.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let count = |precision| {
            self.coverage.iter().filter(|coverage| coverage.precision == precision).count()
        };
        [Precision::Exact, Precision::Bounded, Precision::Sampled, Precision::Missing].map(count)
    }
}

#[cfg(test)]
mod tests;
