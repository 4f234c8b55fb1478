//! The end of a trace, in each way that it can come: nothing captured is lost, nothing stays
//! behind.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{
    FileTrace, Folder, HostTrace, Mount, Programs, accounted, check, fork_trace, forker, kill,
    lines, live_test, of_type, read, run, wait,
};

#[test]
fn a_command_keeps_its_output_and_status() {
    live_test!();
    let output =
        run(fork_trace().args(["--", "sh", "-c", "echo out; echo err >&2; : & wait; exit 7"]));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().any(|line| line == "err"), "{said}");
    assert!(said.contains("process"), "{said}");
}

#[test]
fn a_command_that_is_killed_ends_the_trace_with_its_signal() {
    live_test!();
    let output = run(fork_trace().args(["--json", "--", "sh", "-c", ": & wait; kill -9 $$"]));
    assert_eq!(output.status.code(), Some(137));
    let traced = lines(&output.stderr);
    check(&traced);
    assert_eq!(of_type(&traced, "fork").len(), 1);
}

#[test]
fn a_command_that_is_not_there_is_said() {
    live_test!();
    let folder = Folder::new("no-program");
    let file = folder.file("text");
    fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    for (command, status, words) in
        [("/no/such/program", 127, "there is no program "), (file, 126, "cannot run ")]
    {
        let output = run(fork_trace().args(["--", command]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(&format!("{words}{command}")), "{said}");
        assert!(said.contains("hint: "), "{said}");
    }
}

#[test]
fn each_signal_ends_a_trace_of_the_host_in_order() {
    live_test!();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let trace = HostTrace::start(&["--json"]);
        let programs = trace.programs();
        assert!(Command::new("true").status().unwrap().success());
        let began = Instant::now();
        let output = trace.stop(signal);
        assert!(output.status.success(), "{signal}: {:?}", output.status);
        assert!(began.elapsed() < Duration::from_secs(2), "{signal}: {:?}", began.elapsed());
        let traced = lines(&output.stdout);
        check(&traced);
        assert!(!of_type(&traced, "fork").is_empty());
        accounted(&traced);
        none_is_left(&programs);
    }
}

/// Asserts that the kernel frees these programs; those of functions take it a while to detach.
fn none_is_left(programs: &Programs) {
    let left = programs.left_after(Duration::from_secs(30));
    assert!(left.is_empty(), "of {programs:?} there are left {left:?}");
}

#[test]
fn signals_reach_the_command() {
    live_test!();
    let script =
        "trap 'echo got it; exit 5' TERM; : & wait; echo ready; while :; do sleep 0.1; done";
    let mut child = fork_trace()
        .args(["--json", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(child.id(), Signal::SIGTERM);
    let output = wait(child, Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(5));
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "got it\n");
    check(&lines(&output.stderr));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    live_test!();
    let mut trace = HostTrace::start(&["--json"]);
    drop(trace.stdout());
    let mut storm = Command::new(forker()).args(["loop", "--count", "200"]).spawn().unwrap();
    let output = trace.ended();
    storm.wait().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_full_disk_is_said_and_what_was_written_stays() {
    live_test!();
    let disk = Mount::new("full", "tmpfs", &["-o", "size=128k"]);
    let folder = Folder::new("good");
    let (full, good) = (disk.path().join("forks.json"), folder.file("forks.json"));
    let output = run(fork_trace()
        .arg("-o")
        .arg(&full)
        .arg("-o")
        .arg(&good)
        .arg("--")
        .arg(forker())
        .args(["loop", "--count", "2000"]));
    assert_eq!(output.status.code(), Some(1), "tracing failed, whatever the command did");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("No space left on device") && said.contains("hint: "), "{said}");
    assert!(
        String::from_utf8(output.stdout).unwrap().contains(r#""attempts":2000"#),
        "the command runs to its end"
    );
    // The other output has all that was traced, to the end.
    let shown = read(&good);
    check(&shown);
    accounted(&shown);
    let text = fs::read_to_string(&full).unwrap();
    let (whole, _cut) = text.rsplit_once('\n').unwrap();
    assert!(lines(whole).len() > 10);
}

#[test]
fn an_output_that_cannot_be_opened_is_said_before_anything_runs() {
    live_test!();
    let output = run(fork_trace().args(["-o", "/no/such/folder/x.json", "--", "echo", "ran"]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("fork-trace: cannot write /no/such/folder/x.json: No such file"));
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn a_killed_tracer_leaves_nothing_behind() {
    live_test!();
    let trace = FileTrace::start(&[]);
    let programs = trace.programs();
    assert!(Command::new("true").status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    let (output, shown) = trace.kill();
    assert_eq!(output.status.signal(), Some(9));
    assert!(!of_type(&shown, "fork").is_empty(), "what was shown is in the file");
    none_is_left(&programs);
}
