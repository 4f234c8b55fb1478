//! What to attach on this host, what each stage is bounded by, and why the rest is missing.
//!
//! Pure: the stage table and the host's facts in, a plan out.

use fork_trace_common::stage::{Bounds, Mark, STAGES, Side, Stage};

use crate::{
    advice::Advice,
    fork::{Coverage, Name, Precision, Source},
    host::Facts,
};

/// A tracepoint for which the object has a program, under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tracepoint {
    /// `sched:sched_process_exit`: keeps the kernel side's maps clean.
    SchedProcessExit,
    /// `raw_syscalls:sys_exit`.
    SysExit,
    /// `sched:sched_switch`.
    SchedSwitch,
    /// `sched:sched_wakeup_new`.
    SchedWakeupNew,
    /// `sched:sched_process_fork`.
    SchedProcessFork,
    /// `task:task_newtask`.
    TaskNewtask,
    /// `raw_syscalls:sys_enter`.
    SysEnter,
}

impl Tracepoint {
    /// All, in the order of attaching: the last mark first, so that an attempt whose entry is seen
    /// meets every later mark too.
    pub const ALL: &[Self] = &[
        Self::SchedProcessExit,
        Self::SysExit,
        Self::SchedSwitch,
        Self::SchedWakeupNew,
        Self::SchedProcessFork,
        Self::TaskNewtask,
        Self::SysEnter,
    ];

    /// The kernel's name, and the program's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SchedProcessExit => "sched_process_exit",
            Self::SysExit => "sys_exit",
            Self::SchedSwitch => "sched_switch",
            Self::SchedWakeupNew => "sched_wakeup_new",
            Self::SchedProcessFork => "sched_process_fork",
            Self::TaskNewtask => "task_newtask",
            Self::SysEnter => "sys_enter",
        }
    }

    /// Whether an attempt can be recorded at all without it.
    const fn needed(self) -> bool {
        matches!(self, Self::SysEnter | Self::SysExit | Self::TaskNewtask | Self::SchedProcessExit)
    }

    /// Which tracepoint takes `mark`.
    const fn taking(mark: Mark) -> Self {
        match mark {
            Mark::SysEnter => Self::SysEnter,
            Mark::StartTime | Mark::TaskNewtask => Self::TaskNewtask,
            Mark::SchedProcessFork => Self::SchedProcessFork,
            Mark::SchedWakeupNew => Self::SchedWakeupNew,
            Mark::SysExit | Mark::ChildSysExit => Self::SysExit,
            Mark::ChildSwitch => Self::SchedSwitch,
        }
    }
}

/// A stage whose time this host can show.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The stage.
    pub stage: Stage,
    /// Its marks.
    pub bounds: Bounds,
    /// The nearest stage around it that is timed too, by its place in [`Plan::timed`].
    pub within: Option<usize>,
}

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to attach, in order.
    pub tracepoints: Vec<Tracepoint>,
    /// The caller's stages that can be timed, in kernel order.
    pub timed: Vec<Timed>,
    /// Every stage of the table, in kernel order.
    pub coverage: Vec<Coverage>,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`Advice::KernelLacks`]: without one of the needed tracepoints nothing can be recorded.
    pub fn new(facts: &Facts) -> Result<Self, Advice> {
        let exists = |at: &Tracepoint| facts.tracepoints.contains(at);
        if let Some(lacking) = Tracepoint::ALL.iter().find(|at| at.needed() && !exists(at)) {
            let name = lacking.name();
            return Err(Advice::KernelLacks {
                what: format!("the BTF tracepoint {name} (release {})", facts.release),
            });
        }
        let seen = |bounds: &Bounds| {
            let marks = [bounds.opens, bounds.closes].map(Tracepoint::taking);
            marks.into_iter().find(|at| !exists(at)).map_or(Ok(()), Err)
        };
        let mut timed: Vec<Timed> = Vec::new();
        for row in STAGES.iter().filter(|row| row.side == Side::Parent) {
            if let Some(bounds) = row.tracepoint.filter(|bounds| seen(bounds).is_ok()) {
                let within = around(row.stage, &timed);
                timed.push(Timed { stage: row.stage, bounds, within });
            }
        }
        let coverage = STAGES.iter().map(|row| coverage(row.stage, &seen)).collect();
        let tracepoints = Tracepoint::ALL.iter().copied().filter(exists).collect();
        Ok(Self { tracepoints, timed, coverage })
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

/// The nearest timed stage that `stage` is part of.
fn around(stage: Stage, timed: &[Timed]) -> Option<usize> {
    let mut outer = stage.row().parent;
    while let Some(candidate) = outer {
        if let Some(place) = timed.iter().position(|timed| timed.stage == candidate) {
            return Some(place);
        }
        outer = candidate.row().parent;
    }
    None
}

fn coverage(stage: Stage, seen: &impl Fn(&Bounds) -> Result<(), Tracepoint>) -> Coverage {
    let row = stage.row();
    let name = Name::Borrowed(row.name);
    let missing = |reason| Coverage {
        name: name.clone(),
        precision: Precision::Missing,
        source: None,
        opens: None,
        closes: None,
        includes: Vec::new(),
        reason: Some(reason),
    };
    match row.tracepoint {
        None => missing(reason(stage)),
        Some(bounds) => match seen(&bounds) {
            Err(lacking) => missing(format!("this kernel has no tracepoint {}", lacking.name())),
            Ok(()) => Coverage {
                name,
                precision: Precision::Bounded,
                source: Some(Source::Tracepoint),
                opens: Some(Name::Borrowed(bounds.opens.name())),
                closes: Some(Name::Borrowed(bounds.closes.name())),
                includes: bounds
                    .includes
                    .iter()
                    .map(|stage| Name::Borrowed(stage.row().name))
                    .collect(),
                reason: None,
            },
        },
    }
}

/// Why the tracepoint source does not mark a stage, and where its time goes.
fn reason(stage: Stage) -> String {
    if stage.row().side == Side::Libc {
        return "the C library is not probed".to_owned();
    }
    let includes = |stage| {
        STAGES
            .iter()
            .find(|row| row.tracepoint.is_some_and(|bounds| bounds.includes.contains(&stage)))
    };
    let mut inside = Some(stage);
    while let Some(candidate) = inside {
        let row = candidate.row();
        if let Some(around) = includes(candidate) {
            return format!("no tracepoint marks it; its time falls into {}", around.name);
        }
        if row.tracepoint.is_some() {
            return format!("no tracepoint marks it; its time falls into {}", row.name);
        }
        inside = row.parent;
    }
    "no tracepoint marks it".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(without: &[Tracepoint]) -> Facts {
        let tracepoints = Tracepoint::ALL.iter().copied();
        Facts {
            tracepoints: tracepoints.filter(|at| !without.contains(at)).collect(),
            release: "fixture".to_owned(),
        }
    }

    fn row<'a>(plan: &'a Plan, name: &str) -> &'a Coverage {
        plan.coverage.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn every_stage_has_a_row_in_kernel_order_and_every_missing_one_a_reason() {
        let plan = Plan::new(&facts(&[])).unwrap();
        assert_eq!(plan.coverage.len(), STAGES.len());
        for (coverage, row) in plan.coverage.iter().zip(STAGES) {
            assert_eq!(coverage.name, row.name);
            assert_eq!(coverage.precision == Precision::Missing, coverage.reason.is_some());
            assert_eq!(coverage.precision == Precision::Missing, coverage.source.is_none());
        }
        assert_eq!(plan.counts().iter().sum::<usize>(), STAGES.len());
    }

    #[test]
    fn a_bounded_stage_names_its_marks_and_a_missing_one_where_its_time_goes() {
        let plan = Plan::new(&facts(&[])).unwrap();
        let tasklist = row(&plan, "tasklist_lock");
        assert_eq!(tasklist.precision, Precision::Bounded);
        assert_eq!(tasklist.opens.as_deref(), Some("task_struct.start_time"));
        assert_eq!(tasklist.closes.as_deref(), Some("task_newtask"));
        let falls_into = |name: &str, stage: &str| {
            let reason = row(&plan, name).reason.clone().unwrap();
            assert!(reason.ends_with(&format!("falls into {stage}")), "{name}: {reason}");
        };
        falls_into("dup_mmap", "copy_process");
        falls_into("attach_pid", "tasklist_lock");
        falls_into("lru_gen_add_mm", "wake_up_new_task");
        falls_into("sched_post_fork", "tasklist_lock");
    }

    #[test]
    fn a_kernel_without_a_tracepoint_loses_the_stages_it_marks_and_says_so() {
        let plan = Plan::new(&facts(&[Tracepoint::SchedWakeupNew])).unwrap();
        let wake = row(&plan, "wake_up_new_task");
        assert_eq!(wake.precision, Precision::Missing);
        assert_eq!(wake.reason.as_deref(), Some("this kernel has no tracepoint sched_wakeup_new"));
        assert!(!plan.tracepoints.contains(&Tracepoint::SchedWakeupNew));
        assert_eq!(row(&plan, "copy_process").precision, Precision::Bounded);
    }

    #[test]
    fn a_kernel_without_a_needed_tracepoint_cannot_be_traced() {
        for needed in Tracepoint::ALL.iter().filter(|at| at.needed()) {
            let error = Plan::new(&facts(&[*needed])).unwrap_err();
            assert!(error.to_string().contains(needed.name()), "{error}");
            assert_eq!(error.exit_status(), 3);
        }
    }

    #[test]
    fn stages_nest_in_the_nearest_timed_stage() {
        let plan = Plan::new(&facts(&[])).unwrap();
        let place = |stage| plan.timed.iter().position(|timed| timed.stage == stage).unwrap();
        let within = |stage| plan.timed[place(stage)].within;
        assert_eq!(within(Stage::TasklistLock), Some(place(Stage::CopyProcess)));
        assert_eq!(within(Stage::CopyProcess), None, "kernel_clone is not timed");
    }
}
