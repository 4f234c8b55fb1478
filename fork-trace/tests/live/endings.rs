//! However it ends: nothing captured is lost, nothing is left behind.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{
    Folder, HostTrace, check, fork_trace, forker, here, kill, lines, of_type, read, run, summary,
    wait,
};

#[test]
fn a_command_keeps_its_output_and_status() {
    if !here("a_command_keeps_its_output_and_status") {
        return;
    }
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
    if !here("a_command_that_is_killed_ends_the_trace_with_its_signal") {
        return;
    }
    let output = run(fork_trace().args(["--json", "--", "sh", "-c", ": & wait; kill -9 $$"]));
    assert_eq!(output.status.code(), Some(137));
    let traced = lines(&output.stderr);
    check(&traced);
    assert_eq!(of_type(&traced, "fork").len(), 1);
}

#[test]
fn a_command_that_is_not_there_is_said() {
    if !here("a_command_that_is_not_there_is_said") {
        return;
    }
    for (command, status) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let output = run(fork_trace().args(["--", command]));
        assert_eq!(output.status.code(), Some(status));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("cannot run {command}: ")), "{said}");
        assert!(said.contains("hint: "), "{said}");
    }
}

#[test]
fn each_signal_ends_a_trace_of_the_host_in_order() {
    if !here("each_signal_ends_a_trace_of_the_host_in_order") {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let trace = HostTrace::start(&["--json"]);
        assert!(Command::new("true").status().unwrap().success());
        let began = Instant::now();
        let output = trace.stop(signal);
        assert!(output.status.success(), "{signal}: {:?}", output.status);
        assert!(began.elapsed() < Duration::from_secs(2), "{signal}: {:?}", began.elapsed());
        let traced = lines(&output.stdout);
        check(&traced);
        assert!(!of_type(&traced, "fork").is_empty());
        assert_eq!(summary(&traced)["accounted"], true, "{}", summary(&traced));
    }
    nothing_is_left();
}

/// The kernel frees a program a moment after its last user is gone.
fn nothing_is_left() {
    let end = Instant::now() + Duration::from_secs(5);
    while !programs_left().is_empty() {
        assert!(Instant::now() < end, "{:?}", programs_left());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Names of loaded programs of ours.
fn programs_left() -> Vec<String> {
    let ours = ["sys_enter", "sys_exit", "task_newtask", "sched_process_f", "sched_wakeup_ne"];
    aya::programs::loaded_programs()
        .filter_map(|program| program.ok()?.name_as_str().map(str::to_owned))
        .filter(|name| ours.contains(&name.as_str()))
        .collect()
}

#[test]
fn signals_reach_the_command() {
    if !here("signals_reach_the_command") {
        return;
    }
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
    if !here("a_closed_pipe_ends_quietly") {
        return;
    }
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
    if !here("a_full_disk_is_said_and_what_was_written_stays") {
        return;
    }
    let folder = Folder::new("full");
    let disk = Disk::mount(&folder, "size=128k");
    let (full, good) =
        (folder.file("forks.json"), std::env::temp_dir().join("fork-trace-good.json"));
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
    // The other output goes to the end of what was traced.
    let shown = read(&good);
    check(&shown);
    assert_eq!(summary(&shown)["accounted"], true, "{}", summary(&shown));
    fs::remove_file(&good).unwrap();
    let text = fs::read_to_string(&full).unwrap();
    let (whole, _cut) = text.rsplit_once('\n').unwrap();
    assert!(lines(whole).len() > 10);
    drop(disk);
}

/// A file system of its own size on a folder.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(folder: &Folder, size: &str) -> Self {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mount.success());
        Self(folder.path().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

#[test]
fn an_output_that_cannot_be_opened_is_said_before_anything_runs() {
    if !here("an_output_that_cannot_be_opened_is_said_before_anything_runs") {
        return;
    }
    let output = run(fork_trace().args(["-o", "/no/such/folder/x.json", "--", "echo", "ran"]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("fork-trace: cannot write /no/such/folder/x.json: No such file"));
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn a_killed_tracer_leaves_nothing_behind() {
    if !here("a_killed_tracer_leaves_nothing_behind") {
        return;
    }
    let folder = Folder::new("killed");
    let file = folder.file("forks.json");
    let trace = HostTrace::start(&["-o", file.to_str().unwrap()]);
    assert!(Command::new("true").status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    let output = trace.stop(Signal::SIGKILL);
    assert_eq!(output.status.signal(), Some(9));
    assert!(!of_type(&read(&file), "fork").is_empty(), "what was shown is in the file");
    nothing_is_left();
}
