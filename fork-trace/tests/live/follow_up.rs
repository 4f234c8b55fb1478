//! The follow-ups of a fork: the end of a vfork's wait, exec, and exit.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Background, FileTrace, Folder, by_fork, fork_trace, forker, kill, lines, live_test, number,
    of_type, run, skip, slowness, summary, trace, trace_forker,
};

/// Asserts that every follow-up comes after its fork, with the child's id and later than it.
fn joined(traced: &[Value]) {
    let mut forks: BTreeMap<&str, &Value> = BTreeMap::new();
    for line in traced {
        if line["type"] == "fork" {
            forks.insert(line["id"].as_str().unwrap(), line);
        } else if let (Some(id), false) = (line["fork_id"].as_str(), is_before(line)) {
            let fork = forks.get(id).unwrap_or_else(|| panic!("before its fork: {line}"));
            assert_eq!(fork["child"]["pid"], line["pid"], "{fork} {line}");
            assert!(number(&fork["mono_ns"]) < number(&line["mono_ns"]), "{fork} {line}");
        }
    }
}

/// Whether a line may come before the fork that it names.
fn is_before(line: &Value) -> bool {
    line["type"] == "warning" || line["type"] == "stuck"
}

#[test]
fn a_vfork_tells_how_long_its_parent_waited_and_why() {
    live_test!();
    let scenarios = ["vfork", "vfork-exec", "posix-spawn", "clone-vfork", "i386-vfork", "fork-raw"];
    let traced = trace_forker(&scenarios);
    let (truth, traced) = (traced.truth(), traced.shown);
    joined(&traced);
    let done = by_fork(&traced, "vfork_done");
    let mut seen = BTreeSet::new();
    for fork in of_type(&traced, "fork") {
        let events = done.get(fork["id"].as_str().unwrap());
        if fork["kind"] != "vfork" {
            assert!(events.is_none(), "{fork}");
            continue;
        }
        let [event] = events.unwrap_or_else(|| panic!("{fork}"))[..] else { panic!("{fork}") };
        let own = |attempt: &&&Value| attempt["child_pid"] == fork["child"]["pid"];
        let attempts = of_type(&truth, "attempt");
        let attempt = attempts.iter().find(own).unwrap();
        let execs = ["vfork-exec", "posix-spawn"].contains(&attempt["scenario"].as_str().unwrap());
        let by = if execs { "exec" } else { "exit" };
        assert_eq!(event["released_by"], by, "{attempt}");
        let took = number(&attempt["end_ns"]) - number(&attempt["start_ns"]);
        let shown = number(&fork["total_ns"]) + number(&event["wait_ns"]);
        assert!(shown <= took, "{shown} ns within {took} ns of the caller's clock");
        seen.insert(attempt["scenario"].as_str().unwrap());
    }
    assert_eq!(seen.len(), scenarios.len() - 1, "{seen:?}");
}

#[test]
fn a_held_vfork_is_measured_by_the_callers_clock() {
    live_test!();
    let held = ["hold-vfork", "--ms", "2500", "--count", "4"];
    let traced = trace_forker(&held);
    let (truth, traced) = (traced.truth(), traced.shown);
    joined(&traced);
    let done = by_fork(&traced, "vfork_done");
    assert_eq!(done.len(), 4);
    for attempt in of_type(&truth, "attempt").iter().filter(|attempt| attempt["kind"] == "vfork") {
        let forks = of_type(&traced, "fork");
        let fork =
            forks.iter().find(|fork| fork["parent"]["tid"] == attempt["parent_tid"]).unwrap();
        let [event] = done[fork["id"].as_str().unwrap()][..] else { panic!("{fork}") };
        assert_eq!(event["released_by"], "exit");
        let took = number(&attempt["end_ns"]) - number(&attempt["start_ns"]);
        let (wait, total) = (number(&event["wait_ns"]), number(&fork["total_ns"]));
        assert!(wait >= 2_500_000_000, "{event}");
        // The rest of the time is the way into the call and out of it.
        let rest = Duration::from_nanos(took - wait - total);
        assert!(rest < Duration::from_millis(20).mul_f64(slowness()), "{rest:?}: {event}");
    }
}

/// Traces the host while a vfork is held, kills parent or child, and returns what released it.
fn killed(child: bool) -> Value {
    let trace = FileTrace::start(&[]);
    let held = ["hold-vfork", "--ms", "60000", "--count", "1"];
    let forker = Background::start(Command::new(forker()).args(held));
    // Others make vforks on this host too.
    let own = |line: &Value| line["kind"] == "vfork" && line["parent"]["ppid"] == forker.pid();
    let vfork = trace.line(own);
    let victim = if child { &vfork["child"]["pid"] } else { &vfork["parent"]["pid"] };
    kill(u32::try_from(number(victim)).unwrap(), Signal::SIGKILL);
    let done = |line: &Value| line["type"] == "vfork_done" && line["fork_id"] == vfork["id"];
    let done = trace.line(done);
    drop(forker);
    trace.stop();
    done["released_by"].clone()
}

#[test]
fn a_signal_ends_the_wait_for_a_vfork() {
    live_test!();
    assert_eq!(killed(true), "killed", "the child");
    assert_eq!(killed(false), "killed", "the parent");
}

/// A Makefile of `count` targets that write down their shells' ids and end in different ways.
fn makefile(folder: &Folder, count: usize) -> String {
    let names: Vec<_> = (0..count).map(|place| format!("t{place}")).collect();
    let mut text = format!("all: {}\n", names.join(" "));
    for (place, name) in names.iter().enumerate() {
        let end = ["cat /dev/null; exit 0", "(exit 7) & wait; exit 3", "kill -TERM $$$$; sleep 9"];
        let end = end[place % end.len()];
        let file = folder.file(name);
        text.push_str(&format!("{name}:\n\t-@echo $$$$ > {}; {end}\n", file.display()));
    }
    text
}

#[test]
fn a_parallel_build_yields_a_complete_tree() {
    live_test!();
    if !fs::exists("/usr/bin/make").unwrap() {
        skip!("there is no make");
    }
    const TARGETS: usize = 60;
    let folder = Folder::new("make");
    fs::write(folder.file("Makefile"), makefile(&folder, TARGETS)).unwrap();
    let mut make = Command::new("make");
    make.args(["-j8", "-C"]).arg(folder.path());
    let traced = trace(fork_trace().args(["--exec", "--exit"]), &mut make).shown;
    joined(&traced);
    assert_eq!(summary(&traced)["lost"], 0);
    assert!(of_type(&traced, "loss").is_empty());

    let (execs, exits) = (by_fork(&traced, "exec"), by_fork(&traced, "exit"));
    for fork in of_type(&traced, "fork") {
        let id = fork["id"].as_str().unwrap();
        let [exit] = exits.get(id).unwrap_or_else(|| panic!("no exit: {fork}"))[..] else {
            panic!("ended twice: {fork}")
        };
        let execs = execs.get(id).map_or(&[][..], |execs| execs);
        // A shell's search for a program fails in most folders.
        let mut ran = execs.iter().filter(|exec| exec["errno"].is_null());
        assert_eq!(exit["execed"], ran.next().is_some(), "{fork}");
        for exec in execs {
            assert!(number(&exec["after_ns"]) < number(&exit["lifetime_ns"]), "{exec} {exit}");
        }
    }
    // The shells themselves say who they were, and the recipe says how each ended.
    for place in 0..TARGETS {
        let pid = fs::read_to_string(folder.file(&format!("t{place}"))).unwrap();
        let pid: u64 = pid.trim().parse().unwrap();
        let of_pid = |event: &&&Value| event["pid"] == pid;
        let exits = of_type(&traced, "exit");
        let exit = exits.iter().find(of_pid).unwrap();
        let want = [(Some(0), None), (Some(3), None), (None, Some(15))][place % 3];
        assert_eq!((exit["code"].as_u64(), exit["signal"].as_u64()), want, "{exit}");
        let mut execs = of_type(&traced, "exec");
        execs.retain(|exec| exec["errno"].is_null());
        let exec = execs.iter().find(of_pid).unwrap();
        assert_eq!(exec["argv"][1], "-c", "{exec}");
        assert!(exec["argv"][2].as_str().unwrap().contains(&format!("t{place}")), "{exec}");
    }
    let sevens = of_type(&traced, "exit").iter().filter(|exit| exit["code"] == 7).count();
    assert_eq!(sevens, TARGETS / 3, "shells that ended without exec");
}

#[test]
fn arguments_come_as_they_were_given_and_a_cut_is_marked() {
    live_test!();
    let script = r#"/bin/echo "" "a b" "$(printf 'x\ny')" é; /bin/echo "$1" "$1"; :"#;
    let long = "l".repeat(700);
    let output = run(fork_trace()
        .args(["--json", "--exec", "--", "sh", "-c", script, "sh", &long])
        .stdout(Stdio::null()));
    assert!(output.status.success());
    let traced = lines(&output.stderr);
    joined(&traced);
    // The command's own has no fork, and failed ones are of the shell's search for it.
    let execs = of_type(&traced, "exec").into_iter().filter(|exec| exec["fork_id"].is_string());
    let execs: Vec<_> = execs.filter(|exec| exec["errno"].is_null()).collect();
    let [short, cut] = execs[..] else { panic!("{execs:?}") };
    assert_eq!(short["exe"], "/bin/echo");
    assert_eq!(short["argv"], serde_json::json!(["/bin/echo", "", "a b", "x\ny", "é"]));
    assert!(short["argv_truncated"].is_null());
    assert_eq!(cut["argv_truncated"], true);
    assert_eq!(cut["argv"][1], long.as_str());
    assert!(long.starts_with(cut["argv"][2].as_str().unwrap()));
    assert!(of_type(&traced, "exit").is_empty(), "not asked for");
}

/// Children end at once, before their parent's call returns, and their ids come again.
#[test]
fn each_of_many_short_children_has_its_own_exit() {
    live_test!();
    let count = if slowness() > 1.0 { 2_000 } else { 20_000 };
    let mut work = Command::new(forker());
    work.args(["loop", "--count", &count.to_string()]);
    let traced = trace(fork_trace().args(["--exit", "--buffer", "64M"]), &mut work).shown;
    joined(&traced);
    assert_eq!(summary(&traced)["lost"], 0);
    let exits = by_fork(&traced, "exit");
    assert_eq!(exits.len(), count);
    assert!(exits.values().all(|exits| exits.len() == 1 && exits[0]["code"] == 0));
}
