//! The command line as it is typed: which word begins the command, and what is not measured.

use std::fs;

use crate::support::{
    Folder, accounted, check, fork_trace, forker, lines, live_test, of_type, one_fork, read, run,
    skip, slowness, tool,
};

#[test]
fn a_command_needs_no_dashes_and_keeps_its_own_options() {
    live_test!();
    let folder = Folder::new("command");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.args(["--stages", "-o"]).arg(&file);
    let output =
        run(tool.args(["sh", "-c", "echo \"$@\"; (exit 3); exit $?", "sh", "-x", "--json", "--"]));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"-x --json --\n");
    let traced = read(&file);
    check(&traced);
    accounted(&traced);
    let words = serde_json::json!([
        "sh",
        "-c",
        "echo \"$@\"; (exit 3); exit $?",
        "sh",
        "-x",
        "--json",
        "--"
    ]);
    assert_eq!(traced[0]["filters"]["command"], words);
    assert_eq!(of_type(&traced, "fork").len(), 1);
}

#[test]
fn a_program_may_be_called_like_a_subcommand() {
    live_test!();
    if slowness() > 1.0 {
        skip!("all programs of an emulated guest are one");
    }
    let folder = Folder::new("stuck");
    let program = folder.file("stuck");
    fs::copy("/bin/true", &program).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = run(fork_trace().env("PATH", path).args(["--json", "--", "stuck"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = lines(&output.stderr);
    assert_eq!(traced[0]["filters"]["command"], serde_json::json!(["stuck"]));
}

#[test]
fn without_waits_nothing_is_told_that_follows_from_them() {
    live_test!();
    let mut quiet = tool();
    quiet.args(["--no-waits", "--sample=0"]);
    let Some((_, fork, traced)) = one_fork(quiet, "wait", "vfork") else { return };
    accounted(&traced);
    assert_eq!(traced[0]["waits"], false);
    assert!(traced[0]["sample_hz"].is_null());
    for name in ["waits", "waits_more", "waits_incomplete", "off_cpu_ns", "held_ns", "slow"] {
        assert!(fork[name].is_null(), "{name}: {fork}");
    }
    assert!(of_type(&traced, "stuck").is_empty());
    let Some((_, fork, traced)) = one_fork(fork_trace(), "wait", "vfork") else { return };
    assert!(traced[0]["waits"].is_null());
    assert!(!fork["waits"].as_array().is_none_or(Vec::is_empty), "the control: {fork}");
}

#[test]
fn a_name_that_the_kernel_cuts_is_cut_with_a_note() {
    live_test!();
    if slowness() > 1.0 {
        skip!("all programs of an emulated guest are one");
    }
    let folder = Folder::new("name");
    let program = folder.file("a-shell-of-a-long-name");
    fs::copy("/bin/sh", &program).unwrap();
    let mut traced = tool();
    traced.args(["-n", "a-shell-of-a-long-name", "-o"]).arg(folder.file("forks.json"));
    let output = run(traced.arg(&program).args(["-c", "(exit 0); (exit 0)"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("keeps 15 bytes"), "{said}");
    let traced = read(&folder.file("forks.json"));
    assert_eq!(traced[0]["filters"]["comms"], serde_json::json!(["a-shell-of-a-lo"]));
    assert_eq!(of_type(&traced, "fork").len(), 2);
    let output = run(fork_trace().args(["-q", "-n", "a-name-that-is-long", "--"]).arg(forker()));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("keeps 15 bytes"));
}
