//! What surrounds a fork: the caller's memory, the caller itself, and what is worth a warning.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    Cgroup, Folder, accounted, fork_trace, forker, is_attempt, lines, live_test, number, of_type,
    python, run, skip, slowness, trace, trace_forker,
};

/// Traces a Python program; returns what it printed and what was shown.
fn traced_python(python: &str, program: &str) -> (String, Vec<Value>) {
    let folder = Folder::new("python");
    let script = folder.file("x.py");
    fs::write(&script, program).unwrap();
    let traced = trace(&mut fork_trace(), Command::new(python).arg(&script));
    (String::from_utf8(traced.stdout).unwrap(), traced.shown)
}

/// A Python program that touches memory, asks `/proc` how much it has, and forks at once.
const MEMORY: &str = r#"
import json, mmap, os
area = mmap.mmap(-1, 96 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(area), 4096): area[at] = 1
names = ["status", "maps", "smaps_rollup"]
for _ in range(2):
    texts = []
    for name in names:
        fd = os.open("/proc/self/" + name, os.O_RDONLY)
        parts = []
        while part := os.read(fd, 1 << 16): parts.append(part)
        os.close(fd)
        texts.append(b"".join(parts))
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
fields = {}
for text in [texts[0], texts[2]]:
    for line in text.decode().splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"): fields[name] = int(rest.split()[0])
# The vsyscall page is listed, but no mapping.
fields["vmas"] = sum(b"[vsyscall]" not in line for line in texts[1].splitlines())
print(json.dumps(fields))
"#;

#[test]
fn the_memory_cost_is_what_proc_says() {
    live_test!();
    let Some(python) = python() else { skip!("there is no Python") };
    let (said, traced) = traced_python(python, MEMORY);
    let proc: Value = serde_json::from_str(&said).unwrap();
    let forks = of_type(&traced, "fork");
    let [fork] = forks[..] else { panic!("{forks:?}") };
    let memory = &fork["memory"];
    let kib = |field: &str| number(&proc[field]);
    // Python itself may map and touch a little between the last look and the fork.
    let near = |what: &str, pages: u64, kib: u64, tolerance: u64| {
        let difference = (pages * 4).abs_diff(kib);
        assert!(difference <= tolerance, "{what}: {} KiB, /proc says {kib}: {memory}", pages * 4);
    };
    assert!(number(&memory["vmas"]).abs_diff(number(&proc["vmas"])) <= 2, "{memory} {proc}");
    near("VmSize", number(&memory["total_vm_pages"]), kib("VmSize"), 1024);
    near("VmPTE", number(&memory["page_table_bytes"]) / 4096, kib("VmPTE"), 64);
    let error = memory["rss_error_pages"].as_u64().unwrap_or(0) * 4;
    near("VmRSS", number(&memory["rss_pages"]), kib("Rss"), 256 + 3 * error);
    near("Anonymous", number(&memory["anon_pages"]), kib("Anonymous"), 256 + error);
    assert!(number(&memory["anon_pages"]) * 4096 >= 96 << 20, "{memory}");
}

#[test]
fn only_a_copy_of_the_memory_has_a_cost() {
    live_test!();
    let scenarios = ["fork-libc", "vfork", "thread", "clone-vm", "einval-thread", "clone3-88"];
    let traced = trace_forker(&scenarios).shown;
    let mut costs = 0;
    for fork in of_type(&traced, "fork") {
        let copied = fork["memory"]["copied_vmas"].is_u64();
        assert_eq!(fork["memory"]["vmas"].is_u64(), copied, "{fork}");
        costs += usize::from(fork["memory"].is_object());
    }
    assert_eq!(costs, 2);
}

#[test]
fn no_fork_but_a_slow_one_has_a_verdict() {
    live_test!();
    for fork in of_type(&trace_forker(&["all"]).shown, "fork") {
        let slow = fork["held_ns"].as_u64().is_some_and(|held| held >= 10_000_000);
        assert!(slow || !fork["slow"].is_object(), "{fork}");
    }
}

/// A Python program with three threads that hold nothing; it does `what`.
fn threads(what: &str) -> String {
    format!(
        "import os, subprocess, sys, threading, time\nstop = threading.Event()\n\
         for _ in range(3): threading.Thread(target=stop.wait).start()\n{what}\nstop.set()\n"
    )
}

#[test]
fn a_fork_with_threads_and_no_exec_is_warned_about() {
    live_test!();
    let Some(python) = python() else { skip!("there is no Python") };
    let program = threads(
        "pid = os.fork()\nif pid == 0:\n time.sleep(2)\n os._exit(0)\nos.waitpid(pid, 0)\nprint(pid)",
    );
    let (said, traced) = traced_python(python, &program);
    let warnings = of_type(&traced, "warning");
    let [warning] = warnings[..] else { panic!("{warnings:?}") };
    assert_eq!(warning["code"], "threads-without-exec");
    let text = warning["text"].as_str().unwrap();
    assert!(text.contains("had 4 threads"), "{text}");
    assert_eq!(text.matches("x.py").count(), 2, "both command lines: {text}");
    let forks = of_type(&traced, "fork");
    let fork = forks.iter().find(|fork| fork["id"] == warning["fork_id"]).unwrap();
    assert_eq!(fork["child"]["pid"].to_string(), said.trim());
    assert_eq!(fork["parent"]["threads"], 4);
}

#[test]
fn programs_started_from_threads_are_not_warned_about() {
    live_test!();
    let Some(python) = python() else { skip!("there is no Python") };
    // They are started by vfork, by fork and exec, and by posix_spawn; each outlives the limit.
    let program = threads(
        "subprocess.run(['sleep', '1.5'])\n\
         subprocess.run(['sleep', '1.5'], preexec_fn=lambda: None)\n\
         os.waitpid(os.posix_spawn('/bin/sleep', ['sleep', '1.5'], os.environ), 0)",
    );
    let (_, traced) = traced_python(python, &program);
    let warnings = of_type(&traced, "warning");
    assert!(warnings.is_empty(), "{warnings:?}");
    let kinds: Vec<_> = of_type(&traced, "fork").iter().map(|fork| &fork["kind"]).collect();
    assert!(kinds.iter().any(|kind| *kind == "process"), "one copied its memory: {kinds:?}");
}

#[test]
fn a_storm_is_warned_about_once() {
    live_test!();
    if slowness() > 1.0 {
        skip!("this machine is too slow for a storm");
    }
    let traced = trace_forker(&["loop", "--count", "8000"]).shown;
    let warnings = of_type(&traced, "warning");
    let [warning] = warnings[..] else { panic!("{warnings:?}") };
    assert_eq!(warning["code"], "fork-storm");
    assert!(warning["text"].as_str().unwrap().starts_with("forker ("), "{warning}");
    accounted(&traced);
}

#[test]
fn callers_are_known_in_their_own_namespace_and_by_whom_they_fork_for() {
    live_test!();
    let scenarios = ["clone-parent", "in-pidns", "eexist-set-tid", "fork-libc"];
    let output = run(fork_trace().args(["--json", "--"]).arg(forker()).args(scenarios));
    assert!(output.status.success());
    let (truth, traced) = (lines(&output.stdout), lines(&output.stderr));
    let mut siblings = 0;
    for attempt in of_type(&truth, "attempt") {
        let forks = of_type(&traced, "fork");
        let fork = forks.iter().find(|fork| is_attempt(fork, attempt)).unwrap();
        let parent = &fork["parent"];
        let name = attempt["scenario"].as_str().unwrap();
        let flags = fork["clone_flags_names"].as_array().cloned().unwrap_or_default();
        let sibling = flags.contains(&Value::from("CLONE_PARENT"));
        let real = if sibling { &parent["ppid"] } else { &Value::Null };
        assert_eq!(&parent["real_parent_pid"], real, "{fork}");
        siblings += usize::from(sibling);
        let inside = !attempt["child_host_pid"].is_null();
        assert_eq!(parent["ns_pid"].as_u64(), inside.then_some(1), "{fork}");
        let chosen = (name == "eexist-set-tid").then_some(1);
        assert_eq!(fork["set_tids"].as_u64(), chosen, "{fork}");
    }
    assert_eq!(siblings, 1);
}

#[test]
fn a_container_is_told_by_its_cgroup() {
    live_test!();
    let id = format!("{:064x}", std::process::id());
    let name = format!("docker-{id}.scope");
    let Some(group) = Cgroup::make(&name) else {
        skip!("there is no unified hierarchy to make a group in");
    };
    let script =
        format!("echo $$ > {}/cgroup.procs && (exit 0) && exec cat", group.path().display());
    let mut command = fork_trace();
    command.args(["--json", "--", "sh", "-c", &script]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The group has to be there while the fork is looked at.
    std::thread::sleep(Duration::from_secs(2).mul_f64(slowness().min(3.0)));
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let traced = lines(&output.stderr);
    let forks = of_type(&traced, "fork");
    let [fork] = forks[..] else { panic!("{forks:?}") };
    assert_eq!(fork["parent"]["cgroup"], format!("/{name}"), "{fork}");
    assert_eq!(fork["parent"]["container"]["id"], id.as_str());
    assert_eq!(fork["parent"]["container"]["runtime"], "docker");
}
