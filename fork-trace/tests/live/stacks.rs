//! The callers' user-space stacks: `forker stack` forks from functions that it names.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use serde_json::Value;

use crate::support::{
    Folder, HostTrace, fork_trace, forker, live_test, number, of_type, one_fork, read, run,
    summary, tool, trace,
};

/// The functions from which `forker stack` forks, the innermost first.
const FUNCTIONS: [&str; 3] = ["stack_fork", "stack_middle", "stack_outer"];

fn with_stacks() -> Command {
    let mut tool = fork_trace();
    tool.arg("--stacks");
    tool
}

/// Whether a fork shows them, each with the place in its file.
#[track_caller]
fn assert_named(fork: &Value) {
    let stack = fork["stack"].as_array().unwrap_or_else(|| panic!("no stack: {fork}"));
    let names: Vec<_> = stack.iter().take(3).map(|frame| frame["fn"].as_str()).collect();
    assert_eq!(names, FUNCTIONS.map(Some), "{stack:?}");
    let own = forker();
    for frame in stack.iter().take(3) {
        let module = Path::new(frame["module"].as_str().unwrap());
        assert_eq!(module.file_name(), own.file_name(), "{frame}");
        assert!(frame["offset"].as_u64().unwrap() > 0, "{frame}");
    }
}

#[test]
fn the_functions_that_led_to_a_fork_are_named_in_order() {
    live_test!();
    // One is gone before its stack is shown, the other is not.
    for stay in ["0", "400"] {
        let (_, fork, traced) = one_fork(with_stacks(), "stack", stay).unwrap();
        assert_named(&fork);
        assert_eq!(of_type(&traced, "start")[0]["stacks"], true);
    }
}

#[test]
fn stacks_are_taken_only_where_they_are_asked_for() {
    live_test!();
    let (_, fork, traced) = one_fork(fork_trace(), "stack", "0").unwrap();
    assert!(fork["stack"].is_null(), "{fork}");
    assert!(of_type(&traced, "start")[0]["stacks"].is_null());
}

#[test]
fn a_child_that_forks_once_and_is_gone_has_a_stack_too() {
    live_test!();
    let script = format!("({} stack 0) >/dev/null; :", forker().display());
    let traced = trace(&mut with_stacks(), Command::new("sh").args(["-c", &script]));
    let forks = of_type(&traced.shown, "fork");
    let of = |comm: &str| forks.iter().find(|fork| fork["parent"]["comm"] == comm).unwrap();
    assert_named(of("forker"));
    // Whatever the shell is built with, its innermost frame is where the call was made.
    let shell = of("sh")["stack"].as_array().unwrap();
    assert!(shell[0]["module"].is_string(), "{shell:?}");
}

#[test]
fn stacks_group_the_summary_and_fold() {
    live_test!();
    let folder = Folder::new("folded");
    let (recording, folded) = (folder.file("forks.json"), folder.file("forks.folded"));
    // Either output asks for stacks by itself.
    let mut traced = fork_trace();
    traced.args(["-S", "stack", "-o"]).arg(&recording).arg("-o").arg(&folded);
    let output = run(traced.arg("--").arg(forker()).args(["stack", "0"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("stack_fork < stack_middle < stack_outer"), "{stderr}");
    let live = fs::read_to_string(&folded).unwrap();
    let line = live.lines().find(|line| line.starts_with("forker;")).unwrap();
    assert!(line.ends_with(";stack_outer;stack_middle;stack_fork 1"), "{live}");
    assert!(read(&recording).iter().any(|line| line["groups"]["by"] == "stack"));
    let replayed = run(tool().arg("replay").arg(&recording).args(["--format", "folded"]));
    assert_eq!(String::from_utf8_lossy(&replayed.stdout), live);
}

#[test]
fn threads_that_do_not_end_are_told_with_what_made_them() {
    live_test!();
    let pid = std::process::id();
    let own = pid.to_string();
    let folder = Folder::new("threads-left");
    let file = folder.file("forks.json");
    // It ends by itself before this test makes other threads to read what it says.
    let args = ["-p", &own, "-S", "--stacks", "--max-events", "7"];
    let trace = HostTrace::of(fork_trace().arg("-o").arg(&file).args(args));
    let (end, waits) = mpsc::channel::<()>();
    let waits = Arc::new(Mutex::new(waits));
    let stay = || {
        let waits = Arc::clone(&waits);
        thread::spawn(move || waits.lock().unwrap().recv())
    };
    let staying: Vec<_> = (0..3).map(|_| stay()).collect();
    for _ in 0..4 {
        thread::spawn(|| {}).join().unwrap();
    }
    assert!(trace.ended().status.success());
    drop(end);
    let shown = read(&file);
    for thread in staying {
        assert!(thread.join().unwrap().is_err(), "nothing was sent");
    }
    let left = summary(&shown)["threads_left"].as_array().unwrap();
    let of = |name: &str| left.iter().map(|left| number(&left[name])).sum::<u64>();
    assert_eq!(of("left"), 3, "{left:?}");
    assert!(left.iter().all(|left| left["pid"] == pid), "{left:?}");
    // What has ended was made in the same place or, as this is optimised, in another.
    assert!((3..=7).contains(&of("made")), "{left:?}");
    // Without debug information of the C library, which is below this folder, a stack has its name alone.
    let is_described = Path::new("/usr/lib/debug/.build-id").exists();
    let told = if is_described { "clone" } else { "[libc.so" };
    assert!(left.iter().any(|left| left["stack"].as_str().unwrap().contains(told)), "{left:?}");
}
