//! The stages of attempts that failed: those before the one that failed are done, none after it
//! stands, and undoing has a time of its own or is said to be included.

use std::process::Command;

use fork_trace_common::stage::{Occurs, Row, STAGES, Stage};
use serde_json::Value;

use crate::support::{fork_trace, forker, live_test, of_type, trace};

/// The failed attempts of these scenarios; and whether inner marks are in use.
fn refused(scenarios: &[&str]) -> (bool, Vec<Value>) {
    let traced = trace(fork_trace().arg("--stages=all"), Command::new(forker()).args(scenarios));
    let failed = of_type(&traced.shown, "fork").into_iter().filter(|fork| fork["errno"].is_u64());
    (traced.shown[0]["backend"] == "inner", failed.cloned().collect())
}

fn stages(fork: &Value) -> Vec<(&'static Row, &Value)> {
    let all = fork["stages"].as_array().into_iter().flatten();
    let row = |stage: &Value| STAGES.iter().find(|row| stage["name"] == row.name).unwrap();
    all.map(|stage| (row(stage), stage)).collect()
}

fn stage(fork: &Value, wanted: Stage) -> Option<&Value> {
    stages(fork).into_iter().find(|(row, _)| row.stage == wanted).map(|(_, stage)| stage)
}

/// The stages agree with `failed_stage`, and with each other.
fn agrees(fork: &Value) {
    let failed = fork["failed_stage"].as_str().unwrap();
    let failed = STAGES.iter().find(|row| row.name == failed).unwrap().stage;
    let mut open = 0;
    let mut stands = false;
    for (row, stage) in stages(fork) {
        let around = row.stage == failed || failed.is_within(row.stage);
        stands |= row.stage == failed;
        open += usize::from(stage["includes_undo"] == true);
        if row.occurs == Occurs::OnFailure || !row.stage.is_within(Stage::CopyProcess) && !around {
            assert_eq!(stage["status"], "done", "{} of {fork}", row.name);
        } else if around {
            assert_eq!(stage["status"], "failed", "{} of {fork}", row.name);
        } else if row.stage < failed {
            assert!(stage["status"] == "done" || stage["status"] == "shared", "{stage} of {fork}");
        } else {
            assert!(row.stage.is_within(failed), "{} comes after {fork}", row.name);
        }
    }
    assert!(stands, "{fork}");
    assert!(open <= 1, "{fork}");
    if stage(fork, Stage::BadForkCleanup).is_some() {
        assert_eq!(open, 0, "undoing cannot be a stage and in another: {fork}");
    }
}

#[test]
fn nothing_stands_after_the_stage_that_failed() {
    live_test!();
    let scenarios = [
        "einval-thread",
        "einval-sighand",
        "einval-newns-fs",
        "eexist-set-tid",
        "eperm-newns",
        "eagain-nproc",
        "eagain-pids",
        "eagain-deadline",
        "enomem-dead-pidns",
        "enospc-user",
        "enospc-net",
        "eperm-set-tid",
        "emfile-pidfd",
        "eperm-chroot",
        "into-cgroup",
        "enomem-mapping",
        "einval-clone3-size",
        "efault-clone3",
    ];
    let (_, forks) = refused(&scenarios);
    assert!(forks.len() >= 10, "{}", forks.len());
    for fork in &forks {
        agrees(fork);
    }
}

#[test]
fn a_copy_that_fails_is_undone_in_a_stage_of_its_own() {
    live_test!();
    let (inner, forks) = refused(&["enomem-mapping"]);
    let Some(fork) = forks.first().filter(|_| inner) else { return };
    assert_eq!(fork["failed_stage"], "dup_mmap", "{fork}");
    let (copy, undo) = (stage(fork, Stage::DupMmap), stage(fork, Stage::BadForkCleanup));
    if stage(fork, Stage::FlushTlbMm).is_none() {
        println!("skip: no tracepoint marks the release of mmap_lock");
        return;
    }
    let (copy, undo) = (copy.unwrap(), undo.unwrap());
    assert_eq!(copy["status"], "failed", "{fork}");
    assert_eq!(copy["until"], Value::Null, "it ends at its own mark: {fork}");
    let number = |stage: &Value, name: &str| stage[name].as_u64().unwrap();
    let end = number(copy, "start_ns") + number(copy, "dur_ns");
    assert_eq!(number(undo, "start_ns"), end, "undoing begins where the copy ends: {fork}");
    let end = number(undo, "start_ns") + number(undo, "dur_ns");
    assert_eq!(fork["total_ns"], end, "and goes on to the return: {fork}");
    assert!(stage(fork, Stage::CopyNamespaces).is_none(), "{fork}");
}

#[test]
fn a_vfork_fails_in_its_own_stage() {
    live_test!();
    let (inner, forks) = refused(&["enomem-dead-pidns"]);
    let Some(vfork) = forks.iter().find(|fork| fork["kind"] == "vfork") else { return };
    assert_eq!(vfork["failed_stage"], "alloc_pid", "{vfork}");
    assert_eq!(stage(vfork, Stage::CopyMm).unwrap()["status"], "shared", "{vfork}");
    if inner {
        assert_eq!(stage(vfork, Stage::CopySignal).unwrap()["status"], "done", "{vfork}");
        assert_eq!(stage(vfork, Stage::AllocPid).unwrap()["includes_undo"], true, "{vfork}");
    }
}

#[test]
fn the_time_of_an_allocation_counts_where_it_was_made() {
    live_test!();
    // Which allocation fails is chance; that of an object with a mark may not come at once.
    let mut differs = String::new();
    for _ in 0..30 {
        let (inner, forks) = refused(&["enomem-memory"]);
        let Some(fork) = forks.first().filter(|_| inner) else { return };
        let Some(undo) = stage(fork, Stage::BadForkCleanup) else {
            differs = format!("no object with a mark was refused: {fork}");
            continue;
        };
        agrees(fork);
        let failed = fork["failed_stage"].as_str().unwrap();
        let failed = stages(fork).into_iter().find(|(row, _)| row.name == failed).unwrap().1;
        let number = |stage: &Value| stage["dur_ns"].as_u64().unwrap();
        // To reclaim takes longer than all else: the group is full, and the kernel tries 16 times.
        let others = stages(fork).into_iter().filter(|(row, _)| {
            let apart = row.name != failed["name"] && row.name != undo["name"];
            apart && row.stage != Stage::CopyProcess
        });
        let longest = others.map(|(_, stage)| stage["dur_ns"].as_u64().unwrap_or(0)).max().unwrap();
        if number(failed) > longest {
            return;
        }
        // The caller may have lost its CPU in another stage.
        differs = format!("another stage took {longest} ns: {fork}");
    }
    panic!("{differs}");
}
