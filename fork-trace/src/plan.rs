//! What to attach on this host, what each stage is bounded by, and why the rest is missing.
//!
//! Pure: the stage table and the host's facts in, a plan out.

use fork_trace_common::{
    site::SITES,
    stage::{Bounds, Mark, STAGES, Side, Stage},
};

use crate::{
    advice::Advice,
    cli::Stages,
    fork::{Coverage, Name, Precision, Source},
    host::Facts,
};

macro_rules! tracepoints {
    ($($(#[doc = $doc:literal])* $tracepoint:ident = $name:literal,)*) => {
        /// A tracepoint for which the object has a program, under the same name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Tracepoint { $($(#[doc = $doc])* $tracepoint,)* }

        impl Tracepoint {
            /// All, in the order of attaching.
            pub const ALL: &[Self] = &[$(Self::$tracepoint,)*];

            /// The kernel's name, and the program's.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$tracepoint => $name,)* }
            }
        }
    };
}

// The last mark first and the entry last, so that an attempt whose entry is seen meets every later
// mark too.
tracepoints! {
    /// `sched:sched_process_exit`: keeps the kernel side's maps clean.
    SchedProcessExit = "sched_process_exit",
    /// `sched:sched_process_exec`: what lets the parent of a vfork go.
    SchedProcessExec = "sched_process_exec",
    /// `raw_syscalls:sys_exit`.
    SysExit = "sys_exit",
    /// `sched:sched_switch`.
    SchedSwitch = "sched_switch",
    /// `sched:sched_wakeup_new`.
    SchedWakeupNew = "sched_wakeup_new",
    /// `sched:sched_process_fork`.
    SchedProcessFork = "sched_process_fork",
    /// `task:task_newtask`.
    TaskNewtask = "task_newtask",
    /// `lock:contention_end`, 5.19 and later.
    ContentionEnd = "contention_end",
    /// `lock:contention_begin`, 5.19 and later.
    ContentionBegin = "contention_begin",
    /// `x86_fpu:x86_fpu_copy_dst`.
    FpuCopyDst = "x86_fpu_copy_dst",
    /// `mmap_lock:mmap_lock_released`, 5.11 and later.
    MmapLockReleased = "mmap_lock_released",
    /// `mmap_lock:mmap_lock_acquire_returned`.
    MmapLockAcquireReturned = "mmap_lock_acquire_returned",
    /// `mmap_lock:mmap_lock_start_locking`.
    MmapLockStartLocking = "mmap_lock_start_locking",
    /// `timer:hrtimer_setup`.
    HrtimerSetup = "hrtimer_setup",
    /// `timer:hrtimer_init`, its name before.
    HrtimerInit = "hrtimer_init",
    /// `kmem:kmem_cache_alloc`.
    KmemCacheAlloc = "kmem_cache_alloc",
    /// `kmem:kmem_cache_alloc_node`, before 6.1: a `task_struct`.
    KmemCacheAllocNode = "kmem_cache_alloc_node",
    /// `raw_syscalls:sys_enter`.
    SysEnter = "sys_enter",
}

impl Tracepoint {
    /// Whether an attempt can be recorded at all without it.
    const fn needed(self) -> bool {
        // A vfork's record ends at the wake-up: later it would include the parent's wait.
        matches!(
            self,
            Self::SysEnter
                | Self::SysExit
                | Self::TaskNewtask
                | Self::SchedWakeupNew
                | Self::SchedProcessExit
                | Self::SchedProcessExec
        )
    }

    /// Whether its place inside a fork has to be learned, and whether learning watches it.
    #[must_use]
    pub const fn teaches(self) -> bool {
        matches!(
            self,
            Self::KmemCacheAlloc
                | Self::KmemCacheAllocNode
                | Self::HrtimerSetup
                | Self::HrtimerInit
                | Self::MmapLockStartLocking
                | Self::FpuCopyDst
        )
    }

    /// Which tracepoints take `mark`: those of them that a kernel has.
    fn taking(mark: Mark) -> &'static [Self] {
        match mark {
            Mark::SysEnter => &[Self::SysEnter],
            Mark::SchedForkTimer => &[Self::HrtimerSetup, Self::HrtimerInit],
            Mark::MmapLockStart => &[Self::MmapLockStartLocking],
            Mark::MmapLockTaken => &[Self::MmapLockAcquireReturned],
            Mark::ChildMmapReleased | Mark::ParentMmapReleased => &[Self::MmapLockReleased],
            Mark::FpuCopy => &[Self::FpuCopyDst],
            Mark::StartTime | Mark::TaskNewtask => &[Self::TaskNewtask],
            Mark::LockContended => &[Self::ContentionBegin],
            Mark::LockTaken => &[Self::ContentionEnd],
            Mark::SchedProcessFork => &[Self::SchedProcessFork],
            Mark::SchedWakeupNew => &[Self::SchedWakeupNew],
            Mark::ChildSwitch => &[Self::SchedSwitch],
            Mark::SysExit | Mark::ChildSysExit => &[Self::SysExit],
            Mark::TaskAlloc => &[Self::KmemCacheAlloc, Self::KmemCacheAllocNode],
            Mark::CredAlloc
            | Mark::FilesAlloc
            | Mark::FsAlloc
            | Mark::SighandAlloc
            | Mark::SignalAlloc
            | Mark::MmAlloc
            | Mark::PidAlloc => &[Self::KmemCacheAlloc],
        }
    }
}

/// Where stage boundaries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The best this host has
    Auto,
    /// Also tracepoints that fire inside a fork: slab call sites, timers, locks, FPU
    Inner,
    /// Only fork's own tracepoints
    Tracepoint,
}

/// A stage whose time this host can show.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The stage.
    pub stage: Stage,
    /// Begins at this mark.
    pub opens: Mark,
    /// Ends at this mark; where an attempt does not pass it, at the next that it passes.
    pub closes: Mark,
}

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// [`Backend::Inner`] or [`Backend::Tracepoint`].
    pub backend: Backend,
    /// Why [`Backend::Auto`] came to less than inner marks.
    pub shortfall: Option<String>,
    /// What to attach, in order.
    pub tracepoints: Vec<Tracepoint>,
    /// Call sites to set before load: global of the object and address.
    pub sites: Vec<(&'static str, u64)>,
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
    /// [`Advice::Backend`]: `backend` was asked for and is not to be had.
    pub fn new(facts: &Facts, backend: Backend, wanted: &Stages) -> Result<Self, Advice> {
        let exists = |at: &Tracepoint| facts.tracepoints.contains(at);
        if let Some(lacking) = Tracepoint::ALL.iter().find(|at| at.needed() && !exists(at)) {
            let name = lacking.name();
            return Err(Advice::KernelLacks {
                what: format!("the BTF tracepoint {name} (release {})", facts.release),
            });
        }
        let planner = Planner { facts, inner: inner_wanted(facts, backend)? };
        let bounds = |stage: Stage| match wanted.wants(stage) {
            true => planner.bounds(stage),
            false => Err("it was not asked for".to_owned()),
        };
        let bounds: Vec<_> = STAGES.iter().map(|row| bounds(row.stage)).collect();
        let timed: Vec<Timed> = STAGES
            .iter()
            .zip(&bounds)
            .filter(|(row, _)| row.side == Side::Parent)
            .filter_map(|(row, bounds)| {
                let Bounds { opens, closes, .. } = bounds.as_ref().ok()?;
                Some(Timed { stage: row.stage, opens: *opens, closes: *closes })
            })
            .collect();
        let marks = || {
            let ends = bounds.iter().flatten().flat_map(|bounds| [bounds.opens, bounds.closes]);
            ends.flat_map(|mark| std::iter::once(mark).chain(needs(mark).iter().copied()))
        };
        let wanted = |at: &&Tracepoint| {
            at.needed() || marks().any(|mark| Tracepoint::taking(mark).contains(at))
        };
        let tracepoints =
            Tracepoint::ALL.iter().filter(|at| exists(at)).filter(wanted).copied().collect();
        let site = |(global, mark): &(&'static str, Mark)| {
            let site = facts.inner.get(mark)?.as_ref().ok()?;
            marks().any(|wanted| wanted == *mark).then_some((*global, *site))
        };
        Ok(Self {
            backend: if planner.inner { Backend::Inner } else { Backend::Tracepoint },
            shortfall: (backend == Backend::Auto && !planner.inner).then(|| no_inner(facts)),
            tracepoints,
            sites: SITES.iter().filter_map(site).collect(),
            timed,
            coverage: planner.coverage(&bounds),
        })
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

/// Whether inner marks are used: where asked for, or where there are any.
fn inner_wanted(facts: &Facts, backend: Backend) -> Result<bool, Advice> {
    let any = facts.inner.values().any(Result::is_ok);
    match backend {
        Backend::Tracepoint => Ok(false),
        Backend::Auto => Ok(any),
        Backend::Inner if any => Ok(true),
        Backend::Inner => Err(Advice::Backend { name: "inner", reason: no_inner(facts) }),
    }
}

/// Why there are no inner marks.
fn no_inner(facts: &Facts) -> String {
    let reason = facts.inner.values().find_map(|mark| mark.as_ref().err());
    reason.map_or("no inner tracepoint is known", String::as_str).to_owned()
}

struct Planner<'a> {
    facts: &'a Facts,
    inner: bool,
}

impl Planner<'_> {
    /// Whether `mark` can be taken, or why not.
    fn mark(&self, mark: Mark) -> Result<(), String> {
        let [first, ..] = Tracepoint::taking(mark) else {
            return Err("no tracepoint takes it".to_owned());
        };
        if !Tracepoint::taking(mark).iter().any(|at| self.facts.tracepoints.contains(at)) {
            return Err(format!("this kernel has no tracepoint {}", first.name()));
        }
        match self.facts.inner.get(&mark) {
            Some(Err(reason)) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// The marks of a stage, or why it has none.
    ///
    /// Where its closing mark cannot be taken it goes on to the next that can, within the stage
    /// around it; then it includes the stages between.
    fn bounds(&self, stage: Stage) -> Result<Bounds, String> {
        let row = stage.row();
        let inner = row.inner.filter(|_| self.inner).map(|inner| {
            self.mark(inner.opens)?;
            match self.mark(inner.closes) {
                Ok(()) => Ok(inner),
                Err(reason) => self.extended(stage, inner).ok_or(reason),
            }
        });
        let tracepoint = row.tracepoint.map(|bounds| {
            self.mark(bounds.opens)?;
            self.mark(bounds.closes)?;
            Ok(bounds)
        });
        match (inner, tracepoint) {
            (Some(Ok(bounds)), _) | (_, Some(Ok(bounds))) => Ok(bounds),
            (Some(Err(reason)), _) | (_, Some(Err(reason))) => Err(reason),
            (None, None) => Err(self.reason(stage)),
        }
    }

    fn extended(&self, stage: Stage, bounds: Bounds) -> Option<Bounds> {
        let around = self.bounds(stage.row().parent?).ok()?;
        let later = Mark::ALL.iter().copied().filter(|mark| *mark > bounds.closes);
        let closes = later
            .filter(|mark| *mark <= around.closes && !optional(*mark))
            .find(|mark| self.mark(*mark).is_ok())?;
        (!optional(bounds.closes)).then_some(Bounds { closes, ..bounds })
    }

    fn coverage(&self, bounds: &[Result<Bounds, String>]) -> Vec<Coverage> {
        let coverage =
            |(row, bounds): (&fork_trace_common::stage::Row, &Result<Bounds, String>)| {
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
                        precision: Precision::Bounded,
                        source: Some(Source::Tracepoint),
                        opens: Some(Name::Borrowed(bounds.opens.name())),
                        closes: Some(Name::Borrowed(bounds.closes.name())),
                        includes: self.includes(row.stage, bounds),
                        reason: None,
                    },
                }
            };
        STAGES.iter().zip(bounds).map(coverage).collect()
    }

    /// Other stages that fall between the marks: those of the row, and those whose own mark cannot
    /// be taken.
    fn includes(&self, stage: Stage, bounds: &Bounds) -> Vec<Name> {
        let planned = stage.row().inner.filter(|_| self.inner).map(|inner| inner.closes);
        let swallowed = STAGES.iter().filter(|row| {
            let own = row.inner.map(|inner| inner.opens);
            planned.zip(own).is_some_and(|(closes, own)| closes <= own && own < bounds.closes)
                && bounds.closes != planned.unwrap_or(bounds.closes)
        });
        let swallowed = swallowed.map(|row| row.stage);
        let all = bounds.includes.iter().copied().chain(swallowed);
        all.map(|stage| Name::Borrowed(stage.row().name)).collect()
    }

    /// Why no mark takes a stage, and where its time goes.
    fn reason(&self, stage: Stage) -> String {
        if stage.row().side == Side::Libc {
            return "the C library is not probed".to_owned();
        }
        let of = |stage: Stage| {
            let row = stage.row();
            row.inner.filter(|_| self.inner).or(row.tracepoint)
        };
        let includes = |stage| {
            STAGES.iter().find(|row| of(row.stage).is_some_and(|b| b.includes.contains(&stage)))
        };
        // A stage that inner marks would bound lacks them for a reason of its own.
        let lacking = stage.row().inner.map(|inner| self.facts.inner.get(&inner.opens));
        let why = match lacking {
            Some(Some(Err(reason))) => reason,
            _ => "no tracepoint marks it",
        };
        let mut inside = Some(stage);
        while let Some(candidate) = inside {
            let row = candidate.row();
            let around = includes(candidate).or_else(|| of(candidate).map(|_| row));
            if let Some(around) = around {
                return format!("{why}; its time falls into {}", around.name);
            }
            inside = row.parent;
        }
        why.to_owned()
    }
}

/// Marks without which the kernel side does not take `mark`: they tell the right moment.
const fn needs(mark: Mark) -> &'static [Mark] {
    match mark {
        Mark::MmapLockStart => &[Mark::MmAlloc],
        Mark::MmapLockTaken => &[Mark::MmAlloc, Mark::MmapLockStart],
        Mark::ChildMmapReleased | Mark::ParentMmapReleased => {
            &[Mark::MmAlloc, Mark::MmapLockStart, Mark::MmapLockTaken]
        }
        Mark::LockContended => &[Mark::PidAlloc],
        Mark::LockTaken => &[Mark::PidAlloc, Mark::LockContended],
        _ => &[],
    }
}

/// Marks that an attempt passes only under contention: nothing else ends there.
#[must_use]
pub const fn optional(mark: Mark) -> bool {
    matches!(mark, Mark::LockContended | Mark::LockTaken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::{InnerMarks, nothing};

    /// A host with all tracepoints but these, and inner marks.
    fn facts(without: &[Tracepoint], inner: InnerMarks) -> Facts {
        let tracepoints = Tracepoint::ALL.iter().copied();
        Facts {
            tracepoints: tracepoints.filter(|at| !without.contains(at)).collect(),
            release: "fixture".to_owned(),
            inner,
        }
    }

    fn learned() -> InnerMarks {
        nothing("").into_keys().map(|mark| (mark, Ok(0x1000 + mark as u64))).collect()
    }

    fn plan(facts: &Facts) -> Plan {
        Plan::new(facts, Backend::Auto, &Stages::All).unwrap()
    }

    fn row<'a>(plan: &'a Plan, name: &str) -> &'a Coverage {
        plan.coverage.iter().find(|row| row.name == name).unwrap()
    }

    /// Opening and closing mark.
    fn marks(plan: &Plan, name: &str) -> (String, String) {
        let row = row(plan, name);
        let text = |mark: &Option<Name>| mark.clone().unwrap_or_default().into_owned();
        (text(&row.opens), text(&row.closes))
    }

    #[test]
    fn every_stage_has_a_row_in_kernel_order_and_every_missing_one_a_reason() {
        for inner in [learned(), nothing("hidden")] {
            let plan = plan(&facts(&[], inner));
            assert_eq!(plan.coverage.len(), STAGES.len());
            for (coverage, row) in plan.coverage.iter().zip(STAGES) {
                assert_eq!(coverage.name, row.name);
                assert_eq!(coverage.precision == Precision::Missing, coverage.reason.is_some());
                assert_eq!(coverage.precision == Precision::Missing, coverage.source.is_none());
            }
            assert_eq!(plan.counts().iter().sum::<usize>(), STAGES.len());
        }
    }

    #[test]
    fn without_inner_marks_fork_s_own_tracepoints_bound_a_few_stages() {
        let plan = plan(&facts(&[], nothing("hidden")));
        assert_eq!(plan.backend, Backend::Tracepoint);
        assert_eq!(plan.shortfall.as_deref(), Some("hidden"));
        assert_eq!(marks(&plan, "copy_process"), ("sys_enter".into(), "sched_process_fork".into()));
        assert!(!plan.tracepoints.contains(&Tracepoint::KmemCacheAlloc));
        let falls_into = |name: &str, stage: &str| {
            let reason = row(&plan, name).reason.clone().unwrap();
            assert!(reason.ends_with(&format!("falls into {stage}")), "{name}: {reason}");
        };
        falls_into("cgroup_fork", "copy_process");
        assert_eq!(
            row(&plan, "copy_files").reason.as_deref(),
            Some("hidden; its time falls into copy_process")
        );
        falls_into("attach_pid", "tasklist_lock");
        falls_into("lru_gen_add_mm", "wake_up_new_task");
        falls_into("sched_post_fork", "tasklist_lock");
    }

    #[test]
    fn inner_marks_bound_what_lies_inside() {
        let plan = plan(&facts(&[], learned()));
        assert_eq!(plan.backend, Backend::Inner);
        assert_eq!(plan.shortfall, None);
        assert_eq!(plan.sites.len(), SITES.len());
        assert_eq!(
            marks(&plan, "sys_enter"),
            ("sys_enter".into(), "kmem_cache_alloc@copy_process#1".into())
        );
        assert_eq!(
            marks(&plan, "copy_files"),
            ("kmem_cache_alloc@dup_fd".into(), "kmem_cache_alloc@copy_fs_struct".into())
        );
        assert_eq!(
            row(&plan, "sched_fork").includes,
            ["perf_event_init_task", "audit_alloc", "security_task_alloc", "copy_semundo"]
        );
    }

    #[test]
    fn only_what_a_wanted_stage_needs_is_attached() {
        let only = |stage| {
            let wanted = Stages::Only([stage].into());
            Plan::new(&facts(&[], learned()), Backend::Auto, &wanted).unwrap()
        };
        let thread = only(Stage::CopyThread);
        assert!(thread.tracepoints.contains(&Tracepoint::FpuCopyDst));
        assert!(!thread.tracepoints.contains(&Tracepoint::MmapLockReleased));
        assert_eq!(thread.sites.len(), 1, "the one that ends it");
        assert_eq!(row(&thread, "copy_mm").reason.as_deref(), Some("it was not asked for"));
        let flush = only(Stage::FlushTlbMm);
        assert!(flush.tracepoints.contains(&Tracepoint::MmapLockStartLocking), "it leads there");
        assert!(flush.sites.iter().any(|(global, _)| *global == "SITE_MM"));
        let wake = only(Stage::WakeUpNewTask);
        assert!(!wake.tracepoints.contains(&Tracepoint::KmemCacheAlloc));
    }

    #[test]
    fn a_closing_mark_that_is_lacking_lets_the_stage_go_on_and_say_so() {
        let mut inner = learned();
        inner.insert(Mark::FsAlloc, Err("copy_fs_struct allocates at more than one place".into()));
        let plan = plan(&facts(&[], inner));
        assert_eq!(
            marks(&plan, "copy_files"),
            ("kmem_cache_alloc@dup_fd".into(), "kmem_cache_alloc@copy_process#2".into())
        );
        assert_eq!(row(&plan, "copy_files").includes, ["copy_fs"]);
        let fs = row(&plan, "copy_fs");
        assert_eq!(fs.precision, Precision::Missing);
        assert!(fs.reason.as_deref().unwrap().contains("more than one place"));
        assert!(plan.sites.iter().all(|(global, _)| *global != "SITE_FS"));
    }

    #[test]
    fn a_kernel_without_mmap_lock_events_loses_only_what_they_mark() {
        let without = [
            Tracepoint::MmapLockStartLocking,
            Tracepoint::MmapLockAcquireReturned,
            Tracepoint::MmapLockReleased,
        ];
        let plan = plan(&facts(&without, learned()));
        let reason = row(&plan, "mmap_write_lock").reason.clone().unwrap();
        assert_eq!(reason, "this kernel has no tracepoint mmap_lock_start_locking");
        assert_eq!(marks(&plan, "copy_mm").1, "x86_fpu_copy_dst");
        assert!(row(&plan, "copy_mm").includes.contains(&Name::Borrowed("copy_namespaces")));
    }

    #[test]
    fn without_the_first_allocation_copy_process_keeps_its_outer_marks() {
        let mut inner = learned();
        inner.insert(Mark::TaskAlloc, Err("not certain".into()));
        let plan = plan(&facts(&[], inner));
        assert_eq!(marks(&plan, "copy_process").0, "sys_enter");
        assert_eq!(row(&plan, "sys_enter").precision, Precision::Missing);
    }

    #[test]
    fn a_kernel_without_a_tracepoint_loses_the_stages_it_marks_and_says_so() {
        let plan = plan(&facts(&[Tracepoint::SchedProcessFork], nothing("hidden")));
        let wake = row(&plan, "wake_up_new_task");
        assert_eq!(wake.precision, Precision::Missing);
        let reason = "this kernel has no tracepoint sched_process_fork";
        assert_eq!(wake.reason.as_deref(), Some(reason));
        assert!(!plan.tracepoints.contains(&Tracepoint::SchedProcessFork));
        assert_eq!(row(&plan, "tasklist_lock").precision, Precision::Bounded);
    }

    #[test]
    fn a_kernel_without_a_needed_tracepoint_cannot_be_traced() {
        for needed in Tracepoint::ALL.iter().filter(|at| at.needed()) {
            let error =
                Plan::new(&facts(&[*needed], learned()), Backend::Auto, &Stages::All).unwrap_err();
            assert!(error.to_string().contains(needed.name()), "{error}");
            assert_eq!(error.exit_status(), 3);
        }
    }

    #[test]
    fn a_backend_that_is_not_to_be_had_is_an_error_that_says_why() {
        let hidden = facts(&[], nothing("kernel addresses are hidden"));
        let error = Plan::new(&hidden, Backend::Inner, &Stages::All).unwrap_err();
        assert!(error.to_string().contains("kernel addresses are hidden"), "{error}");
        assert_eq!(error.exit_status(), 3);
        let forced = Plan::new(&facts(&[], learned()), Backend::Tracepoint, &Stages::All).unwrap();
        assert_eq!(forced.backend, Backend::Tracepoint);
        assert!(forced.sites.is_empty());
    }
}
