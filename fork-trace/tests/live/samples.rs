//! What a fork does for long between two marks is told by samples: `forker work` makes forks that
//! work in one function, and measures by its own CPU time how long.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    accounted, forker, functions_are_probed, lines, live_test, ns, of_type, one_fork, run,
    sampling_fork_trace, skip, slower, stage, summary, tool, trace,
};

/// Each kind of work, and the stage that it is.
const WORKS: [(&str, &str); 2] =
    [("anon-vma", "anon_vma_fork"), ("perf-events", "perf_event_init_task")];

/// Traces `forker work WORK`; returns its truth, the fork it tells of, and the whole trace. `None`
/// where this host cannot do it.
fn traced(work: &str, options: &[&str]) -> Option<(Value, Value, Vec<Value>)> {
    let mut tool = if options.contains(&"--backend") { tool() } else { sampling_fork_trace() };
    tool.args(options);
    one_fork(tool, "work", work)
}

fn is_sampled(stage: &&Value) -> bool {
    stage["precision"] == "sampled"
}

fn sampled(fork: &Value) -> Vec<&Value> {
    fork["stages"].as_array().unwrap().iter().filter(is_sampled).collect()
}

/// Whether samples can be taken here.
fn can_sample(traced: &[Value]) -> bool {
    of_type(traced, "warning").iter().all(|warning| warning["code"] != "no-samples")
}

/// How long samples say that a stage took, in whichever stages it was seen.
fn sampled_ns(fork: &Value, name: &str) -> u64 {
    let rows = sampled(fork).into_iter().filter(|stage| stage["name"] == name);
    rows.map(|stage| ns(&stage["dur_ns"])).sum()
}

#[test]
fn a_fork_that_works_for_long_says_at_what() {
    live_test!();
    for (work, name) in WORKS {
        // Here no marks bound what they work at.
        let Some((truth, fork, traced)) = traced(work, &["--backend", "tracepoint"]) else {
            continue;
        };
        if !can_sample(&traced) {
            skip!("this host takes no samples");
        }
        let held = ns(&fork["held_ns"]);
        // What the caller worked beyond that is no fork any more: faults on its way out of the C library.
        let cpu = ns(&truth["cpu_ns"]).min(held);
        let extra = cpu.saturating_sub(ns(&truth["without_ns"]));
        let shown = sampled_ns(&fork, name);
        // The first fork of a process that has just started is slower than a later one.
        let most = (cpu / 8).max(slower(3_000_000));
        assert!(shown.abs_diff(extra) <= most, "{work}: shown {shown}, in truth {extra}: {fork}");
        let row = sampled(&fork).into_iter().find(|stage| stage["name"] == name).unwrap();
        assert_eq!((&row["of"], &row["source"]), (&"copy_process".into(), &"sample".into()));
        if shown * 2 > held && held > 10_000_000 {
            assert_eq!(fork["slow"]["kind"], format!("work:{name}"), "{fork}");
            let text = fork["slow"]["text"].as_str().unwrap();
            assert!(text.contains(&format!("by {} samples", row["samples"])), "{text}");
        }
        let start = &of_type(&traced, "start")[0]["coverage"];
        let told = start.as_array().unwrap().iter().find(|stage| stage["name"] == name).unwrap();
        assert_eq!(told["precision"], "sampled", "{told}");
        assert_eq!(summary(&traced)["accounted"], true);
        assert_eq!(summary(&traced)["lost"], 0);
    }
}

#[test]
fn samples_change_no_sum() {
    live_test!();
    for (work, _) in WORKS {
        let Some((_, fork, traced)) = traced(work, &[]) else { continue };
        if !can_sample(&traced) {
            skip!("this host takes no samples");
        }
        let stages = fork["stages"].as_array().unwrap();
        let own: u64 = stages.iter().map(|stage| ns(&stage["self_ns"])).sum();
        assert_eq!(own + ns(&fork["other_ns"]), ns(&fork["total_ns"]), "{fork}");
        for row in sampled(&fork) {
            assert!(row["self_ns"].is_null() && ns(&row["samples"]) >= 5, "{row}");
            let of = stages.iter().filter(|stage| stage["name"] == row["of"]);
            let Some(of) = of.into_iter().find(|stage| !is_sampled(stage)) else { continue };
            let shares = sampled(&fork).into_iter().filter(|other| other["of"] == row["of"]);
            let shares: u64 = shares.map(|share| ns(&share["dur_ns"])).sum();
            assert!(shares <= ns(&of["self_ns"]), "{fork}");
        }
    }
}

#[test]
fn where_functions_are_probed_samples_say_the_same() {
    live_test!();
    for (work, name) in WORKS {
        let Some((_, exact, traced)) = traced(work, &["--stages=all"]) else { continue };
        if !functions_are_probed(&traced) {
            skip!("this kernel, or the backend asked for, probes no functions");
        }
        let row = stage(&exact, name).unwrap();
        assert_eq!(row["precision"], "exact", "{row}");
        assert!(sampled(&exact).iter().all(|row| row["name"] != name), "{exact}");
        let exact_ns = ns(&row["dur_ns"]).saturating_sub(ns(&row["off_cpu_ns"]));
        let (truth, fork, traced) = self::traced(work, &["--backend", "tracepoint"]).unwrap();
        if !can_sample(&traced) {
            skip!("this host takes no samples");
        }
        // Two forks of two processes, one of them with probes that cost time.
        let shown = sampled_ns(&fork, name);
        let most = (exact_ns / 4).max(slower(3_000_000));
        assert!(shown.abs_diff(exact_ns) <= most, "{work}: {shown}, exact {exact_ns}: {truth}");
    }
}

#[test]
fn without_samples_nothing_is_split() {
    live_test!();
    let Some((_, fork, traced)) = traced("anon-vma", &["--sample", "0"]) else { return };
    assert_eq!(sampled(&fork), Vec::<&Value>::new());
    let start = of_type(&traced, "start")[0];
    assert!(start["sample_hz"].is_null(), "{start}");
    assert!(start["coverage"].as_array().unwrap().iter().all(|stage| !is_sampled(&stage)));
}

#[test]
fn a_short_fork_is_told_as_before() {
    live_test!();
    let traced =
        trace(&mut sampling_fork_trace(), Command::new(forker()).args(["loop", "--count", "300"]));
    accounted(&traced.shown);
    for fork in of_type(&traced.shown, "fork") {
        // A handful of samples takes five milliseconds.
        assert!(ns(&fork["total_ns"]) > 4_000_000 || sampled(fork).is_empty(), "{fork}");
    }
}

#[test]
fn doctor_says_what_samples_can_tell() {
    live_test!();
    let output = run(tool().args(["doctor", "--json"]));
    let doctor = lines(&output.stdout).remove(0);
    let text = String::from_utf8(run(tool().arg("doctor")).stdout).unwrap();
    let reason = doctor["no_samples"].as_str();
    assert_eq!(text.contains("samples   of kernel stacks cannot be taken"), reason.is_some());
    let all = doctor["coverage"].as_array().unwrap();
    let told = all.iter().find(|stage| stage["name"] == "try_to_free_pages").unwrap();
    let expected = if reason.is_some() { "missing" } else { "sampled" };
    assert_eq!(told["precision"], expected, "{told}");
}
