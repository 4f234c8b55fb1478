//! The cause of each failed attempt: the tool has to name what `forker` knows that it ran into.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

use crate::support::{
    Folder, fork_trace, forker, is_attempt, lines, live_test, number, of_type, read, run, skip,
    summary, trace_forker,
};

/// What `forker` did with these arguments, and what the tool showed of each attempt that failed.
fn traced(args: &[&str]) -> (Vec<Value>, Vec<(Value, Value)>) {
    let traced = trace_forker(args);
    let (truth, shown) = (traced.truth(), traced.shown);
    let forks = of_type(&shown, "fork");
    let pairs = of_type(&truth, "attempt").into_iter().filter(|attempt| attempt["errno"].is_u64());
    let pairs = pairs.map(|attempt| {
        let fork = forks.iter().find(|fork| is_attempt(fork, attempt));
        let fork = fork.unwrap_or_else(|| panic!("not shown: {attempt}"));
        (attempt.clone(), (*fork).clone())
    });
    let pairs: Vec<_> = pairs.collect();
    let causes = summary(&shown)["failures_by_cause"].as_object().unwrap();
    let counted: u64 = causes.values().map(number).sum();
    assert_eq!(counted, summary(&shown)["failed"], "{causes:?}");
    (truth, pairs)
}

#[test]
fn random_arguments_get_the_kernel_s_verdict_and_the_right_rule() {
    live_test!();
    let mut rules = BTreeSet::new();
    for seed in ["1", "20251124"] {
        let (truth, pairs) = traced(&["random", "--seed", seed, "--count", "200"]);
        let attempts = of_type(&truth, "attempt");
        // The process that makes them is one attempt more.
        assert_eq!(attempts.len(), 201);
        for attempt in &attempts {
            assert!(attempt["unexpected"].is_null(), "forker is wrong: {attempt}");
        }
        assert!((50..200).contains(&pairs.len()), "{} were refused", pairs.len());
        for (attempt, fork) in &pairs {
            assert_eq!(fork["errno"], attempt["errno"], "{attempt}\n{fork}");
            let cause = &fork["cause"];
            for field in ["cause", "rule"] {
                let told = if field == "cause" { &cause["kind"] } else { &cause["rule"] };
                assert_eq!(told, &attempt[field], "{attempt}\n{fork}");
            }
            assert_eq!(cause["confidence"], "certain", "{fork}");
            rules.insert(cause["rule"].as_str().unwrap().to_owned());
        }
    }
    assert!(rules.len() >= 20, "only {rules:?}");
}

/// Kinds that nothing can prove: the tool says of them that they are likely.
const NEVER_CERTAIN: [&str; 3] = ["permission", "threads-max", "overcommit"];

#[test]
fn every_kind_that_can_be_provoked_is_named() {
    live_test!();
    let (truth, pairs) = traced(&["all"]);
    let mut kinds = BTreeSet::new();
    for (attempt, fork) in &pairs {
        assert!(attempt["unexpected"].is_null(), "forker is wrong: {attempt}");
        let cause = &fork["cause"];
        assert_eq!(cause["kind"], attempt["cause"], "{attempt}\n{fork}");
        assert_eq!(cause["rule"], attempt["rule"], "{attempt}\n{fork}");
        let kind = cause["kind"].as_str().unwrap();
        let ruled = cause["rule"].is_string();
        // Fork's own tracepoints alone tell less of the stage.
        let inner = std::env::var_os("FORK_TRACE_BACKEND").is_none_or(|name| name != "tracepoint");
        // Before 5.14 the counts of namespaces cannot be reached from the caller.
        let unread = kind == "namespace-limit" && cause["limit"].is_null();
        let alone = inner || fork["other_causes"].is_null();
        if (ruled && alone) || (inner && !unread && !NEVER_CERTAIN.contains(&kind)) {
            assert_eq!(cause["confidence"], "certain", "{fork}");
        }
        // Memory may run out between two places that the tool sees.
        assert!(fork["failed_stage"].is_string() || kind == "cgroup-memory", "{fork}");
        values(attempt, fork, kind);
        kinds.insert(kind.to_owned());
    }
    let skipped = truth.last().unwrap()["skipped"].as_array().unwrap();
    // A scenario that cannot run here, such as one that changes a limit of the whole machine, would
    // have had a kind of its own.
    let expected = 15 - skipped.len();
    assert!(kinds.len() >= expected, "only {kinds:?}, skipped {skipped:?}");
}

/// Asserts that limit, value and place are those that `forker` set.
fn values(attempt: &Value, fork: &Value, kind: &str) {
    let cause = &fork["cause"];
    match kind {
        "rlimit-nproc" => {
            assert_eq!(cause["limit"], "RLIMIT_NPROC");
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(3), &Value::from(3)));
            assert_eq!(cause["uid"], fork["parent"]["uid"]);
        }
        "cgroup-pids" => {
            assert_eq!(cause["limit"], "pids.max");
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(3), &Value::from(3)));
            let path = cause["path"].as_str().unwrap();
            // The process above the caller made the group.
            assert!(path.ends_with(&format!("/forker-{}", fork["parent"]["ppid"])), "{path}");
        }
        "cgroup-memory" => {
            assert_eq!((&cause["limit"], &cause["max"]), (&"memory.max".into(), &(1 << 20).into()));
            let path = cause["path"].as_str().unwrap();
            assert!(path.ends_with(&format!("/forker-{}", fork["parent"]["ppid"])), "{path}");
        }
        "pid-max" => {
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(300), &Value::from(301)));
        }
        "namespace-limit" if !cause["limit"].is_null() => {
            let net = attempt["scenario"] == "enospc-net";
            let limit = if net { "user.max_net_namespaces" } else { "user.max_user_namespaces" };
            assert_eq!(cause["limit"], limit);
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(0), &Value::from(0)));
        }
        "pid-namespace-dead" => {
            assert!(cause["path"].as_str().unwrap().starts_with("pid:["), "{fork}");
        }
        "rlimit-nofile" => assert_eq!(cause["max"], 0),
        "threads-max" => {
            assert_eq!((&cause["limit"], &cause["max"]), (&"kernel.threads-max".into(), &1.into()));
        }
        "overcommit" => {
            assert_eq!(cause["limit"], "vm.overcommit_memory");
            assert!(number(&cause["current"]) + (500 << 20) > number(&cause["max"]));
        }
        _ => {}
    }
}

/// The group counts its refusals itself: that is an independent truth.
#[test]
fn what_is_certain_moved_the_group_s_own_counter() {
    live_test!();
    let root = std::path::Path::new("/sys/fs/cgroup/pids");
    if !root.join("cgroup.procs").exists() {
        skip!("there is no version 1 hierarchy of the pids controller");
    }
    let outer = root.join(format!("fork-trace-outer-{}", std::process::id()));
    let inner = outer.join("inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(outer.join("pids.max"), "2").unwrap();
    let folder = Folder::new("counter");
    let file = folder.file("forks.json");
    let script = format!(
        "echo $$ > {}/cgroup.procs; sleep 0.3 & for i in 1 2 3; do (:) 2>/dev/null || :; done; wait",
        inner.display()
    );
    let output = run(fork_trace().arg("-o").arg(&file).args(["--", "bash", "-c", &script]));
    let events = fs::read_to_string(inner.join("pids.events")).unwrap();
    fs::remove_dir(&inner).unwrap();
    fs::remove_dir(&outer).unwrap();
    assert!(output.status.code().is_some());
    let counted: usize =
        events.lines().find_map(|line| line.strip_prefix("max ")).unwrap().parse().unwrap();
    let shown = read(&file);
    let certain: Vec<_> = of_type(&shown, "fork")
        .into_iter()
        .filter(|fork| fork["cause"]["kind"] == "cgroup-pids")
        .filter(|fork| fork["cause"]["confidence"] == "certain")
        .collect();
    assert!(counted > 0, "nothing was refused");
    assert_eq!(certain.len(), counted, "{certain:?}");
    for fork in certain {
        // It was the group above that refused, not the caller's own.
        let path = format!("/{}", outer.file_name().unwrap().to_str().unwrap());
        assert_eq!(fork["cause"]["path"], path.as_str());
        assert_eq!((&fork["cause"]["current"], &fork["cause"]["max"]), (&2.into(), &2.into()));
    }
}

#[test]
fn the_same_seed_makes_the_same_attempts() {
    live_test!();
    let made = || {
        let output = run(Command::new(forker()).args(["random", "--seed", "7", "--count", "40"]));
        let truth = lines(&output.stdout);
        let attempts = of_type(&truth, "attempt");
        let flags = |attempt: &&Value| (attempt["clone_flags"].clone(), attempt["rule"].clone());
        attempts.iter().map(flags).collect::<Vec<_>>()
    };
    assert_eq!(made(), made());
}
