//! Forks that stand still are told so, with the right time, place and reason: `forker wait` makes one
//! of each kind, and measures it by the caller's own clocks.

use std::{collections::HashMap, process::Command, time::Duration};

use fork_trace_common::arch::ARCH;
use serde_json::Value;

use crate::support::{
    Background, FileTrace, Folder, fork_trace, forker, lines, live_test, ns, of_type, one_fork,
    read, run, skip, slower, slowness, summary, tool,
};

/// What a kind of trouble has to show.
struct Case {
    trouble: &'static str,
    /// The reason of the longest wait.
    reason: &'static str,
    state: &'static str,
    /// The stage that it is in, where there is one.
    stage: Option<&'static str>,
}

const CASES: [Case; 10] = [
    Case { trouble: "idle", reason: "preempted", state: "runnable", stage: None },
    Case { trouble: "quota", reason: "cpu-quota", state: "runnable", stage: None },
    Case {
        trouble: "mmap-lock",
        reason: "mmap_lock",
        state: "blocked",
        stage: Some("mmap_write_lock"),
    },
    Case {
        trouble: "userfaultfd",
        reason: "userfaultfd",
        state: "blocked",
        stage: Some("dup_mmap"),
    },
    Case {
        trouble: "ptrace",
        reason: "ptrace-stop",
        state: "stopped",
        stage: Some("ptrace_event_pid"),
    },
    Case {
        trouble: "vfork",
        reason: "vfork",
        state: "blocked",
        stage: Some("wait_for_vfork_done"),
    },
    Case { trouble: "freezer", reason: "freezer", state: "blocked", stage: Some("sys_exit") },
    Case {
        trouble: "signal-stop",
        reason: "signal-stop",
        state: "stopped",
        stage: Some("sys_exit"),
    },
    Case {
        trouble: "page-io",
        reason: "page-io",
        state: "blocked",
        stage: Some("copy_clone_args_from_user"),
    },
    Case {
        trouble: "reclaim",
        reason: "reclaim",
        state: "blocked",
        stage: Some("copy_page_range"),
    },
];

/// Traces `forker wait TROUBLE`; returns its truth, the fork it tells of, and the whole trace. `None`
/// where this host cannot do it.
fn traced(trouble: &str, options: &[&str]) -> Option<(Value, Value, Vec<Value>)> {
    let mut tool = fork_trace();
    tool.args(options);
    one_fork(tool, "wait", trouble)
}

/// Within 5 %, or a millisecond that the clocks around a call on a busy machine may differ.
fn close(shown: u64, truth: u64, what: &str) {
    let most = (truth / 20).max(slower(2_000_000));
    assert!(shown.abs_diff(truth) <= most, "{what}: shown {shown}, in truth {truth}");
}

#[test]
fn a_fork_that_stands_still_says_why_and_for_how_long() {
    live_test!();
    for case in CASES {
        let Some((truth, fork, traced)) = traced(case.trouble, &[]) else { continue };
        let took = ns(&truth["end_ns"]) - ns(&truth["start_ns"]);
        close(ns(&fork["held_ns"]), took, &format!("{}: {fork}", case.trouble));
        let waits = fork["waits"].as_array().unwrap_or_else(|| panic!("{fork}"));
        let off: u64 = waits.iter().map(|wait| ns(&wait["dur_ns"])).sum();
        close(off + ns(&fork["waits_more"]["dur_ns"]), took - ns(&truth["cpu_ns"]), case.trouble);
        let longest = waits.iter().max_by_key(|wait| ns(&wait["dur_ns"])).unwrap();
        assert_eq!(longest["reason"], case.reason, "{fork}");
        assert_eq!(longest["state"], case.state, "{fork}");
        if let Some(stage) = case.stage {
            assert_eq!(longest["stage"], stage, "{fork}");
        }
        // It is a wait that made it slow, and it is said to be that one.
        let slow = &fork["slow"];
        assert_eq!(slow["kind"], format!("wait:{}", case.reason), "{fork}");
        assert_eq!(summary(&traced)["accounted"], true);
        assert_eq!(summary(&traced)["lost"], 0);
    }
}

/// What a caller's own clocks tell of its CPU time and of its waits is what is shown, within 5 % or
/// 100 us. Between the call's return and the caller's look at its clock it may be preempted, too: then it has
/// left its CPU once more often than is shown, and its clocks tell of something else.
#[test]
fn forks_beside_busy_tasks_agree_with_the_clocks_of_their_caller() {
    live_test!();
    if slowness() > 1.0 {
        skip!("an emulated caller takes too long to look at its clock");
    }
    let count = std::env::var("FORK_TRACE_FORKS").unwrap_or_else(|_| "150".to_owned());
    let folder = Folder::new("wait-hogs");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.arg("-o").arg(&file).arg("--").arg(forker()).args(["wait", "hogs", "--count", &count]);
    let output = run(&mut tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = read(&file);
    let forks: HashMap<u64, &Value> = of_type(&traced, "fork")
        .into_iter()
        .map(|fork| (ns(&fork["child"]["tid"]), fork))
        .collect();
    let least = slower(100_000);
    let agrees = |shown: u64, truth: u64| shown.abs_diff(truth) <= (truth / 20).max(least);
    let (mut truths, mut wrong, mut waited_ns) = (0_u64, Vec::new(), 0);
    let mut preempted_later = 0;
    for truth in of_type(&lines(&output.stdout), "wait") {
        let fork = forks[&ns(&truth["child"])];
        if fork["waits_incomplete"] == true {
            continue;
        }
        let held = ns(&fork["held_ns"]);
        let waits = fork["waits"].as_array().map(Vec::as_slice).unwrap_or_default();
        let waited: u64 = waits.iter().map(|wait| ns(&wait["dur_ns"])).sum();
        let waited = waited + ns(&fork["waits_more"]["dur_ns"]);
        let took = ns(&truth["end_ns"]) - ns(&truth["start_ns"]);
        let off = took.saturating_sub(ns(&truth["cpu_ns"]));
        // A hypervisor takes time from both that is neither.
        let delay = truth["delay_ns"].as_u64().unwrap_or(off);
        let waits_agree = agrees(waited, off) || agrees(waited, delay);
        let shown = waits.len() as u64 + ns(&fork["waits_more"]["count"]);
        let switches = ns(&truth["switches"]);
        let agrees = agrees(held, took) && waits_agree;
        assert!(shown <= switches, "{shown} waits are shown of {switches}: {fork}");
        if switches > shown && !agrees {
            preempted_later += 1;
            continue;
        }
        if !agrees {
            wrong.push(format!("shown {held} of which waiting {waited}: {truth}"));
        }
        truths += 1;
        waited_ns += off;
    }
    let (ms, wrong_ones) = (waited_ns / 1_000_000, wrong.len() as u64);
    println!(
        "{truths} forks, {ms} ms off their CPUs, {wrong_ones} wrong; {preempted_later} left out"
    );
    // A hypervisor may take a CPU away in the middle of a switch.
    assert!(wrong_ones * 100 <= truths.max(100), "{wrong:#?}");
    assert!(preempted_later * 20 <= truths, "{preempted_later} of {truths}");
}

#[test]
fn a_stage_is_its_work_and_its_waits() {
    live_test!();
    for trouble in ["none", "idle", "userfaultfd", "mmap-lock"] {
        let Some((truth, fork, _)) = traced(trouble, &[]) else { continue };
        let total = ns(&fork["total_ns"]);
        let off = ns(&fork["off_cpu_ns"]);
        close(total - off, ns(&truth["cpu_ns"]), trouble);
        for stage in fork["stages"].as_array().unwrap() {
            assert!(ns(&stage["off_cpu_ns"]) <= ns(&stage["dur_ns"]), "{trouble}: {fork}");
        }
        let copy = |fork: &Value| {
            let stages = fork["stages"].as_array().unwrap().clone();
            stages.into_iter().find(|stage| stage["name"] == "copy_process").unwrap()
        };
        // Everything that these forks wait for, they wait for in there.
        close(ns(&copy(&fork)["off_cpu_ns"]), off, trouble);
    }
}

#[test]
fn a_wait_is_no_work_of_the_stage_after_it() {
    live_test!();
    let Some((_, fork, _)) = traced("userfaultfd", &[]) else { return };
    for stage in fork["stages"].as_array().unwrap() {
        let work = ns(&stage["self_ns"]).saturating_sub(ns(&stage["off_cpu_ns"]));
        assert!(work < slower(50_000_000), "{stage}");
        if !["copy_process", "copy_mm", "dup_mmap", "kernel_clone"]
            .map(Value::from)
            .contains(&stage["name"])
        {
            assert!(ns(&stage["dur_ns"]) < 100_000_000, "{stage}");
        }
    }
}

#[test]
fn a_held_caller_counts_with_its_wait() {
    live_test!();
    // The call itself takes some 50 us.
    let Some((_, fork, traced)) = traced("vfork", &["--min-duration", "300ms"]) else { return };
    assert!(ns(&fork["total_ns"]) < 100_000_000 && ns(&fork["held_ns"]) > 300_000_000, "{fork}");
    let done = of_type(&traced, "vfork_done").remove(0);
    assert_eq!(done["fork_id"], fork["id"]);
    close(ns(&done["held_ns"]), ns(&fork["held_ns"]), "vfork_done");
    let totals = &summary(&traced)["totals"]["vfork"];
    assert!(ns(&totals["max_ns"]) > 300_000_000, "{totals}");
    let output = run(fork_trace().args(["--"]).arg(forker()).args(["wait", "vfork"]));
    let text = String::from_utf8(output.stderr).unwrap();
    let row = text.lines().find(|line| line.contains(" vfork ")).expect(&text);
    assert!(row.contains(" ms "), "{row}");
    assert!(text.contains("why: "), "{text}");
}

#[test]
fn a_child_is_in_user_space_when_its_stops_are_over() {
    live_test!();
    if !ARCH.child_passes_exit {
        skip!("nothing tells of a child's first return on this machine");
    }
    // Its tracer lets it go on after 400 ms.
    let Some((_, fork, _)) = traced("ptrace", &[]) else { return };
    let start = &fork["child_start"];
    assert!(ns(&start["to_user_ns"]) > 390_000_000, "{fork}");
    assert_eq!(start["waits"][0]["reason"], "ptrace-stop", "{fork}");
    assert_eq!(start["waits"][0]["by"]["pid"], fork["parent"]["ptrace"]["tracer_pid"], "{fork}");
}

/// The lines about a held vfork of `forker`.
fn stuck(all: &[Value]) -> Vec<&Value> {
    of_type(all, "stuck").into_iter().filter(|line| line["parent"]["comm"] == "forker").collect()
}

#[test]
fn an_attempt_that_does_not_end_is_told_while_it_lasts() {
    live_test!();
    let mut tool = fork_trace();
    tool.args(["--json", "--"]).arg(forker()).args(["hold-vfork", "--ms", "3500", "--count", "1"]);
    let traced = lines(run(&mut tool).stderr);
    let stuck = stuck(&traced);
    let first = stuck.first().unwrap_or_else(|| panic!("nothing is told of: {traced:?}"));
    assert_eq!(
        (&first["stage"], &first["reason"]),
        (&"wait_for_vfork_done".into(), &"vfork".into())
    );
    assert_eq!(stuck.len(), 1, "once before ten seconds");
    let vfork = of_type(&traced, "fork").into_iter().find(|fork| fork["id"] == first["fork_id"]);
    // It is shown after a second, while its caller is held, and what comes later says how it ended.
    let vfork = vfork.expect("the attempt is shown too");
    assert!(vfork["held_ns"].is_null(), "{vfork}");
    assert_eq!(vfork["warnings"][0]["code"], "still-held", "{vfork}");
    let done = of_type(&traced, "vfork_done").into_iter().find(|done| done["held_ns"].is_u64());
    close(ns(&done.unwrap()["held_ns"]), 3_500_000_000, "vfork_done");
}

#[test]
fn attempts_older_than_the_trace_are_found() {
    live_test!();
    let mut held = Command::new(forker());
    let held = Background::start(held.args(["hold-vfork", "--ms", "60000", "--count", "1"]));
    std::thread::sleep(Duration::from_millis(300));
    let output = run(tool().args(["stuck", "--json"]));
    assert_eq!(output.status.code(), Some(1), "something is stuck");
    let all = lines(output.stdout);
    let one = stuck(&all).remove(0).clone();
    assert_eq!((&one["stage"], &one["reason"]), (&"wait_for_vfork_done".into(), &"vfork".into()));
    assert!(ns(&one["for_ns"]) >= 200_000_000, "{one}");

    let trace = FileTrace::start(&[]);
    let told =
        trace.line(|line| line["type"] == "stuck" && line["parent"]["tid"] == one["parent"]["tid"]);
    assert!(told["since_ns"].is_null() && ns(&told["for_ns"]) >= 1_000_000_000, "{told}");
    trace.stop();
    drop(held);
}
