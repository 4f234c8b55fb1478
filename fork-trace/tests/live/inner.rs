//! Inner marks: which stages a plain fork shows, and that their figures are true.

use std::process::Command;

use fork_trace_common::arch::ARCH;
use serde_json::Value;

use crate::support::{
    accounted, fork_trace, forker, live_test, median, number, of_type, run, skip, stage, tool,
    trace,
};

/// Stages of a plain fork that inner marks bound.
const STAGES: [&str; 22] = [
    "sys_enter",
    "copy_process",
    "dup_task_struct",
    "copy_creds",
    "sched_fork",
    "copy_files",
    "copy_fs",
    "copy_sighand",
    "copy_signal",
    "copy_mm",
    "mm_init",
    "dup_mmap",
    "mmap_write_lock",
    "copy_page_range",
    "flush_tlb_mm",
    "copy_namespaces",
    "copy_thread",
    "alloc_pid",
    "tasklist_lock",
    "uprobe_copy_process",
    "wake_up_new_task",
    "sys_exit",
];

/// Traces `forker` with these arguments by inner marks.
fn traced(args: &[&str]) -> Vec<Value> {
    let mut tool = fork_trace();
    // Where the tests are run with a backend, that one is taken.
    if std::env::var_os("FORK_TRACE_BACKEND").is_none() {
        tool.args(["--backend", "inner"]);
    }
    trace(&mut tool, Command::new(forker()).args(args)).shown
}

/// Begins a test that is about inner marks, which other backends do not attach.
macro_rules! inner_test {
    () => {
        live_test!();
        if std::env::var("FORK_TRACE_BACKEND").is_ok_and(|backend| backend != "inner") {
            skip!("the backend asked for has no inner marks");
        }
    };
}

/// Stages that the head of the stream says are bounded.
fn bounded(lines: &[Value]) -> Vec<&str> {
    let stages = lines[0]["coverage"].as_array().unwrap().iter();
    let bounded = stages.filter(|stage| stage["precision"] == "bounded");
    bounded.map(|stage| stage["name"].as_str().unwrap()).collect()
}

#[test]
fn a_plain_fork_shows_each_stage() {
    inner_test!();
    let lines = traced(&["fork-raw", "--repeat", "20"]);
    let planned = bounded(&lines);
    // Kernels differ in what they can mark; this one says what it can.
    let expected: Vec<_> = STAGES.iter().filter(|name| planned.contains(name)).collect();
    assert!(expected.len() > 15, "{planned:?}");
    for fork in of_type(&lines, "fork") {
        for name in &expected {
            let seen = stage(fork, name).unwrap_or_else(|| panic!("{name} of {fork}"));
            assert_eq!(seen["status"], "done", "{name} of {fork}");
        }
        assert_eq!(fork["other_ns"], 0, "marks meet: {fork}");
        let mut last = 0;
        for stage in fork["stages"].as_array().unwrap() {
            let start = number(&stage["start_ns"]);
            assert!(start >= last, "kernel order: {fork}");
            last = start;
        }
        assert!(number(&fork["memory"]["copied_vmas"]) > 5, "{fork}");
        assert!(number(&fork["memory"]["copied_page_table_bytes"]) >= 4096, "{fork}");
    }
}

#[test]
fn what_a_thread_and_a_vfork_share_is_shared() {
    inner_test!();
    let shared = |fork: &Value| -> Vec<String> {
        let stages = fork["stages"].as_array().unwrap().iter();
        let shared = stages.filter(|stage| stage["status"] == "shared");
        shared.map(|stage| stage["name"].as_str().unwrap().to_owned()).collect()
    };
    let lines = traced(&["thread"]);
    let forks = of_type(&lines, "fork");
    let thread = forks.iter().find(|fork| fork["kind"] == "thread").unwrap();
    let of_thread =
        ["copy_semundo", "copy_files", "copy_fs", "copy_sighand", "copy_signal", "copy_mm"];
    assert_eq!(shared(thread), of_thread);
    assert_eq!(stage(thread, "dup_task_struct").unwrap()["status"], "done");
    assert!(thread["memory"].is_null());

    let lines = traced(&["vfork"]);
    let forks = of_type(&lines, "fork");
    let vfork = forks.iter().find(|fork| fork["kind"] == "vfork").unwrap();
    assert_eq!(shared(vfork), ["copy_mm"]);
    for copied in ["copy_files", "copy_fs", "copy_sighand", "copy_signal"] {
        assert_eq!(stage(vfork, copied).unwrap()["status"], "done", "{copied}");
    }
    // Where a stage is shared, the one before it ends at a later mark, and that mark is named.
    assert!(stage(vfork, "copy_signal").unwrap()["until"].is_string());
}

#[test]
fn a_large_parent_pays_for_its_memory() {
    inner_test!();
    // It is as much as this machine can hold without swapping.
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let free_mib = free.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024;
    let sizes: &[u64] = if free_mib > 6000 { &[1024, 2048, 4096] } else { &[128, 256, 512] };
    let apart = if sizes[0] >= 1024 { 1.5 } else { 3.0 };
    let mut per_gib = vec![f64::MAX; sizes.len()];
    // Whatever else the machine does only adds to a time, so the least of several rounds counts.
    for round in 1.. {
        for (mib, least) in sizes.iter().zip(&mut per_gib) {
            *least = least.min(copy_mm_per_gib(*mib));
        }
        let least = per_gib.iter().copied().fold(f64::MAX, f64::min);
        let most = per_gib.iter().copied().fold(0.0, f64::max);
        if most / least < apart {
            break;
        }
        assert!(round < 6, "in proportion: {per_gib:?}");
    }
}

/// Forks with so much memory, of which `copy_mm` takes the larger part. Returns its shortest time
/// for a GiB, in nanoseconds.
fn copy_mm_per_gib(mib: u64) -> f64 {
    let lines = traced(&["loop", "--count", "3", "--touch-mib", &mib.to_string()]);
    let mut shares = Vec::new();
    let mut least = f64::MAX;
    for fork in of_type(&lines, "fork") {
        let ns = |value: &Value| value.as_f64().unwrap();
        let mm = ns(&stage(fork, "copy_mm").unwrap()["dur_ns"]);
        shares.push(mm / ns(&fork["total_ns"]));
        least = least.min(mm / ns(&Value::from(mib)) * 1024.0);
        // Each page has an entry of 8 bytes.
        let tables = number(&fork["memory"]["copied_page_table_bytes"]);
        assert!((mib * 2048..mib * 2048 + (4 << 20)).contains(&tables), "{tables}: {fork}");
    }
    let share = median(&mut shares);
    println!("{mib} MiB: {:.1} ms/GiB at least, copy_mm {:.1} %", least / 1e6, share * 100.0);
    // With little memory the rest of a fork weighs more.
    let enough = if mib >= 1024 { 0.9 } else { 0.5 };
    assert!(share > enough, "{shares:?}");
    least
}

#[test]
fn a_failed_attempt_shows_how_far_it_came() {
    inner_test!();
    let lines = traced(&["einval-thread", "eexist-set-tid"]);
    let planned = bounded(&lines);
    let forks = of_type(&lines, "fork");
    let last = |errno: &str| {
        let fork = forks.iter().find(|fork| fork["errno_name"] == errno).unwrap();
        let stages = fork["stages"].as_array().unwrap().iter();
        let failed = stages.filter(|stage| stage["status"] == "failed");
        failed.map(|stage| stage["name"].as_str().unwrap()).collect::<Vec<_>>()
    };
    // The flags are checked before anything is made; only the stage before that has a time.
    assert_eq!(last("EINVAL"), ["clone_flag_checks"]);
    if planned.contains(&"alloc_pid") {
        assert_eq!(last("EEXIST"), ["copy_process", "alloc_pid"]);
    }
}

#[test]
fn the_tracepoint_backend_attaches_no_inner_tracepoint() {
    live_test!();
    let output = run(tool().args(["-v", "--backend", "tracepoint", "--", "true"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("attached task_newtask"), "{said}");
    for inner in ["kmem_cache_alloc", "hrtimer", "mmap_lock", "x86_fpu", "contention"] {
        assert!(!said.contains(inner), "{inner}: {said}");
    }
}

/// Without stages the rest of an attempt is there: its time, its child's start, and why it failed.
#[test]
fn without_stages_the_rest_is_told() {
    live_test!();
    let mut command = Command::new(forker());
    let traced = trace(fork_trace().arg("--stages=none"), command.arg("eagain-nproc")).shown;
    accounted(&traced);
    let start = of_type(&traced, "start")[0];
    let ring_bytes = number(&start["ring_bytes"]);
    assert!(ring_bytes >= 4 << 20 && ring_bytes.is_power_of_two(), "{start}");
    assert!(start["sample_hz"].is_null(), "{start}");
    let coverage = start["coverage"].as_array().unwrap();
    assert!(coverage.iter().all(|stage| stage["precision"] == "missing"), "{start}");
    let forks = of_type(&traced, "fork");
    // A failed attempt still names the stage that its cause knows. Only a wait has a time: the stage in
    // which it was is known from its stack.
    let mut stages = forks.iter().filter_map(|fork| fork["stages"].as_array()).flatten();
    let waited = |stage: &Value| stage["source"] == "switch";
    assert!(stages.all(|stage| stage["dur_ns"].is_null() || waited(stage)), "{forks:?}");
    let made: Vec<_> = forks.iter().filter(|fork| fork["child"].is_object()).collect();
    assert!(made.iter().all(|fork| number(&fork["total_ns"]) > 0), "{made:?}");
    let field = if ARCH.child_passes_exit { "to_user_ns" } else { "queued_ns" };
    assert!(made.iter().any(|fork| number(&fork["child_start"][field]) > 0), "{made:?}");
    let refused: Vec<_> = forks.iter().filter(|fork| fork["errno_name"] == "EAGAIN").collect();
    assert!(!refused.is_empty(), "{forks:?}");
    for fork in refused {
        assert_eq!(fork["cause"]["kind"], "rlimit-nproc", "{fork}");
    }
}
