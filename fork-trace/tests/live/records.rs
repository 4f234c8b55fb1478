//! Records beside those of forks: the traced command's own exec and end, what a child used, an exec
//! that failed, and the programs of parents that are gone.

use std::{fs, process::Command};

use serde_json::Value;

use crate::support::{fork_trace, forker, live_test, number, of_type, slowness, trace};

/// What the tool shows of a script that a shell runs.
fn of_script(options: &[&str], script: &str) -> Vec<Value> {
    trace(fork_trace().args(options), Command::new("/bin/sh").args(["-c", script])).shown
}

/// The id of a process's parent, and its name, as `/proc` shows them.
fn parent_and_name(pid: u64) -> (u64, String) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (head, rest) = stat.rsplit_once(')').unwrap();
    let ppid = rest.split_whitespace().nth(1).unwrap().parse().unwrap();
    (ppid, head.split_once('(').unwrap().1.to_owned())
}

#[test]
fn the_ancestors_of_a_caller_lead_to_the_first_process() {
    live_test!();
    // The inner shell forks and waits, so that both are there when their ancestors are looked up.
    let script = "sh -c '(sleep 0.3); sleep 0.3; :'; :";
    let shown = of_script(&[], script);
    let forks = of_type(&shown, "fork");
    let own = u64::from(std::process::id());
    let mut above = Vec::new();
    let (mut pid, mut name) = (own, parent_and_name(own).1);
    while pid != 0 && above.len() < 16 {
        above.push((pid, name));
        pid = parent_and_name(pid).0;
        name = if pid == 0 { String::new() } else { parent_and_name(pid).1 };
    }
    for fork in &forks {
        let ancestors = fork["ancestors"].as_array().unwrap_or_else(|| panic!("{fork}"));
        let pair = |of: &Value| (number(&of["pid"]), of["comm"].as_str().unwrap().to_owned());
        let ancestors: Vec<_> = ancestors.iter().map(pair).collect();
        assert_eq!(ancestors[0].0, number(&fork["parent"]["ppid"]), "{fork}");
        let tool = ancestors.iter().position(|(_, comm)| comm == "fork-trace").unwrap();
        assert!(ancestors[..tool].iter().all(|(_, comm)| comm == "sh"), "{fork}");
        let shown = &ancestors[tool + 1..];
        assert_eq!(shown, &above[..shown.len()], "{fork}");
        assert!(ancestors.len() == 16 || shown.len() == above.len(), "it ends early: {fork}");
    }
    let depth = |fork: &&&Value| fork["ancestors"].as_array().unwrap().len();
    let least = forks.iter().min_by_key(depth).unwrap();
    assert!(forks.iter().any(|fork| fork["ancestors"][0]["pid"] == least["parent"]["pid"]));
}

#[test]
fn the_command_itself_has_an_exec_and_an_end() {
    live_test!();
    // What the tracer is told last is the end of its command: it must not be missed.
    let rounds = if slowness() > 1.0 { 4 } else { 20 };
    for round in 0..rounds {
        let shown = of_script(&["--exec", "--exit"], "exit 0");
        let [exec] = of_type(&shown, "exec")[..] else { panic!("round {round}: {shown:?}") };
        assert_eq!((&exec["exe"], &exec["fork_id"]), (&"/bin/sh".into(), &Value::Null), "{exec}");
        assert_eq!(
            exec["argv"],
            Value::from(["/bin/sh", "-c", "exit 0"].map(Value::from).to_vec())
        );
        let [exit] = of_type(&shown, "exit")[..] else { panic!("round {round}: {shown:?}") };
        assert_eq!((&exit["code"], &exit["pid"]), (&0.into(), &exec["pid"]), "{exit}");
        assert_eq!(exit["execed"], true, "{exit}");
    }
}

#[test]
fn what_a_child_used_is_what_wait4_says() {
    live_test!();
    for (cpu_ms, mib) in [(0, 0), (30, 32), (200, 4)] {
        let (cpu, mib) = (cpu_ms.to_string(), mib.to_string());
        let args = ["usage", "--cpu-ms", &cpu, "--mib", &mib];
        let traced = trace(fork_trace().arg("--exit"), Command::new(forker()).args(args));
        let truth = traced.truth();
        let [usage] = of_type(&truth, "usage")[..] else { panic!("{truth:?}") };
        let exits = of_type(&traced.shown, "exit");
        let exit = exits.iter().find(|exit| exit["pid"] == usage["pid"]).unwrap();
        assert_eq!(number(&exit["max_rss_bytes"]) / 1024, number(&usage["max_rss_kib"]), "{exit}");
        // The end of the end is not yet done when the parent is told.
        let (shown, told) = (number(&exit["cpu_ns"]) / 1000, number(&usage["cpu_us"]));
        println!("{cpu} ms, {mib} MiB: {shown} us, wait4 says {told} us");
        assert!(shown >= told && shown - told < 10_000 + told / 20, "{shown}, {told}: {exit}");
    }
}

#[test]
fn an_exec_that_failed_is_told_with_its_name_and_error() {
    live_test!();
    let shown = of_script(&["--exec", "--exit"], "/no/such/program; /etc/passwd; /bin/true");
    let failed = of_type(&shown, "exec").into_iter().filter(|exec| exec["errno"].is_u64());
    let failed: Vec<_> = failed.collect();
    let names: Vec<_> = failed.iter().map(|exec| (&exec["exe"], &exec["errno_name"])).collect();
    let expected = [("/no/such/program", "ENOENT"), ("/etc/passwd", "EACCES")];
    let expected = expected.map(|(exe, errno)| (Value::from(exe), Value::from(errno)));
    assert_eq!(names, expected.iter().map(|(exe, errno)| (exe, errno)).collect::<Vec<_>>());
    for exec in failed {
        assert!(exec["fork_id"].is_string() && exec["argv"].is_null(), "{exec}");
        let ends = of_type(&shown, "exit");
        let end = ends.iter().find(|end| end["pid"] == exec["pid"]).unwrap();
        assert_eq!(end["execed"], false, "it ran no other program: {end}");
    }
    let shown = of_script(&[], "/no/such/program; exit 0");
    assert!(of_type(&shown, "exec").is_empty(), "only if asked for");
}

#[test]
fn a_parent_that_is_gone_keeps_its_program() {
    live_test!();
    let inner = "/bin/true; /bin/true; exit 0";
    let script = format!("for i in 1 2 3 4 5; do /bin/sh -c '{inner}'; done");
    let shown = of_script(&[], &script);
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let forks = of_type(&shown, "fork");
    assert_eq!(forks.len(), 15, "{forks:?}");
    let mut of_inner = 0;
    for fork in forks {
        let parent = &fork["parent"];
        assert_eq!(parent["exe"], shell.to_str().unwrap(), "{fork}");
        let argv = parent["argv"].as_array().unwrap();
        assert_eq!(argv[..2], ["/bin/sh", "-c"], "{fork}");
        of_inner += usize::from(argv[2] == inner);
        assert!(argv[2] == inner || argv[2] == script.as_str(), "{fork}");
    }
    assert_eq!(of_inner, 10);
}

/// A line is written when its event is complete: after its own time, and what it waits for.
#[test]
fn lines_come_in_order_of_completion_within_a_bound() {
    live_test!();
    // An attempt waits for its child for a second, and user space looks every 50 ms.
    const BOUND_NS: u64 = 1_500_000_000;
    let shown = of_script(&["--exec", "--exit"], "for i in 1 2 3 4 5 6 7 8; do /bin/true; done");
    let mut latest = 0;
    for line in shown.iter().filter(|line| line["mono_ns"].is_u64() && line["type"] != "start") {
        let began = number(&line["mono_ns"]);
        let lasts = line["total_ns"].as_u64().unwrap_or(0);
        assert!(began + lasts + BOUND_NS >= latest, "{line}");
        latest = latest.max(began);
    }
    let fork = |line: &Value| line["fork_id"].as_str().map(str::to_owned);
    for (place, line) in shown.iter().enumerate() {
        let Some(id) = fork(line).filter(|_| line["type"] != "warning") else { continue };
        let before = shown[..place].iter().any(|earlier| earlier["id"] == id.as_str());
        assert!(before, "a follow-up comes after its fork: {line}");
    }
}
