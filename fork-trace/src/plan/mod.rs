//! What to attach on this host, what each stage is bounded by, and why the rest is missing.
//!
//! Pure: the stage table and the host's facts in, a plan out.

pub use crate::host::tracepoint::Tracepoint;
use fork_trace_common::{
    call_site::SITES,
    function::Function,
    stage::{Mark, Point, STAGES, Side, Stage},
};
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::UserError,
    event::{
        span::{Precision, Source},
        start::Coverage,
    },
    host::{
        facts::Facts,
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
mod planner;
pub mod points;
pub mod stages;

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
                })
            });
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

    /// How many stages have each precision: exact, bounded, missing.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let count = |precision| {
            self.coverage.iter().filter(|coverage| coverage.precision == precision).count()
        };
        [Precision::Exact, Precision::Bounded, Precision::Missing].map(count)
    }
}

#[cfg(test)]
mod tests;
