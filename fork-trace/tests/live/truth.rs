//! Every attempt that `forker` made is shown, and shown as it was.

use std::{fs, process::Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Folder, HostTrace, check, fork_trace, forker, here, kill, lines, of_type, read, run, summary,
    tool,
};

/// Fields that the two name alike.
const SAME: [&str; 6] = ["kind", "syscall", "clone_flags", "exit_signal", "ret", "errno"];

/// What the kernel never read and a tracer cannot know.
fn unknowable(attempt: &Value, field: &str) -> bool {
    match attempt["scenario"].as_str() {
        // A struct that cannot be read.
        Some("efault-clone3") => ["kind", "clone_flags", "exit_signal"].contains(&field),
        // A struct too short to hold it.
        Some("einval-clone3-size") => field == "exit_signal",
        _ => false,
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
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
    let warned = |code: &str| {
        let warnings = fork["warnings"].as_array();
        warnings.is_some_and(|warnings| warnings.iter().any(|warning| warning["code"] == code))
    };
    let in_part = warned("entry-not-seen") || warned("return-not-seen");
    let refused = !attempt["errno"].is_null();
    for field in SAME {
        // Then the caller's arguments were not read either.
        if in_part && ["syscall", "clone_flags", "exit_signal"].contains(&field) {
            continue;
        }
        // What it was refused with is known from its return alone.
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
    let before = attempt["scenario"].as_str().is_some_and(|name| name.starts_with("seccomp"));
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
        let time = number(&attempt["start_ns"])..=number(&attempt["end_ns"]);
        let same = |fork: &&Value| {
            fork["parent"]["tid"] == attempt["parent_tid"]
                && time.contains(&number(&fork["mono_ns"]))
        };
        match forks.iter().position(same) {
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
    if !here("every_attempt_is_shown_as_it_was") {
        return;
    }
    let folder = Folder::new("truth");
    let file = folder.file("forks.json");
    let output = run(fork_trace().arg("-o").arg(&file).arg("--").arg(forker()).arg("all"));
    assert!(output.status.success());
    let (truth, traced) = (lines(&output.stdout), read(&file));
    let done = truth.last().unwrap();
    // They would change a limit of the whole host: one before 6.14, the others but in a guest.
    const WHOLE: [&str; 3] = ["eagain-pid-max", "eagain-threads-max", "enomem-overcommit"];
    let skipped = done["skipped"].as_array().unwrap();
    let whole = |one: &Value| WHOLE.iter().any(|name| one["scenario"] == *name);
    assert!(skipped.iter().all(whole), "{skipped:?}");
    check(&traced);
    agree(&truth, &traced);
    assert_eq!(summary(&traced)["lost"], 0);
    assert_eq!(summary(&traced)["accounted"], true);

    // The flood of signals made the kernel restart some calls; each is one attempt.
    let restarted = of_type(&traced, "fork").iter().any(|fork| fork["restarts"].is_u64());
    assert!(restarted, "no call was restarted");
}

#[test]
fn the_whole_host_shows_the_same() {
    if !here("the_whole_host_shows_the_same") {
        return;
    }
    let folder = Folder::new("host");
    let file = folder.file("forks.json");
    let trace = HostTrace::start(&["-o", file.to_str().unwrap()]);
    let output = run(std::process::Command::new(forker()).arg("--repeat").arg("3"));
    assert!(trace.stop(Signal::SIGINT).status.success());
    let (truth, traced) = (lines(&output.stdout), read(&file));
    check(&traced);
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
    assert_eq!(summary(&traced)["accounted"], true, "{}", summary(&traced));
}

#[test]
fn calls_under_way_when_tracing_begins_are_not_mistaken() {
    if !here("calls_under_way_when_tracing_begins_are_not_mistaken") {
        return;
    }
    let folder = Folder::new("under-way");
    let file = folder.file("forks.json");
    let held = ["hold-vfork", "--ms", "700", "--count", "8"];
    let child =
        std::process::Command::new(forker()).args(held).stdout(Stdio::piped()).spawn().unwrap();
    let holder = child.id();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let trace = HostTrace::start(&["-o", file.to_str().unwrap()]);
    let output = child.wait_with_output().unwrap();
    assert!(trace.stop(Signal::SIGINT).status.success());
    let traced = read(&file);
    check(&traced);
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
    assert_eq!(summary(&traced)["accounted"], true, "{}", summary(&traced));
}

#[test]
fn a_vfork_is_shown_while_its_parent_still_waits() {
    if !here("a_vfork_is_shown_while_its_parent_still_waits") {
        return;
    }
    let folder = Folder::new("vfork");
    let file = folder.file("forks.json");
    let trace = HostTrace::start(&["-o", file.to_str().unwrap()]);
    let held = ["hold-vfork", "--ms", "60000", "--count", "1"];
    let mut child =
        std::process::Command::new(forker()).args(held).stdout(Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    let shown = loop {
        let text = fs::read_to_string(&file).unwrap();
        let vfork = text.lines().find(|line| line.contains(r#""kind":"vfork""#));
        if let Some(Ok(line)) = vfork.map(serde_json::from_str::<Value>) {
            break line;
        }
        assert!(began.elapsed().as_secs() < 5, "the vfork was not shown");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    kill(child.id(), Signal::SIGTERM);
    child.wait().unwrap();
    assert!(trace.stop(Signal::SIGINT).status.success());
    assert_eq!(shown["ret"], shown["child"]["tid"]);
    assert!(number(&shown["total_ns"]) < 50_000_000, "the wait is not part of it: {shown}");
    assert!(shown["child_start"]["to_user_ns"].is_u64(), "{shown}");
}

#[test]
fn replay_gives_back_every_byte() {
    if !here("replay_gives_back_every_byte") {
        return;
    }
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
    if !here("a_program_that_the_kernel_starts_is_of_kind_other") {
        return;
    }
    // A control group hierarchy of its own, without controllers: the kernel starts its agent when
    // a group is empty.
    let folder = Folder::new("agent");
    let mount = |args: &[&str]| {
        let mut mount = std::process::Command::new("mount");
        mount.args(args).arg(folder.path()).status().unwrap()
    };
    assert!(mount(&["-t", "cgroup", "-o", "none,name=fork-trace-test", "none"]).success());
    let group = folder.path().join("group");
    fs::create_dir(&group).unwrap();
    fs::write(folder.path().join("release_agent"), "/bin/true").unwrap();
    fs::write(group.join("notify_on_release"), "1").unwrap();

    let trace = HostTrace::start(&["--json"]);
    let script = format!("echo $$ > {}/cgroup.procs", group.display());
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(300));
    let output = trace.stop(Signal::SIGINT);
    fs::remove_dir(&group).unwrap();
    std::process::Command::new("umount").arg(folder.path()).status().unwrap();

    let traced = lines(&output.stdout);
    check(&traced);
    // Before 6.1 the kernel starts it as one of its own threads, which are counted only.
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    if !symbols.contains(" user_mode_thread\n") {
        assert!(summary(&traced)["filtered"].as_u64().unwrap() > 0);
        assert_eq!(summary(&traced)["accounted"], true, "{}", summary(&traced));
        return;
    }
    let other: Vec<_> =
        of_type(&traced, "fork").into_iter().filter(|fork| fork["kind"] == "other").collect();
    assert!(!other.is_empty(), "the agent's start was not shown");
    for fork in other {
        assert!(fork["parent"]["comm"].as_str().unwrap().starts_with("kworker"), "{fork}");
        assert!(fork["child"]["pid"].is_u64(), "{fork}");
        assert!(fork["syscall"].is_null() && fork["ret"].is_null(), "{fork}");
        // It has no call; where functions are probed it begins with the first of them.
        let probed = traced[0]["backend"] == "fentry" || traced[0]["backend"] == "kprobe";
        let first = &fork["stages"][0];
        assert_eq!(fork["total_ns"].is_u64(), probed, "{fork}");
        assert_eq!(fork["other_ns"].is_u64(), probed, "{fork}");
        assert_eq!(first["name"] == "kernel_clone" && first["start_ns"] == 0, probed, "{fork}");
    }
    assert_eq!(summary(&traced)["accounted"], true, "{}", summary(&traced));
}
