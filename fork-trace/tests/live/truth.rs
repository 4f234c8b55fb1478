//! Every attempt that `forker` made is shown, and shown as it was.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use fork_trace_common::arch::ARCH;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Background, FileTrace, Folder, HostTrace, Mount, accounted, check, fork_trace, forker,
    functions_are_probed, is_attempt, lines, live_test, number, of_type, run, summary, tool,
    trace_forker, warned,
};

/// Fields that the two name alike.
const SAME: [&str; 6] = ["kind", "syscall", "clone_flags", "exit_signal", "ret", "errno"];

/// Whether this field is one that the kernel never read, so that a tracer cannot know it.
fn unknowable(attempt: &Value, field: &str) -> bool {
    match attempt["scenario"].as_str() {
        // The struct cannot be read.
        Some("efault-clone3") => ["kind", "clone_flags", "exit_signal"].contains(&field),
        // The struct is too short to hold it.
        Some("einval-clone3-size") => field == "exit_signal",
        // The tracer says what the call returns after the last moment that is seen.
        Some("tracer") if attempt["cause"] == "tracer" => ["ret", "errno"].contains(&field),
        _ => false,
    }
}

/// Compares one attempt; returns what differs.
fn differences(attempt: &Value, fork: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let took = number(&attempt["end_ns"]) - number(&attempt["start_ns"]);
    if let Some(total) = fork["total_ns"].as_u64()
        && total > took
    {
        found.push(format!("total: {total} ns within {took} ns of the caller's clock"));
    }
    let mut same = |what: &str, truth: &Value, shown: &Value| {
        if truth != shown {
            found.push(format!("{what}: {truth} was shown as {shown}"));
        }
    };
    // From 6.13 on the kernel skips a program of the system call tracepoints now and then.
    let warned = |code: &str| warned(fork, code);
    let in_part = warned("entry-not-seen") || warned("return-not-seen");
    let refused = !attempt["errno"].is_null();
    let note = attempt["note"].as_str().unwrap_or_default();
    for field in SAME {
        // The caller was killed in the call, and the kernel gives it one of two errors.
        if note.starts_with("never returned") && ["ret", "errno"].contains(&field) {
            let either = ["ENOMEM", "EINTR"].map(Value::from);
            same(field, &true.into(), &either.contains(&fork["errno_name"]).into());
            continue;
        }
        // Where the entry was skipped, nobody read the caller's arguments.
        if in_part && ["syscall", "clone_flags", "exit_signal"].contains(&field) {
            continue;
        }
        // Only the return of a call says what it was refused with.
        let unseen = refused && warned("return-not-seen") && ["ret", "errno"].contains(&field);
        if unseen || unknowable(attempt, field) {
            same(field, &Value::Null, &fork[field]);
        } else {
            same(field, &attempt[field], &fork[field]);
        }
    }
    same("parent pid", &attempt["parent_pid"], &fork["parent"]["pid"]);
    let child = match &attempt["child_host_pid"] {
        Value::Null => &attempt["child_pid"],
        in_host => in_host,
    };
    same("child", child, &fork["child"]["tid"]);
    // Only a refusal before the call has no total.
    let before = ["seccomp", "tracer"];
    let before = attempt["scenario"]
        .as_str()
        .is_some_and(|name| before.iter().any(|before| name.starts_with(before)));
    let total = fork["total_ns"].is_u64() || in_part;
    same("has a total", &Value::from(!(before && refused)), &Value::from(total));
    found
}

/// Pairs attempts and forks by caller and time, and compares each pair.
fn agree(truth: &[Value], traced: &[Value]) {
    let attempts = of_type(truth, "attempt");
    let mut forks = of_type(traced, "fork");
    assert!(!attempts.is_empty());
    let mut wrong = Vec::new();
    for attempt in &attempts {
        match forks.iter().position(|fork| is_attempt(fork, attempt)) {
            None => wrong.push(format!("not shown: {attempt}")),
            Some(place) => {
                let found = differences(attempt, forks.remove(place));
                if !found.is_empty() {
                    wrong.push(format!("{}: {}", attempt["scenario"], found.join("; ")));
                }
            }
        }
    }
    wrong.extend(forks.iter().map(|fork| format!("never made: {fork}")));
    assert!(wrong.is_empty(), "of {} attempts:\n{}", attempts.len(), wrong.join("\n"));
}

#[test]
fn every_attempt_is_shown_as_it_was() {
    live_test!();
    let traced = trace_forker(&["all"]);
    let (truth, traced) = (traced.truth(), traced.shown);
    let done = truth.last().unwrap();
    // The first would change a limit of the whole host before 6.14, the next two would do so
    // outside a guest. The last two need a limit that namespaces have since 5.14, and workers that
    // count for a user since 5.12.
    const MAY_BE_SKIPPED: [&str; 5] = [
        "eagain-pid-max",
        "eagain-threads-max",
        "enomem-overcommit",
        "eagain-nproc-userns",
        "eagain-nproc-io-workers",
    ];
    let skipped = done["skipped"].as_array().unwrap();
    let may_be = |one: &Value| {
        let name = one["scenario"].as_str().unwrap();
        MAY_BE_SKIPPED.contains(&name) || ARCH.name != "x86_64" && name.starts_with("i386-")
    };
    assert!(skipped.iter().all(may_be), "{skipped:?}");
    agree(&truth, &traced);
    assert_eq!(summary(&traced)["lost"], 0);
    accounted(&traced);

    // A flood of signals makes the kernel restart some calls, seldom none; each is one attempt.
    let restarted = |lines: &[Value]| of_type(lines, "fork").iter().any(|f| f["restarts"].is_u64());
    let again = || (0..5).any(|_| restarted(&trace_forker(&["restart"]).shown));
    let restarted = restarted(&traced) || again();
    assert!(restarted, "no call was restarted");
}

#[test]
fn the_whole_host_shows_the_same() {
    live_test!();
    let trace = FileTrace::start(&[]);
    let output = run(Command::new(forker()).args(["--repeat", "3"]));
    let (truth, traced) = (lines(&output.stdout), trace.stop());
    // Others fork on this host too.
    let callers: Vec<_> = of_type(&truth, "attempt").iter().map(|a| &a["parent_tid"]).collect();
    let began = &of_type(&truth, "attempt")[0]["start_ns"];
    let ours: Vec<Value> = traced
        .iter()
        .filter(|line| line["type"] == "fork")
        .filter(|fork| callers.contains(&&fork["parent"]["tid"]))
        .filter(|fork| number(&fork["mono_ns"]) >= number(began))
        .cloned()
        .collect();
    agree(&truth, &ours);
    accounted(&traced);
}

#[test]
fn calls_under_way_when_tracing_begins_are_not_mistaken() {
    live_test!();
    let held = ["hold-vfork", "--ms", "700", "--count", "8"];
    let child = Command::new(forker()).args(held).stdout(Stdio::piped()).spawn().unwrap();
    let holder = child.id();
    std::thread::sleep(Duration::from_millis(200));
    let trace = FileTrace::start(&[]);
    let output = child.wait_with_output().unwrap();
    let traced = trace.stop();
    let attempts = lines(&output.stdout);
    let vforkers: Vec<_> = of_type(&attempts, "attempt")
        .into_iter()
        .filter(|attempt| attempt["kind"] == "vfork")
        .map(|attempt| attempt["parent_tid"].clone())
        .collect();
    assert_eq!(vforkers.len(), 8);
    for fork in of_type(&traced, "fork") {
        assert!(!vforkers.contains(&fork["parent"]["tid"]), "of process {holder}: {fork}");
    }
    accounted(&traced);
}

#[test]
fn a_vfork_is_shown_while_its_parent_still_waits() {
    live_test!();
    let trace = FileTrace::start(&[]);
    let held = ["hold-vfork", "--ms", "60000", "--count", "1"];
    let forker = Background::start(Command::new(forker()).args(held));
    // Others make vforks on this host too.
    let own = |line: &Value| line["kind"] == "vfork" && line["parent"]["ppid"] == forker.pid();
    let shown = trace.line(own);
    drop(forker);
    trace.stop();
    assert_eq!(shown["ret"], shown["child"]["tid"]);
    assert!(number(&shown["total_ns"]) < 50_000_000, "the wait is not part of it: {shown}");
    let start = &shown["child_start"];
    assert!(start["cpu"].is_u64(), "{shown}");
    assert_eq!(start["to_user_ns"].is_u64(), ARCH.child_passes_exit, "{shown}");
}

#[test]
fn replay_gives_back_every_byte() {
    live_test!();
    let folder = Folder::new("replay");
    let file = folder.file("forks.json");
    let output = run(fork_trace().arg("-o").arg(&file).arg("--").arg(forker()));
    assert!(output.status.success());
    let again = run(tool().arg("replay").arg(&file).arg("--json"));
    assert!(again.status.success());
    assert_eq!(again.stdout, fs::read(&file).unwrap());
}

#[test]
fn a_program_that_the_kernel_starts_is_of_kind_other() {
    live_test!();
    // In a control group hierarchy of its own, without controllers, the kernel starts an agent when
    // a group becomes empty.
    let options = format!("none,name=fork-trace-{}", std::process::id());
    let hierarchy = Mount::new("agent", "cgroup", &["-o", &options]);
    let group = hierarchy.path().join("group");
    fs::create_dir(&group).unwrap();
    fs::write(hierarchy.path().join("release_agent"), "/bin/true").unwrap();
    fs::write(group.join("notify_on_release"), "1").unwrap();

    let trace = HostTrace::start(&["--json"]);
    let script = format!("echo $$ > {}/cgroup.procs", group.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    let output = trace.stop(Signal::SIGINT);
    fs::remove_dir(&group).unwrap();

    let traced = lines(&output.stdout);
    check(&traced);
    // Before 6.1 the kernel starts the agent as one of its own threads, which are only counted.
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    if !symbols.contains(" user_mode_thread\n") {
        assert!(number(&summary(&traced)["filtered"]) > 0);
        accounted(&traced);
        return;
    }
    let other: Vec<_> =
        of_type(&traced, "fork").into_iter().filter(|fork| fork["kind"] == "other").collect();
    assert!(!other.is_empty(), "the agent's start was not shown");
    for fork in other {
        assert!(fork["parent"]["comm"].as_str().unwrap().starts_with("kworker"), "{fork}");
        assert!(fork["child"]["pid"].is_u64(), "{fork}");
        assert!(fork["syscall"].is_null() && fork["ret"].is_null(), "{fork}");
        // There is no system call; where functions are probed, the attempt begins with the first of
        // them.
        let probed = functions_are_probed(&traced);
        let first = &fork["stages"][0];
        assert_eq!(fork["total_ns"].is_u64(), probed, "{fork}");
        assert_eq!(fork["other_ns"].is_u64(), probed, "{fork}");
        assert_eq!(first["name"] == "kernel_clone" && first["start_ns"] == 0, probed, "{fork}");
    }
    accounted(&traced);
}
