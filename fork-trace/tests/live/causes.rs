//! The cause of each failed attempt: the tool has to name what `forker` knows that it ran into.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

use crate::support::{
    Folder, fork_trace, forker, is_attempt, lines, live_test, number, of_type, read, run, skip,
    slowness, summary, trace_forker, warned,
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
    // From 6.13 on the kernel now and then skips the program at the return of a call, and then nobody
    // knows the error.
    let pairs: Vec<_> = pairs.filter(|(_, fork)| !warned(fork, "return-not-seen")).collect();
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

/// Kinds that not every attempt proves: the tool says of some that they are likely. What a promise of
/// memory lacks is proved only where a single mapping is too large, and an exec beside the caller may
/// be over by the time the call returns.
const NOT_ALWAYS_CERTAIN: [&str; 3] = ["threads-max", "overcommit", "sibling-exec"];

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
        if (ruled && alone) || (inner && !unread && !NOT_ALWAYS_CERTAIN.contains(&kind)) {
            assert_eq!(cause["confidence"], "certain", "{fork}");
        }
        // Memory may run out between two places that the tool sees, and a signal may come when all
        // stages but the last lock are over.
        let anywhere = ["cgroup-memory", "oom-kill", "signal-pending"].contains(&kind);
        assert!(fork["failed_stage"].is_string() || anywhere, "{fork}");
        values(attempt, fork, kind);
        kinds.insert(kind.to_owned());
    }
    let skipped = truth.last().unwrap()["skipped"].as_array().unwrap();
    // A scenario that cannot run here, such as one that changes a limit of the whole machine, would
    // have had a kind of its own.
    let expected = 19 - skipped.len();
    assert!(kinds.len() >= expected, "only {kinds:?}, skipped {skipped:?}");
}

/// Asserts that limit, value and place are those that `forker` set.
fn values(attempt: &Value, fork: &Value, kind: &str) {
    let cause = &fork["cause"];
    match kind {
        "rlimit-nproc" => {
            assert_eq!(cause["limit"], "RLIMIT_NPROC");
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(3), &Value::from(3)));
            // Before its namespace has a map of ids, the caller's own uid there is nobody's.
            assert_eq!(cause["uid"], fork["parent"]["uid"]);
            let of_namespace = attempt["scenario"] == "eagain-nproc-userns";
            assert_eq!(cause["path"].is_string(), of_namespace, "{fork}");
            assert_eq!(cause["level"].as_u64(), of_namespace.then_some(1));
            let helps = !cause["hint"].as_str().unwrap().contains("ulimit -u inside does not");
            assert_eq!(helps, !of_namespace, "{fork}");
            let io_workers = attempt["scenario"] == "eagain-nproc-io-workers";
            holders(fork, if io_workers { "io-worker" } else { "children" });
        }
        "cgroup-pids" => {
            assert_eq!(cause["limit"], "pids.max");
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(3), &Value::from(3)));
            let zombies = attempt["scenario"] == "eagain-pids-zombies";
            holders(fork, if zombies { "zombie" } else { "children" });
            assert!(own_group(fork), "{fork}");
        }
        "cgroup-memory" => {
            assert_eq!((&cause["limit"], &cause["max"]), (&memory_limit(), &(1 << 20).into()));
            assert!(own_group(fork), "{fork}");
        }
        "oom-kill" => {
            assert_eq!((&cause["limit"], &cause["max"]), (&memory_limit(), &(8 << 20).into()));
            assert!(own_group(fork), "{fork}");
        }
        "signal-pending" => assert!(cause["what"].as_str().unwrap().starts_with("SIGALRM ends")),
        "tracer" => {
            assert_eq!(cause["what"], "clone taken away by a tracer before it began");
            let tracer = &fork["parent"]["ptrace"]["tracer_pid"];
            assert_eq!(tracer, &fork["parent"]["ppid"]);
            assert!(cause["hint"].as_str().unwrap().contains(&format!("process {tracer}")));
            assert_eq!((&fork["ret"], &fork["errno"]), (&Value::Null, &Value::Null), "{fork}");
        }
        "seccomp" => {
            let call = attempt["syscall"].as_str().unwrap();
            assert_eq!(cause["what"], format!("{call} refused by seccomp before it began"));
            let warning = fork["warnings"][0]["text"].as_str().unwrap();
            assert!(warning.starts_with("refused by seccomp"), "{warning}");
        }
        "cgroup-into" => {
            assert!(cause["fd"].is_u64(), "{fork}");
            let bad = cause["rule"] == "into-cgroup-bad-fd";
            assert_eq!(cause["path"].is_string(), !bad, "{fork}");
            // It may have ended before its descriptor could be looked at.
            assert!(!bad || cause["what"].as_str().unwrap().contains("no directory"), "{fork}");
        }
        "pid-max" => {
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(300), &Value::from(301)));
            holders(fork, "children");
        }
        "namespace-limit" if !cause["limit"].is_null() => {
            let net = attempt["scenario"] == "enospc-net";
            let limit = if net { "user.max_net_namespaces" } else { "user.max_user_namespaces" };
            assert_eq!(cause["limit"], limit);
            assert_eq!((&cause["current"], &cause["max"]), (&Value::from(0), &Value::from(0)));
            assert!(cause["path"].as_str().unwrap().starts_with("user:["), "{fork}");
            assert_eq!(cause["level"], 1);
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
            assert_eq!(cause["read_afterwards"], true);
            if attempt["scenario"] == "enomem-mapping" {
                let all = memory_and_swap();
                assert_eq!(number(&cause["max"]), all);
                assert_eq!(number(&cause["asked"]), 2 * ((all / 8 * 5) & !0xfff));
                assert_eq!(cause["confidence"], "certain", "{fork}");
            } else {
                let asked = number(&cause["asked"]);
                assert!(asked >= 500 << 20, "{fork}");
                assert!(number(&cause["current"]) + asked > number(&cause["max"]));
            }
        }
        _ => {}
    }
}

/// As many tasks are told as fill the limit. One is the caller; the others are its children, zombies or
/// not, or workers of its own.
fn holders(fork: &Value, others: &str) {
    let (cause, caller) = (&fork["cause"], &fork["parent"]["pid"]);
    if slowness() > 1.0 && cause["holders"].is_null() {
        // They were gone by the time an emulated CPU came to look.
        return;
    }
    let holders = cause["holders"].as_array().unwrap_or_else(|| panic!("{fork}"));
    let tasks: u64 = holders.iter().map(|tasks| number(&tasks["count"])).sum();
    assert_eq!(tasks, number(&cause["current"]), "{fork}");
    let of_caller = |field: &str, value: &str| {
        let theirs = |tasks: &&Value| tasks[field] == value && tasks["parent"]["pid"] == *caller;
        holders
            .iter()
            .find(theirs)
            .is_some_and(|tasks| number(&tasks["count"]) == tasks_but_one(cause))
    };
    let right = match others {
        "io-worker" => of_caller("kind", "io-worker"),
        "zombie" => of_caller("state", "zombie"),
        _ => holders.iter().all(|tasks| tasks["comm"] == fork["parent"]["comm"]),
    };
    assert!(right, "{others}: {fork}");
}

/// How many tasks fill the limit beside the caller.
fn tasks_but_one(cause: &Value) -> u64 {
    number(&cause["current"]) - 1
}

/// Whether the cause names the group that the process above the caller made.
fn own_group(fork: &Value) -> bool {
    let path = fork["cause"]["path"].as_str().unwrap();
    path.ends_with(&format!("/forker-{}", fork["parent"]["ppid"]))
}

/// What the hierarchy of the memory controller calls its limit.
fn memory_limit() -> Value {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let v1 = mounts.lines().any(|line| {
        let words: Vec<_> = line.split(' ').collect();
        words[2] == "cgroup" && words[3].split(',').any(|option| option == "memory")
    });
    if v1 { "memory.limit_in_bytes".into() } else { "memory.max".into() }
}

/// Bytes of memory and swap together.
fn memory_and_swap() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (kib("MemTotal:") + kib("SwapTotal:")) * 1024
}

/// What the kernel had in its hands as it refused is mostly seen, but on a slow machine not always.
#[test]
fn an_exec_beside_the_caller_is_seen_while_it_refuses() {
    live_test!();
    let (_, pairs) = traced(&["eagain-exec"]);
    let certain = pairs.iter().filter(|(_, fork)| fork["cause"]["confidence"] == "certain").count();
    assert!(pairs.iter().all(|(_, fork)| fork["cause"]["kind"] == "sibling-exec"), "{pairs:?}");
    assert!(certain > 0, "none of {}", pairs.len());
}

/// A C library tries clone where clone3 is refused: nothing has failed.
#[test]
fn a_refused_clone3_and_the_clone_instead_are_one_spawn() {
    live_test!();
    let traced = trace_forker(&["seccomp-fallback"]);
    let (truth, shown) = (traced.truth(), traced.shown);
    let attempts: Vec<_> = of_type(&truth, "attempt")
        .into_iter()
        .filter(|attempt| attempt["note"].as_str().is_none_or(|note| !note.starts_with("helper")))
        .collect();
    let forks = of_type(&shown, "fork");
    let [first, second] =
        [0, 1].map(|place| *forks.iter().find(|fork| is_attempt(fork, attempts[place])).unwrap());
    assert_eq!(first["fell_back_to"], second["id"]);
    assert_eq!(second["fallback"], first["id"]);
    let summary = summary(&shown);
    assert_eq!((&summary["failed"], &summary["fell_back"]), (&0.into(), &1.into()));
    assert_eq!(summary["failures_by_cause"], serde_json::json!({}));
}

/// An id stays taken when its process has ended.
#[test]
fn what_holds_an_id_is_told() {
    live_test!();
    let (_, pairs) = traced(&["eexist-set-tid", "eexist-without-process"]);
    let held: Vec<_> = pairs.iter().map(|(_, fork)| &fork["cause"]["held_by"]["what"]).collect();
    assert_eq!(held, ["process", "zombie", "session"]);
    assert_eq!((&pairs[0].1["cause"]["id"], &pairs[0].1["cause"]["level"]), (&1.into(), &0.into()));
    let comm = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(pairs[0].1["cause"]["held_by"]["comm"], comm.trim_end());
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
