//! Forks that stand still are told so, with the right time, place and reason: `forker wait` makes one
//! of each kind, and measures it by the caller's own clocks.

use serde_json::Value;

use crate::support::{
    Folder, accounted, check, fork_trace, forker, live_test, number, of_type, read, run, slowness,
    stage, summary,
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

const CASES: [Case; 8] = [
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
];

/// Traces `forker wait TROUBLE`; returns its truth, the fork it tells of, and the whole trace. `None`
/// where this host cannot do it.
fn traced(trouble: &str, options: &[&str]) -> Option<(Value, Value, Vec<Value>)> {
    let folder = Folder::new(&format!("wait-{trouble}"));
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.args(options).arg("-o").arg(&file).arg("--").arg(forker()).args(["wait", trouble]);
    let output = run(&mut tool);
    assert!(output.status.success(), "{trouble}: {}", String::from_utf8_lossy(&output.stderr));
    let truth = crate::support::lines(&output.stdout).remove(0);
    if truth["type"] != "wait" {
        println!("skip {trouble}: {}", truth["skipped"]);
        return None;
    }
    let traced = read(&file);
    check(&traced);
    let fork = of_type(&traced, "fork").into_iter().find(|fork| {
        fork["child"]["tid"] == truth["child"] && fork["parent"]["tid"] == truth["parent_tid"]
    });
    let fork = fork.unwrap_or_else(|| panic!("{trouble} is not shown: {truth}")).clone();
    Some((truth, fork, traced))
}

fn ns(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Within 5 %, or a millisecond that the clocks around a call on a busy machine may differ.
fn close(shown: u64, truth: u64, what: &str) {
    let most = (truth / 20).max((2_000_000.0 * slowness()) as u64);
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
        assert!(work < (50_000_000.0 * slowness()) as u64, "{stage}");
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
    assert_eq!(done["fork"], fork["id"]);
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
    // Its tracer lets it go on after 400 ms.
    let Some((_, fork, _)) = traced("ptrace", &[]) else { return };
    let start = &fork["child_start"];
    assert!(ns(&start["to_user_ns"]) > 390_000_000, "{fork}");
    assert_eq!(start["waits"][0]["reason"], "ptrace-stop", "{fork}");
    assert_eq!(start["waits"][0]["by"]["pid"], fork["parent"]["ptrace"]["tracer_pid"], "{fork}");
}
