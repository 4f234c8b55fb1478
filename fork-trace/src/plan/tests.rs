//! The plans of hosts that are made up.

use fork_trace_common::{function::FUNCTIONS, stage::Occurs};

use super::*;
use crate::{
    event::{
        span::{Precision, Source},
        start::Coverage,
        values::Name,
    },
    host::{
        call_sites::{InnerMarks, all_unknown},
        facts::Facts,
        functions::ProbeKind,
    },
    plan::{backend::Backend, fit::nested, stages::Stages},
};

/// A host that has all tracepoints but these, and the given inner marks.
fn facts(without: &[Tracepoint], inner: InnerMarks) -> Facts {
    let tracepoints = Tracepoint::ALL.iter().copied();
    Facts {
        tracepoints: tracepoints.filter(|at| !without.contains(at)).collect(),
        release: "fixture".to_owned(),
        inner,
        ..Facts::default()
    }
}

/// The inner marks of a host on which all could be learned.
fn learned() -> InnerMarks {
    all_unknown("").into_keys().map(|mark| (mark, Ok(0x1000 + mark as u64))).collect()
}

fn plan(facts: &Facts) -> Plan {
    Plan::new(facts, Backend::Auto, &Stages::All).unwrap()
}

fn row<'a>(plan: &'a Plan, name: &str) -> &'a Coverage {
    plan.coverage.iter().find(|row| row.name == name).unwrap()
}

/// The names of the points at which a stage begins and ends.
fn marks(plan: &Plan, name: &str) -> (String, String) {
    let row = row(plan, name);
    let text = |mark: &Option<Name>| mark.clone().unwrap_or_default().into_owned();
    (text(&row.opens), text(&row.closes))
}

#[test]
fn every_stage_has_a_row_in_kernel_order_and_every_missing_one_a_reason() {
    for inner in [learned(), all_unknown("hidden")] {
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
    let plan = plan(&facts(&[], all_unknown("hidden")));
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
    assert_eq!(sites(&facts(&[], learned()), Backend::Auto, &Stages::All).len(), SITES.len());
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
fn only_tracepoints_that_a_wanted_stage_needs_are_attached() {
    let facts = facts(&[], learned());
    let wanted = |stage| Stages::Only([stage].into());
    let only = |stage| Plan::new(&facts, Backend::Auto, &wanted(stage)).unwrap();
    let sites = |stage| sites(&facts, Backend::Auto, &wanted(stage));
    let thread = only(Stage::CopyThread);
    assert!(thread.tracepoints.contains(&Tracepoint::FpuCopyDst));
    assert!(!thread.tracepoints.contains(&Tracepoint::MmapLockReleased));
    assert_eq!(sites(Stage::CopyThread).len(), 1, "only the one at which it ends");
    assert_eq!(row(&thread, "copy_mm").reason.as_deref(), Some("it was not asked for"));
    let flush = only(Stage::FlushTlbMm);
    assert!(flush.tracepoints.contains(&Tracepoint::MmapLockStartLocking), "it has to come before");
    assert!(sites(Stage::FlushTlbMm).iter().any(|(global, _)| *global == "SITE_MM"));
    let wake = only(Stage::WakeUpNewTask);
    assert!(!wake.tracepoints.contains(&Tracepoint::KmemCacheAlloc));
}

#[test]
fn a_stage_without_its_closing_mark_ends_at_the_next_and_names_what_it_includes() {
    let mut inner = learned();
    inner.insert(Mark::FsAlloc, Err("copy_fs_struct allocates at more than one place".into()));
    let facts = facts(&[], inner);
    let plan = plan(&facts);
    assert_eq!(
        marks(&plan, "copy_files"),
        ("kmem_cache_alloc@dup_fd".into(), "kmem_cache_alloc@copy_process#2".into())
    );
    assert_eq!(row(&plan, "copy_files").includes, ["copy_fs"]);
    let fs = row(&plan, "copy_fs");
    assert_eq!(fs.precision, Precision::Missing);
    assert!(fs.reason.as_deref().unwrap().contains("more than one place"));
    let sites = sites(&facts, Backend::Auto, &Stages::All);
    assert!(sites.iter().all(|(global, _)| *global != "SITE_FS"));
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
    assert_eq!(
        reason,
        "this kernel has no tracepoint mmap_lock_start_locking; its time falls into dup_mmap"
    );
    assert_eq!(marks(&plan, "copy_mm").1, "x86_fpu_copy_dst");
    assert!(row(&plan, "copy_mm").includes.contains(&Name::Borrowed("copy_namespaces")));
}

#[test]
fn where_children_pass_no_exit_only_their_way_to_user_space_is_missing() {
    let facts = Facts { no_child_exit: true, ..facts(&[Tracepoint::FpuCopyDst], learned()) };
    let plan = plan(&facts);
    for name in ["ret_from_fork", "schedule_tail"] {
        assert_eq!(row(&plan, name).precision, Precision::Missing, "{name}");
        assert!(row(&plan, name).reason.as_deref().unwrap().contains("first return"), "{name}");
    }
    assert_eq!(row(&plan, "sched_switch").precision, Precision::Bounded);
    assert_eq!(row(&plan, "sys_exit").precision, Precision::Bounded);
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
    let plan = plan(&facts(&[Tracepoint::SchedProcessFork], all_unknown("hidden")));
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
fn a_backend_that_the_host_lacks_is_an_error_that_says_why() {
    let hidden = facts(&[], all_unknown("kernel addresses are hidden"));
    let error = Plan::new(&hidden, Backend::Inner, &Stages::All).unwrap_err();
    assert!(error.to_string().contains("kernel addresses are hidden"), "{error}");
    assert_eq!(error.exit_status(), 3);
    let forced = Plan::new(&facts(&[], learned()), Backend::Tracepoint, &Stages::All).unwrap();
    assert_eq!(forced.backend, Backend::Tracepoint);
    assert!(!forced.tracepoints.contains(&Tracepoint::KmemCacheAlloc));
    let mut refused = facts(&[], learned());
    refused.no_functions = Some("fentry: operation not permitted".to_owned());
    let error = Plan::new(&refused, Backend::Fentry, &Stages::All).unwrap_err();
    assert!(error.to_string().contains("fentry: operation not permitted"), "{error}");
    assert_eq!(Plan::new(&refused, Backend::Auto, &Stages::All).unwrap().backend, Backend::Inner);
}

/// A host on which every function of the table is probed but these.
fn probed(how: ProbeKind, without: &[Function], inner: InnerMarks) -> Facts {
    let probe = |row: &fork_trace_common::function::FunctionRow| {
        let leaves = !(row.waits && how == ProbeKind::Kprobe);
        let probe = match without.contains(&row.function) {
            true => Err(format!("this kernel has no function {}", row.id)),
            false => Ok(crate::host::functions::Probe { how, name: row.id, leaves }),
        };
        (row.function, probe)
    };
    Facts { probes: FUNCTIONS.iter().map(probe).collect(), ..facts(&[], inner) }
}

/// The functions that Linux 6.12 does not have.
const NOT_IN_6_12: [Function; 3] =
    [Function::TaskExecStateCopy, Function::FutexHash, Function::DupMmap];

#[test]
fn with_functions_every_stage_of_the_kernel_is_seen() {
    for inner in [learned(), all_unknown("not used")] {
        let no_inner = inner.values().all(Result::is_err);
        let facts = probed(ProbeKind::Fentry, &NOT_IN_6_12, inner);
        let plan = plan(&facts);
        assert_eq!(plan.backend, Backend::Fentry);
        let missing = STAGES.iter().filter(|stage| {
            !matches!(stage.side, Side::Libc | Side::ChildLibc)
                && row(&plan, stage.name).precision == Precision::Missing
        });
        let missing: Vec<_> = missing.map(|row| row.name).collect();
        let mut expected = vec!["copy_exec_state", "__pte_alloc", "futex_hash_allocate_default"];
        if no_inner {
            expected.push("queued_write_lock_slowpath");
        }
        expected.extend(["user_events_fork", "try_to_free_pages"]);
        assert_eq!(missing, expected);
        assert_eq!(row(&plan, "copy_creds").precision, Precision::Exact);
        assert_eq!(row(&plan, "copy_creds").source, Some(Source::Fentry));
        assert_eq!(row(&plan, "dup_mmap").precision, Precision::Bounded);
        assert_eq!(
            marks(&plan, "dup_task_struct"),
            ("enter tsk_fork_get_node".into(), "leave dup_user_cpus_ptr".into())
        );
    }
}

/// Two stages of which none is part of the other must not overlap, or time would be counted twice.
#[test]
fn stages_side_by_side_do_not_overlap() {
    let without: Vec<Vec<Function>> = std::iter::once(Vec::new())
        .chain(FUNCTIONS.iter().map(|row| vec![row.function]))
        .chain([NOT_IN_6_12.to_vec()])
        .collect();
    for without in &without {
        let how = ProbeKind::Fentry;
        for inner in [learned(), all_unknown("not used")] {
            let facts = probed(how, without, inner);
            let timed = plan(&facts).timed;
            let all = timed.iter().flat_map(|one| timed.iter().map(move |other| (one, other)));
            for (one, other) in all {
                let (row, other_row) = (one.stage.row(), other.stage.row());
                let apart = other.opens.rank() >= one.closes.rank()
                    || one.opens.rank() >= other.closes.rank();
                let seldom = [row, other_row].iter().any(|row| row.occurs == Occurs::OnFailure);
                assert!(
                    one.stage == other.stage || nested(row, other_row) || apart || seldom,
                    "{} and {} without {without:?}",
                    row.name,
                    other_row.name
                );
            }
        }
    }
}

#[test]
fn a_breakpoint_does_not_probe_the_return_of_a_function_that_can_block() {
    let plan = plan(&probed(ProbeKind::Kprobe, &[Function::PutPid], learned()));
    assert_eq!(plan.backend, Backend::Kprobe);
    let kernel_clone = row(&plan, "kernel_clone");
    assert_eq!(kernel_clone.precision, Precision::Bounded);
    assert_eq!(kernel_clone.closes.as_deref(), Some("leave wake_up_new_task"));
    assert_eq!(marks(&plan, "sys_exit"), ("leave wake_up_new_task".into(), "sys_exit".into()));
}

#[test]
fn the_default_leaves_busy_functions_alone() {
    let default = functions(&Stages::Default);
    assert!(
        !default.contains(&Function::RecalcSigpending) && default.contains(&Function::CopyCreds)
    );
    assert!(functions(&Stages::All).contains(&Function::RecalcSigpending));
    let only = functions(&Stages::Only([Stage::FlushTlbMm].into()));
    assert_eq!(only, [Function::FlushTlbMmRange].into());
}

#[test]
fn a_stage_that_only_samples_can_tell_says_so_and_stays_part_of_the_stage_around_it() {
    let bare = plan(&facts(&[], learned()));
    let sampled = [Stage::PerfEventInitTask, Stage::CopyPageRange].into_iter().collect();
    let facts = Facts { sample_hz: 1000, sampled, ..facts(&[], learned()) };
    let plan = plan(&facts);
    assert_eq!(plan.sample_period_ns(), 1_000_000);
    let told = row(&plan, "perf_event_init_task");
    assert_eq!((told.precision, told.source), (Precision::Sampled, Some(Source::Sample)));
    assert_eq!(told.reason, row(&bare, "perf_event_init_task").reason);
    assert_eq!(row(&plan, "copy_page_range"), row(&bare, "copy_page_range"), "it has marks");
    assert_eq!(row(&plan, "sched_fork"), row(&bare, "sched_fork"));
    assert!(row(&plan, "sched_fork").includes.contains(&"perf_event_init_task".into()));
}
