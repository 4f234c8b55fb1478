//! The command line: help, exit codes, hints, files that cannot be replayed, a closed pipe. These
//! tests need no rights.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// A stream that can be replayed.
const SIMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/simple.jsonl");

/// Runs fork-trace to its end.
fn fork_trace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fork-trace")).args(args).output().unwrap()
}

/// What it wrote to standard error.
fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What it wrote to standard output.
fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A new temporary file with this content.
fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fork-trace-cli-{}-{name}", std::process::id()));
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn help_and_version_are_printed() {
    let help = fork_trace(&["--help"]);
    assert!(help.status.success());
    for part in ["-- CMD ARGS", "replay", "doctor", "--stages", "--json", "Exit status"] {
        assert!(printed(&help).contains(part), "{part}");
    }
    let version = fork_trace(&["--version"]);
    assert_eq!(printed(&version), concat!("fork-trace ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn bad_usage_exits_with_2() {
    let cases: [&[&str]; 11] = [
        &["--no-such-option"],
        &["no-such-task"],
        &["-D", "soon"],
        &["-D", "0"],
        &["--max-events", "0"],
        &["--buffer", "1K"],
        &["--format", "xml"],
        &["--json", "--format", "text"],
        &["--as-root"],
        &["-e", "EWHAT"],
        &["explain"],
    ];
    for case in cases {
        let output = fork_trace(case);
        assert_eq!(output.status.code(), Some(2), "{case:?}: {}", errors(&output));
        assert!(errors(&output).starts_with("error: "), "{case:?}");
        assert!(output.stdout.is_empty(), "{case:?}");
    }
}

#[test]
fn only_the_failures_asked_for_are_shown() {
    let failures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/failures.jsonl");
    let errnos = |args: &[&str]| {
        let output = fork_trace(&[&["replay", failures, "--json"], args].concat());
        assert!(output.status.success(), "{}", errors(&output));
        let text = printed(&output);
        let forks = text.lines().filter(|line| line.contains(r#""type":"fork""#));
        let errno = |line: &str| {
            let (_, rest) = line.split_once(r#""errno":"#)?;
            rest.split(',').next().map(str::to_owned)
        };
        forks.map(|line| errno(line).unwrap_or_default()).collect::<Vec<_>>()
    };
    let all = errnos(&[]);
    assert!(all.contains(&String::new()), "a successful attempt has no errno: {all:?}");
    let failed: Vec<_> = all.iter().filter(|errno| !errno.is_empty()).cloned().collect();
    assert_eq!(errnos(&["-x"]), failed);
    let two: Vec<_> =
        failed.iter().filter(|e| ["11", "12"].contains(&e.as_str())).cloned().collect();
    assert!(two.len() > 1);
    assert_eq!(errnos(&["-e", "EAGAIN", "--errno", "12"]), two);
}

#[test]
fn explain_prints_known_words_and_refuses_unknown_ones() {
    let output = fork_trace(&["explain", "EAGAIN", "CLONE_NEWPID", "0x1200011"]);
    assert!(output.status.success());
    for part in ["pids.max", "RLIMIT_NPROC", "CLONE_THREAD with", "exit signal 17"] {
        assert!(printed(&output).contains(part), "{part}");
    }
    let output = fork_trace(&["explain", "EAGAIN", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("nothing is called nonsense"), "{}", errors(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_that_cannot_be_replayed_is_an_error_with_cause_and_hint() {
    let cut = fs::read_to_string(SIMPLE).unwrap();
    let first = cut.lines().next().unwrap().to_owned();
    let newer = first.replacen(r#""schema_version":1"#, r#""schema_version":2"#, 1);
    let cases = [
        ("empty", String::new(), "it is empty"),
        ("words", "hello\n".to_owned(), "expected value"),
        ("other", "{\"type\":\"x\"}\n".to_owned(), "unknown variant `x`"),
        ("newer", newer, "schema version 2"),
        (
            "cut",
            first.clone() + "\n{\"type\":\"fork\",\"id\":\"1-",
            "line 2: the line is cut short",
        ),
        ("long", "x".repeat(2 << 20), "the line is too long"),
    ];
    for (name, content, cause) in cases {
        let path = file(name, content);
        let output = fork_trace(&["replay", path.to_str().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let errors = errors(&output);
        assert!(errors.contains(cause), "{name}: {errors}");
        assert!(errors.contains(path.to_str().unwrap()), "{name}: {errors}");
        assert!(errors.lines().count() == 2 && errors.contains("hint: "), "{name}: {errors}");
    }
    let output = fork_trace(&["replay", "/no/such/file.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("No such file"), "{}", errors(&output));
    let output = fork_trace(&["replay", "/"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn lines_before_a_bad_line_are_shown() {
    let whole = fs::read_to_string(SIMPLE).unwrap();
    let kept: Vec<&str> = whole.lines().take(3).collect();
    let path = file("tail", format!("{}\n{{\"type\":\"fo", kept.join("\n")));
    let output = fork_trace(&["replay", path.to_str().unwrap(), "--json"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(printed(&output), kept.join("\n") + "\n");
}

#[test]
fn replay_reads_standard_input_and_writes_formats_by_ending() {
    let whole = fs::read(SIMPLE).unwrap();
    let json = file("copy.jsonl", "");
    let text = file("copy.txt", "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_fork-trace"))
        .args(["replay", "-", "--utc", "-o", json.to_str().unwrap(), "-o", text.to_str().unwrap()])
        .args(["-o", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&whole).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(fs::read(&json).unwrap(), whole);
    assert_eq!(fs::read(&text).unwrap(), output.stdout);
    assert!(printed(&output).starts_with("TIME"), "{}", printed(&output));
    fs::remove_file(json).unwrap();
    fs::remove_file(text).unwrap();
}

#[test]
fn colour_is_written_only_to_a_terminal_or_on_request() {
    let escape = |args: &[&str]| {
        let output = fork_trace(&[&["replay", SIMPLE], args].concat());
        printed(&output).contains('\x1b')
    };
    assert!(!escape(&[]));
    assert!(!escape(&["--color", "never"]));
    assert!(escape(&["--color", "always"]));
}

#[test]
fn a_closed_pipe_ends_a_replay_quietly() {
    let many = fs::read_to_string(SIMPLE).unwrap();
    let (first, rest) = many.split_once('\n').unwrap();
    let path = file("many", format!("{first}\n{}", rest.repeat(2000)));
    let mut child = Command::new(env!("CARGO_BIN_EXE_fork-trace"))
        .args(["replay", path.to_str().unwrap(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    fs::remove_file(path).unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(errors(&output), "");
}
