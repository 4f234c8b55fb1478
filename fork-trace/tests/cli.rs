//! The command line: help, exit codes, hints, files that cannot be replayed, a closed pipe. These
//! tests need no rights.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
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
    for part in ["[--] [CMD ARGS", "replay", "doctor", "--stages", "--json", "Exit status"] {
        assert!(printed(&help).contains(part), "{part}");
    }
    let version = fork_trace(&["--version"]);
    assert_eq!(printed(&version), concat!("fork-trace ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// Runs fork-trace for a terminal of 80 columns.
fn in_80_columns(args: &[&str]) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_fork-trace"));
    tool.env("COLUMNS", "80").args(args).output().unwrap()
}

#[test]
fn help_is_one_screen_or_all() {
    let screen = printed(&in_80_columns(&["--help"]));
    assert!(screen.lines().count() <= 50, "{} lines:\n{screen}", screen.lines().count());
    for line in screen.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(screen.contains("--help all") && !screen.contains("--backend"), "{screen}");
    assert_eq!(printed(&in_80_columns(&["-h"])), screen);
    assert_eq!(printed(&in_80_columns(&["help"])), screen);
    let all = printed(&in_80_columns(&["help", "all"]));
    for part in ["--backend", "--no-waits", "--as-root", "--cgroup", "--max-events", "tracepoint"] {
        assert!(all.contains(part), "{part}");
    }
    assert_eq!(printed(&in_80_columns(&["--help", "all"])), all);
    assert_eq!(printed(&in_80_columns(&["-x", "-h", "all"])), all);
    let replay = printed(&in_80_columns(&["replay", "--help"]));
    assert!(replay.contains("fork-trace replay") && !replay.contains("--buffer"), "{replay}");
    assert!(printed(&fork_trace(&["help", "replay"])).contains("fork-trace replay"));
    let wrong = fork_trace(&["help", "repaly"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(errors(&wrong).contains("no help about repaly; did you mean replay?"));
}

#[test]
fn a_program_that_is_missing_is_told_before_anything_else() {
    let missing = |args: &[&str]| {
        let output = fork_trace(args);
        assert_eq!(output.status.code(), Some(127), "{args:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
        errors(&output)
    };
    let said = missing(&["repaly", SIMPLE, "--json"]);
    let wanted = "no program `repaly` is on PATH; did you mean the subcommand `replay`?";
    assert!(said.contains(wanted), "{said}");
    let said = missing(&["-x", "--stages", "no-such-program", "--no-such-option"]);
    assert!(said.contains("no program `no-such-program` is on PATH\n"), "{said}");
    let said = missing(&["--", "./repaly"]);
    assert!(said.contains("there is no program ./repaly\n"), "{said}");
}

/// A script of this name stands for sudo: it gives what it starts another PATH.
#[test]
fn a_program_on_the_path_of_who_called_sudo_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::env::temp_dir().join(format!("fork-trace-cli-{}-sudo", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in
        [("sudo", "#!/bin/sh\nPATH=/usr/sbin \"$@\"\nexit $?\n"), ("of-mine", "#!/bin/sh\n")]
    {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |program: &str| {
        let mut sudo = Command::new(folder.join("sudo"));
        sudo.env("PATH", format!("/no/such:{}", folder.display()));
        sudo.args([env!("CARGO_BIN_EXE_fork-trace"), "-x", program]).output().unwrap()
    };
    let output = run("of-mine");
    assert_eq!(output.status.code(), Some(127));
    let said = errors(&output);
    let place = folder.join("of-mine");
    assert!(said.contains("secure_path") && said.contains(place.to_str().unwrap()), "{said}");
    let said = errors(&run("of-nobody"));
    assert!(!said.contains("secure_path") && said.contains("check its spelling"), "{said}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_wrong_word_gets_the_nearest_right_one() {
    let cases: [(&[&str], &str); 7] = [
        (&["--stages=copy_mn"], "did you mean copy_mm?"),
        (&["-e", "EAGIAN"], "did you mean EAGAIN?"),
        (&["explain", "ENOMEN"], "did you mean ENOMEM?"),
        (&["explain", "mmap_lok"], "did you mean mmap_lock?"),
        (&["-k", "proces"], "'process'"),
        (&["--backend", "fentri"], "'fentry'"),
        (&["--stagse"], "'--stages'"),
    ];
    for (args, wanted) in cases {
        let output = fork_trace(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(errors(&output).contains(wanted), "{args:?}: {}", errors(&output));
    }
    let output = fork_trace(&["-x", "replay", SIMPLE]);
    assert!(errors(&output).contains("'replay' has to come first"), "{}", errors(&output));
    let output = fork_trace(&["-D", "soon"]);
    let again = fork_trace(&["--min-duration", "soon"]);
    for output in [output, again] {
        assert!(errors(&output).contains("such as 5 (seconds), 5s, 500ms or 1m30s"));
    }
}

#[test]
fn bad_usage_exits_with_2() {
    let cases: [&[&str]; 27] = [
        &["--no-such-option"],
        &["-o", "/no/such/folder/x.csv"],
        &["replay", SIMPLE, "-o", "x.csv"],
        &["replay", SIMPLE, "-o", "x.csv.gz"],
        &["replay", SIMPLE, "-o", "x.json.xz"],
        &["completions"],
        &["completions", "tcsh"],
        &["-x", "replay", SIMPLE],
        &["-p", "0"],
        &["-p", "-1"],
        &["-P", "0"],
        &["-P", "99999999999"],
        &["--max-events", "-1"],
        &["--sample", "10001"],
        &["--no-waits", "--sample", "1"],
        &["--no-waits", "--min-duration", "1ms"],
        &["--min-duration", "0"],
        &["-D", "soon"],
        &["-D", "0"],
        &["--max-events", "0"],
        &["--buffer", "1K"],
        &["--format", "xml"],
        &["--json", "--format", "text"],
        &["--as-root"],
        &["-e", "EWHAT"],
        &["explain"],
        &["replay", SIMPLE, "--tree", "--per-stage"],
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
    let golden = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        fs::read_to_string(format!("{folder}/{name}.jsonl")).unwrap()
    };
    let summary = golden("summary").lines().last().unwrap().to_owned();
    let path = file("failures", golden("failures") + &summary + "\n");
    let failures = path.to_str().unwrap();
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
    fs::remove_file(&path).unwrap();
}

/// The objects that a replay of a golden stream writes with these options.
fn replayed(stream: &str, args: &[&str]) -> Vec<serde_json::Value> {
    let output = fork_trace(&[&["replay", &golden(stream), "--json"], args].concat());
    assert!(
        errors(&output).lines().all(|line| line.contains("cut off") || line.contains("hint: "))
    );
    printed(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The ids of the attempts among them.
fn ids(lines: &[serde_json::Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["id"].as_str()).collect()
}

#[test]
fn every_filter_works_in_a_replay() {
    let all = replayed("simple", &[]);
    let count = |args: &[&str]| ids(&replayed("simple", args)).len();
    assert_eq!(count(&[]), 6);
    for (args, wanted) in [
        (&["-p", "4250"][..], 2),
        (&["-p", "4250", "-p", "4400"], 3),
        (&["-p", "4242", "-f"], 5),
        (&["-P", "4242"], 2),
        (&["-u", "ada"], 5),
        (&["-u", "1000", "-u", "0"], 6),
        (&["-u", "ada", "-n", "make"], 2),
        (&["-k", "thread,process"], 4),
        (&["--min-duration", "1ms"], 2),
        (&["--min-duration", "1ms", "-x"], 0),
        (&["--cgroup", "/"], 0),
    ] {
        let lines = replayed("simple", args);
        assert_eq!(ids(&lines).len(), wanted, "{args:?}");
        let (recorded, summary) = (all.last().unwrap(), lines.last().unwrap());
        assert_eq!(summary["attempts"], wanted, "{args:?}");
        let tasks = |summary: &serde_json::Value| {
            summary["succeeded"].as_u64().unwrap() + summary["filtered"].as_u64().unwrap()
        };
        assert_eq!(tasks(summary), tasks(recorded), "{args:?}");
        assert_ne!(lines[0]["filters"], all[0]["filters"], "{args:?}");
    }
    let filters = &replayed("simple", &["-P", "4242", "-k", "vfork"])[0]["filters"];
    assert_eq!((&filters["ppids"][0], &filters["kinds"][0]), (&4242.into(), &"vfork".into()));
    assert_eq!(filters["command"], all[0]["filters"]["command"]);
    let worker = "/system.slice/worker.service";
    for path in [worker, "system.slice", &format!("/sys/fs/cgroup{worker}/cpu.max")] {
        assert_eq!(ids(&replayed("waits", &["--cgroup", path])).len(), 4, "{path}");
    }
    assert_eq!(ids(&replayed("waits", &["--cgroup", "/system.slice/work"])).len(), 0);
    let note = fork_trace(&["replay", SIMPLE, "-n", "a-name-of-many-bytes"]);
    assert!(errors(&note).contains("the kernel keeps 15 bytes"), "{}", errors(&note));
}

#[test]
fn what_became_of_a_child_is_shown_with_its_fork() {
    let lines = replayed("tree", &["-p", "4242", "-k", "vfork"]);
    let fork = "4242-7000003000000";
    assert_eq!(ids(&lines), [fork]);
    let of = lines.iter().filter_map(|line| line["fork_id"].as_str()).collect::<Vec<_>>();
    assert_eq!(of, [fork; 3], "its vfork_done, exec and exit");
}

#[test]
fn what_a_recording_does_not_tell_is_no_filter() {
    for (args, option) in [
        (&["-u", "root"][..], "-u: "),
        (&["-P", "1"], "-P: "),
        (&["--cgroup", "/"], "--cgroup: "),
        (&["--min-duration", "1ms"], "--min-duration: "),
        (&["--sort", "held"], "--sort: "),
    ] {
        let output = fork_trace(&[&["replay", &golden("stages")], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = errors(&output);
        assert!(said.contains(option) && said.contains("hint: "), "{said}");
    }
    let whole = fs::read_to_string(SIMPLE).unwrap();
    let path = file("no-waits", whole.replacen(r#""filters":"#, r#""waits":false,"filters":"#, 1));
    let out = file("kept.json", "precious");
    let names = [&path, &out].map(|path| path.to_str().unwrap());
    let output = fork_trace(&["replay", names[0], "--min-duration", "1ms", "-o", names[1]]);
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert!(errors(&output).contains("--no-waits"), "{}", errors(&output));
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    [path, out].iter().for_each(|path| fs::remove_file(path).unwrap());
}

#[test]
fn the_largest_come_first_and_no_more_than_are_wanted() {
    let held = |args: &[&str]| -> Vec<u64> {
        let lines = replayed("simple", args);
        let forks = lines.iter().filter(|line| line["type"] == "fork");
        forks.map(|fork| fork["held_ns"].as_u64().unwrap()).collect()
    };
    let recorded = held(&[]);
    let mut sorted = recorded.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert_ne!(recorded, sorted);
    assert_eq!(held(&["--sort", "held"]), sorted);
    assert_eq!(held(&["--sort", "held", "--max-events", "2"]), sorted[..2]);
    assert_eq!(held(&["--max-events", "2"]), recorded[..2]);
    assert_eq!(held(&["--sort", "time"]), recorded);
    let all = replayed("simple", &[]);
    for args in [&["--max-events", "2"][..], &["--max-events", "2", "--sort", "total"]] {
        let lines = replayed("simple", args);
        let (summary, recorded) = (lines.last().unwrap(), all.last().unwrap());
        assert_eq!(summary["attempts"], 2);
        let filtered = |summary: &serde_json::Value| summary["filtered"].as_u64().unwrap();
        assert_eq!(filtered(summary), filtered(recorded) + 4, "{args:?}");
    }
    // A child's follow-ups come right after its fork.
    let lines = replayed("tree", &["--sort", "held"]);
    let of = |line: &serde_json::Value| {
        line["id"].as_str().or(line["fork_id"].as_str()).map(str::to_owned)
    };
    let order: Vec<_> = lines.iter().filter_map(of).collect();
    let mut groups = order.clone();
    groups.dedup();
    let each: std::collections::BTreeSet<_> = order.iter().collect();
    assert_eq!(groups.len(), each.len(), "{order:?}");
    assert_eq!(groups[0], "4242-7000003000000", "the vfork was held longest");
    for wrong in [&["--sort", "held", "--tree"][..], &["--sort", "size"], &["--max-events", "0"]] {
        let output = fork_trace(&[&["replay", SIMPLE], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn two_recordings_are_compared() {
    let (simple, waits) = (golden("simple"), golden("waits"));
    let compare = |args: &[&str]| fork_trace(&[&["replay"], args].concat());
    let same = compare(&[&simple, "--against", &simple, "--json"]);
    assert!(same.status.success(), "{}", errors(&same));
    let object = last_line(&printed(&same));
    assert_eq!((&object["type"], &object["schema_version"]), (&"compare".into(), &2.into()));
    assert_eq!(object["a"], object["b"]);
    assert_eq!(object["a"]["attempts"], 6);
    assert!(object["kinds"].as_array().unwrap().iter().all(|kind| kind["p50_moved_ns"] == 0));
    // The other one is cut off: it is compared as far as it goes.
    let other = compare(&[&simple, "--against", &waits]);
    assert_eq!(other.status.code(), Some(1));
    assert!(errors(&other).contains("waits.jsonl") && errors(&other).contains("cut off"));
    let text = printed(&other);
    for part in ["A  ", "B  ", ", cut off", "KIND (HELD)", "STAGE (TOTAL)", "P50 A", "* fewer"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let filtered = compare(&[&simple, "--against", &simple, "--json", "-n", "make"]);
    assert_eq!(last_line(&printed(&filtered))["b"]["attempts"], 2);
    for wrong in [
        &["-", "--against", "-"][..],
        &[&simple, "--against", &waits, "-o", "x.json"],
        &[&simple, "--against", &waits, "--tree"],
        &[&simple, "--against", &waits, "--sort", "held"],
    ] {
        let output = compare(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", errors(&output));
    }
    assert_eq!(compare(&[&simple, "--against", "/no/such.json"]).status.code(), Some(1));
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
    let version = |number: u32| {
        first.replacen(r#""schema_version":2"#, &format!(r#""schema_version":{number}"#), 1)
    };
    let cases = [
        ("empty", String::new(), "it is empty"),
        ("words", "hello\n".to_owned(), "expected value"),
        ("other", "{\"type\":\"x\"}\n".to_owned(), "unknown variant `x`"),
        ("newer", version(3), "it has schema version 3, and this fork-trace reads version 2"),
        ("older", version(1), "it has schema version 1, and this fork-trace reads version 2"),
        (
            "cut",
            first.clone() + "\n{\"type\":\"fork\",\"id\":\"1-",
            "line 2: the recording is cut off here",
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

/// What a message quotes may come from whoever wrote the file, or from who named it.
#[test]
fn no_message_gives_a_terminal_anything_to_obey() {
    let start = fs::read_to_string(SIMPLE).unwrap().lines().next().unwrap().to_owned();
    let escape = "\\u001b]0;owned\\u0007\\u009b31m\\u202e";
    let contents = [
        format!("{{\"type\":\"{escape}\"}}\n"),
        format!("{start}\n{{\"type\":\"fork\",\"kind\":\"{escape}\"}}\n"),
        format!("{start}\n{{\"type\":\"fork\",\"id\":\"1-1\",\"ts\":\"{escape}\"}}\n"),
        "\u{1b}]0;owned\u{7}\n".to_owned(),
    ];
    let harmless = |output: &Output| {
        let said = errors(output);
        let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!said.is_empty() && !said.contains(obeyed), "{said:?}");
        assert!(output.stdout.is_empty() || !printed(output).contains(obeyed));
    };
    for content in contents {
        let path = file("hostile", content);
        let output = fork_trace(&["replay", path.to_str().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert_eq!(output.status.code(), Some(1));
        harmless(&output);
    }
    for args in [
        &["replay", "/no/\u{1b}[2J\nfork-trace: fine"][..],
        &["explain", "\u{1b}[2J\u{202e}"],
        &["--\u{1b}[2J"],
        &["--\u{202e}x"],
        &["-e", "\u{1b}[2J"],
        &["\u{1b}[2J\u{7}"],
    ] {
        let output = fork_trace(args);
        assert_ne!(output.status.code(), Some(0));
        harmless(&output);
    }
}

#[test]
fn lines_before_a_bad_line_are_shown() {
    let whole = fs::read_to_string(SIMPLE).unwrap();
    let kept: Vec<&str> = whole.lines().take(3).collect();
    let path = file("bad", format!("{}\n{{\"type\":\"fo\n{whole}", kept.join("\n")));
    let output = fork_trace(&["replay", path.to_str().unwrap(), "--json"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(printed(&output), kept.join("\n") + "\n");
}

#[test]
fn a_recording_that_is_cut_off_gets_a_summary_and_is_told() {
    let whole = fs::read_to_string(SIMPLE).unwrap();
    let kept: Vec<&str> = whole.lines().take(3).collect();
    let loss =
        r#"{"type":"loss","records":7,"by":{"on_cpu_full":1,"ring_full":7},"since_mono_ns":1}"#;
    let kept = format!("{}\n{loss}\n", kept.join("\n"));
    for tail in ["", "{\"type\":\"fo"] {
        let path = file("tail", format!("{kept}{tail}"));
        let output = fork_trace(&["replay", path.to_str().unwrap(), "--json"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains("line 5: the recording is cut off here"), "{tail}");
        let text = printed(&output);
        let summary = text.strip_prefix(&kept).unwrap();
        for part in [
            r#"{"type":"summary","attempts":2,"succeeded":2,"#,
            r#""lost":7,"lost_by":{"on_cpu_full":1,"ring_full":7},"#,
        ] {
            assert!(summary.contains(part), "{summary}");
        }
        assert_eq!(summary.lines().count(), 1);
    }
}

#[test]
fn a_replay_shows_what_has_arrived() {
    let whole = fs::read_to_string(SIMPLE).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fork-trace"))
        .args(["replay", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut written = 0;
    for (end, _) in whole.match_indices('\n').take(3) {
        // The beginning of the next line is no reason to keep this one back.
        let begun = end + 6;
        stdin.write_all(&whole.as_bytes()[written..begun]).unwrap();
        written = begun;
        let mut shown = String::new();
        stdout.read_line(&mut shown).unwrap();
        assert!(whole[..=end].ends_with(&shown), "{shown}");
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn no_file_is_written_that_is_read_or_written_already() {
    let path = file("self.json", fs::read(SIMPLE).unwrap());
    let folder = path.parent().unwrap();
    let link = folder.join(format!("fork-trace-cli-{}-link.json", std::process::id()));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let new = folder.join(format!("fork-trace-cli-{}-new.json", std::process::id()));
    let (name, new_name) = (path.to_str().unwrap(), new.to_str().unwrap());
    let unclean = format!("{}/./{}", folder.display(), new.file_name().unwrap().display());
    let cases: [&[&str]; 3] = [
        &["replay", name, "-o", link.to_str().unwrap()],
        &["replay", name, "-o", new_name, "-o", name],
        &["replay", SIMPLE, "-o", new_name, "-o", &unclean],
    ];
    for case in cases {
        let output = fork_trace(case);
        assert_eq!(output.status.code(), Some(2), "{case:?}: {}", errors(&output));
        assert!(errors(&output).contains("the same file"), "{case:?}: {}", errors(&output));
        assert!(!new.exists(), "{case:?}: it was made for nothing");
    }
    // As the shell opens it.
    let as_output = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fork-trace"))
        .args(["replay", name])
        .stdout(as_output)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert_eq!(fs::read(&path).unwrap(), fs::read(SIMPLE).unwrap());
    let twice = fork_trace(&["replay", SIMPLE, "-o", "/dev/null", "-o", "/dev/null", "-o", "-"]);
    assert!(twice.status.success(), "{}", errors(&twice));
    fs::remove_file(link).unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn nothing_is_emptied_for_a_wrong_recording() {
    let kept = file("kept.json", "precious");
    let output = fork_trace(&["replay", "/etc/passwd", "-o", kept.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let output = fork_trace(&["replay", SIMPLE, "-o", kept.to_str().unwrap(), "-o", "/no/x.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("cannot write /no/x.json: No such file"),
        "{}",
        errors(&output)
    );
    assert_eq!(fs::read(&kept).unwrap(), b"precious");
    fs::remove_file(kept).unwrap();
}

#[test]
fn a_file_size_limit_is_a_full_disk() {
    let path = std::env::temp_dir().join(format!("fork-trace-cli-{}-limit", std::process::id()));
    let script = format!(
        "ulimit -f 1; exec {} replay {SIMPLE} --json -o {}",
        env!("CARGO_BIN_EXE_fork-trace"),
        path.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(output.status.code(), Some(1), "{:?}", output.status);
    assert!(errors(&output).contains("File too large"), "{}", errors(&output));
}

#[test]
fn an_output_that_fails_leaves_the_others_alone() {
    let good = file("good.jsonl", "");
    let output =
        fork_trace(&["replay", SIMPLE, "--json", "-o", "/dev/full", "-o", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert!(said.contains("cannot write /dev/full: No space left on device"), "{said}");
    let text = fs::read_to_string(&good).unwrap();
    let shown: String = text.lines().filter(|line| !line.contains("output-failed")).collect();
    assert_eq!(shown, fs::read_to_string(SIMPLE).unwrap().replace('\n', ""));
    fs::remove_file(good).unwrap();
}

#[test]
fn replay_reads_standard_input_and_writes_by_ending() {
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
fn a_summary_has_the_groups_that_were_asked_for() {
    let forms: [&[&str]; 6] = [
        &["-S"],
        &["-S", "comm"],
        &["-S=comm"],
        &["--summary=comm"],
        &["--summary", "comm"],
        &["-qS", "comm"],
    ];
    for (place, form) in forms.into_iter().enumerate() {
        let text = printed(&fork_trace(&[&["replay", SIMPLE], form].concat()));
        let title = if place == 0 { "\nKIND (HELD)" } else { "\nCOMM (HELD)" };
        assert!(text.contains(title), "{form:?}: {text}");
    }
    let output = fork_trace(&["replay", SIMPLE, "--summary=com"]);
    assert_eq!(output.status.code(), Some(2));
    let said = errors(&output);
    assert!(said.contains("'comm'") && said.contains("similar value"), "{said}");
}

/// The last object of a stream of JSON.
fn last_line(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn a_summary_reaches_the_terminal_wherever_the_data_goes() {
    let path = file("summed.json", "");
    let name = path.to_str().unwrap();
    let closing = |text: &str| text.lines().last().unwrap_or_default().contains(" shown, ");
    let output = fork_trace(&["replay", SIMPLE, "-o", name, "-S", "uid"]);
    let text = printed(&output);
    assert!(text.starts_with("UID (HELD)") && closing(&text), "{text}");
    assert_eq!(errors(&output), "");
    let recorded = last_line(&fs::read_to_string(&path).unwrap());
    assert_eq!(recorded["groups"]["by"], "uid");
    // The data has standard output for itself.
    for args in [&["-o", name, "-o", "-"][..], &[]] {
        let output = fork_trace(&[&["replay", SIMPLE, "--json", "-S"], args].concat());
        assert_eq!(last_line(&printed(&output))["type"], "summary");
        assert!(closing(&errors(&output)), "{}", errors(&output));
    }
    // A text that ends in the summary is enough.
    let output = fork_trace(&["replay", SIMPLE, "-o", name, "-o", "-", "-S"]);
    assert_eq!(printed(&output).matches("KIND (HELD)").count(), 1);
    assert_eq!(errors(&output), "");
    let output = fork_trace(&["replay", SIMPLE, "-o", name]);
    assert_eq!((printed(&output).as_str(), errors(&output).as_str()), ("", ""));
    // A summary that was recorded stays as it is until another one is asked for.
    fork_trace(&["replay", SIMPLE, "-o", name, "-S", "comm"]);
    assert_eq!(
        printed(&fork_trace(&["replay", name, "--json"])),
        fs::read_to_string(&path).unwrap()
    );
    let again = printed(&fork_trace(&["replay", name, "--json", "-S", "exe"]));
    assert_eq!(last_line(&again)["groups"]["by"], "exe");
    fs::remove_file(path).unwrap();
}

#[test]
fn every_text_ends_with_what_is_shown_and_what_is_not() {
    let whole = fs::read_to_string(SIMPLE).unwrap();
    let forks: Vec<_> = whole.lines().filter(|line| line.contains(r#""type":"fork""#)).collect();
    let made = forks.iter().filter(|line| line.contains(r#""child":"#)).count();
    let last = |args: &[&str]| {
        printed(&fork_trace(&[&["replay"], args].concat())).lines().last().unwrap().to_owned()
    };
    let shown = forks.len();
    assert!(last(&[SIMPLE, "-S"]).starts_with(&format!("{shown} shown, ")));
    assert!(last(&[SIMPLE]).contains(" shown, "), "{}", last(&[SIMPLE]));
    // What is left out here is counted with what was left out before.
    let summary = last_line(&whole);
    let filtered = summary["filtered"].as_u64().map(|before| before + made as u64);
    let none = last(&[SIMPLE, "-e", "ENOANO"]);
    let want = filtered.map_or(String::new(), |filtered| format!(" {filtered} filtered out,"));
    assert!(none.starts_with(&format!("0 shown,{want} 0 failed, ")), "{none}");
    assert!(none.ends_with(": the command made no fork that the filters let through"), "{none}");
    // One that was cut off knows how long it is, and not what was filtered out.
    let head = &whole[..whole.trim_end().rfind('\n').unwrap() + 1];
    let cut = file("cut.json", head);
    let name = cut.to_str().unwrap();
    assert_eq!(last(&[name]), last(&[name, "-S"]));
    assert!(last(&[name]).starts_with(&format!("{shown} shown, ")), "{}", last(&[name]));
    assert!(!last(&[name]).contains("filtered"), "{}", last(&[name]));
    let summed = last_line(&printed(&fork_trace(&["replay", name, "--json"])));
    assert!(summed["traced_ns"].as_u64().unwrap() > 0, "{summed}");
    fs::remove_file(cut).unwrap();
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

/// A stream in `tests/golden`.
fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}.jsonl", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_tree_is_text_and_says_so_before_anything_is_written() {
    let tree = golden("tree");
    let path = std::env::temp_dir().join(format!("fork-trace-cli-{}.json", std::process::id()));
    let json = path.to_str().unwrap();
    let wrong: [&[&str]; 4] = [
        &["replay", &tree, "--tree", "--json"],
        &["replay", &tree, "--tree", "-o", json],
        &["--tree", "--json", "--", "true"],
        &["--tree", "-o", json, "--", "true"],
    ];
    for args in wrong {
        let output = fork_trace(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
        let errors = errors(&output);
        assert!(errors.contains("no output is text") && errors.contains("hint: "), "{errors}");
        assert!(output.stdout.is_empty() && !path.exists(), "{args:?}");
    }
    let output = fork_trace(&["replay", &tree, "--tree", "-o", json, "-o", "-"]);
    assert!(printed(&output).contains("make -j2 all"), "{}", printed(&output));
    assert!(!printed(&output).contains("PARENT"), "attempts are not told beside the tree");
    assert!(fs::read_to_string(&path).unwrap().starts_with(&fs::read_to_string(&tree).unwrap()));
    fs::remove_file(path).unwrap();
}

#[test]
fn a_tree_says_what_its_recording_lacks() {
    let whole = fs::read_to_string(golden("tree")).unwrap();
    let without = |types: &[&str]| {
        let wanted =
            |line: &&str| !types.iter().any(|name| line.contains(&format!(r#""type":"{name}""#)));
        let lines: Vec<_> = whole.lines().filter(wanted).collect();
        let path = file("lacking", lines.join("\n") + "\n");
        let output = fork_trace(&["replay", path.to_str().unwrap(), "--tree"]);
        fs::remove_file(path).unwrap();
        printed(&output)
    };
    let missing = ["record with --exec", "record with --exit"];
    let said = |text: &str| missing.map(|words| text.contains(words));
    assert_eq!(said(&without(&[])), [false, false]);
    assert_eq!(said(&without(&["exec"])), [true, false]);
    assert_eq!(said(&without(&["exit"])), [false, true]);
    let bare = without(&["exec", "exit"]);
    assert_eq!(said(&bare), [true, true]);
    assert!(bare.contains("FORKS") && !bare.contains("LIFETIME"), "{bare}");
    let none = without(&["exec", "exit", "fork", "vfork_done"]);
    assert!(none.starts_with("0 processes\n\n0 shown, "), "{none}");
    let output = fork_trace(&["replay", &golden("stages"), "--tree"]);
    assert!(printed(&output).contains("record without --per-stage"), "{}", printed(&output));
}

#[test]
fn stages_are_lines_of_their_own_and_such_a_recording_is_read() {
    let output = fork_trace(&["replay", &golden("failures"), "--per-stage", "--json"]);
    let lines = printed(&output);
    let refused = lines.lines().filter(|line| line.contains(r#""errno":11"#)).collect::<Vec<_>>();
    let forks = fs::read_to_string(golden("failures")).unwrap();
    let want = forks.lines().filter(|line| line.contains(r#""errno":11"#)).count();
    assert_eq!(refused.len(), want, "each refused attempt says its error once");
    assert!(refused.iter().all(|line| line.contains(r#""type":"stage""#)), "{refused:?}");
    assert!(refused[0].contains(r#""limit":"pids.max""#), "{}", refused[0]);

    // What was recorded of stages is told as stages; where it is cut off, its summary is made of them.
    let recording = fs::read_to_string(golden("stages")).unwrap();
    let cut: Vec<_> = recording.lines().filter(|line| !line.contains(r#""summary""#)).collect();
    let path = file("stages", cut.join("\n") + "\n");
    let output = fork_trace(&["replay", path.to_str().unwrap(), "-S", "--utc"]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "it is cut off");
    let mut ids: Vec<_> = cut.iter().filter_map(|line| line.split_once(r#""fork_id":""#)).collect();
    ids.retain(|(head, _)| head.contains(r#""stage""#));
    let ids: std::collections::BTreeSet<_> =
        ids.iter().filter_map(|(_, rest)| rest.split('"').next()).collect();
    assert!(text.contains(&format!("\n{} shown, ", ids.len())), "{} of {text}", ids.len());
    assert!(text.lines().next().unwrap().contains("STAGE"), "{text}");
    let failed = fork_trace(&["replay", path.to_str().unwrap(), "-x", "--json"]);
    fs::remove_file(path).unwrap();
    let failed = printed(&failed);
    assert!(failed.contains(r#""errno":11"#) && !failed.contains(r#""child_tid""#), "{failed}");
}

#[test]
fn a_wrong_ending_is_answered_with_those_that_there_are() {
    let output = fork_trace(&["replay", SIMPLE, "-o", "x.csv"]);
    for ending in [".txt", ".json", ".jsonl", ".pftrace", ".gz or .zst"] {
        assert!(errors(&output).contains(ending), "{ending}: {}", errors(&output));
    }
}

#[test]
fn compressed_recordings_come_back_whatever_they_are_called() {
    let whole = fs::read(SIMPLE).unwrap();
    for ending in ["gz", "zst"] {
        let packed = file(&format!("packed.json.{ending}"), "");
        let output = fork_trace(&["replay", SIMPLE, "-o", packed.to_str().unwrap()]);
        assert!(output.status.success(), "{}", errors(&output));
        let bytes = fs::read(&packed).unwrap();
        assert!(bytes.len() < whole.len() / 2, "{} of {}", bytes.len(), whole.len());
        // What it is tells its content, not its name.
        let other = file(&format!("packed-{ending}.txt"), &bytes);
        let output = fork_trace(&["replay", other.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", errors(&output));
        assert_eq!(output.stdout, whole);
        // The programs that such files are made for agree, where they are there.
        let program = if ending == "gz" { "gzip" } else { "zstd" };
        match Command::new(program).args(["-q", "-d", "-c"]).arg(&packed).output() {
            Ok(output) => assert_eq!(output.stdout, whole, "{program}: {}", errors(&output)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{program}"),
        }

        // Cut off in the middle: what is there is shown, and the rest is told to be missing.
        fs::write(&other, &bytes[..bytes.len() - 30]).unwrap();
        let output = fork_trace(&["replay", other.to_str().unwrap(), "--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains("the recording is cut off here"), "{}", errors(&output));
        assert!(printed(&output).starts_with(r#"{"type":"start","#) || ending == "zst");
        fs::remove_file(packed).unwrap();
        fs::remove_file(other).unwrap();
    }
}

#[test]
fn every_format_goes_to_standard_output() {
    let text = fork_trace(&["replay", SIMPLE, "--format", "text", "-o", "-"]);
    assert!(printed(&text).starts_with("TIME"), "{}", printed(&text));
    let json = fork_trace(&["replay", SIMPLE, "--format", "json", "-o", "-"]);
    assert_eq!(json.stdout, fs::read(SIMPLE).unwrap());
    let path = file("x.pftrace", "");
    let written = fork_trace(&["replay", SIMPLE, "-o", path.to_str().unwrap()]);
    assert!(written.status.success(), "{}", errors(&written));
    let printed = fork_trace(&["replay", SIMPLE, "--format", "perfetto", "-o", "-"]);
    assert!(printed.status.success(), "{}", errors(&printed));
    assert!(printed.stdout.len() > 1_000);
    assert_eq!(printed.stdout, fs::read(&path).unwrap());
    fs::remove_file(path).unwrap();
}

#[test]
fn stacks_fold_from_a_recording() {
    let stacks = SIMPLE.replace("simple", "stacks");
    let folded = printed(&fork_trace(&["replay", &stacks, "--format", "folded"]));
    assert_eq!(folded, fs::read_to_string(stacks.replace("jsonl", "folded")).unwrap());
    // Of a recording that is cut off, what is there.
    let text = fs::read_to_string(&stacks).unwrap();
    let (third_ends, _) = text.match_indices('\n').nth(2).unwrap();
    let begun = file("cut.jsonl", &text[..third_ends + 50]);
    let cut = fork_trace(&["replay", begun.to_str().unwrap(), "--format", "folded"]);
    assert_eq!(cut.status.code(), Some(1));
    let lines = printed(&cut);
    assert!(!lines.is_empty() && lines.lines().all(|line| folded.contains(line)), "{lines}");
    fs::remove_file(begun).unwrap();
    let grouped = printed(&fork_trace(&["replay", &stacks, "-S", "stack"]));
    assert!(grouped.contains("execute_command_internal < [bash] < main"), "{grouped}");
    let left = "THREADS LEFT     OF  MADE BY\n       1,200  1,500  job;\\x1b[2J 4711: pthread_create < job::Pool";
    assert!(grouped.contains(left), "{grouped}");
    assert!(grouped.contains("\n7 more threads could not be followed"), "{grouped}");
    let narrowed = printed(&fork_trace(&["replay", &stacks, "-S", "stack", "-k", "vfork"]));
    assert!(!narrowed.contains("THREADS LEFT"), "{narrowed}");
    let none = printed(&fork_trace(&["replay", SIMPLE, "--format", "folded"]));
    assert!(none.lines().all(|line| line.contains(";[no stack] ")), "{none}");
}

#[test]
fn no_terminal_gets_bytes_that_only_programs_read() {
    let (mut master, mut terminal) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: it writes two descriptors, and what may be null is null.
    let made = unsafe { libc::openpty(&mut master, &mut terminal, none, none.cast(), none.cast()) };
    assert_eq!(made, 0);
    // SAFETY: nobody else has the two that were just made.
    let [_master, terminal] = [master, terminal].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    for args in [&["--format", "perfetto"][..], &["--format", "perfetto", "-o", "-"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_fork-trace"))
            .args(["replay", SIMPLE])
            .args(args)
            .stdout(terminal.try_clone().unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = errors(&output);
        assert!(said.contains("standard output is a terminal"), "{said}");
        assert!(said.contains("hint: write it to a file with -o FILE.pftrace"), "{said}");
    }
}

/// Runs a program on `text` by standard input; `None` where it is not installed.
fn run_on(program: &str, args: &[&str], text: &str) -> Option<Output> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    // A test says by itself what it asserts without the program.
    let mut child = child.ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Some(output)
}

#[test]
fn bash_completes_what_was_begun() {
    let script = printed(&fork_trace(&["completions", "bash"]));
    let checked = run_on("bash", &["-n"], &script).unwrap();
    assert!(checked.status.success(), "{}", errors(&checked));
    let complete = |words: &[&str]| {
        let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let ask = format!(
            "{script}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n\
             $(complete -p fork-trace | sed 's/.*-F \\([^ ]*\\).*/\\1/') fork-trace '{last}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words.len() - 1
        );
        let output = run_on("bash", &["--norc"], &ask).unwrap();
        assert_eq!(errors(&output), "");
        printed(&output)
    };
    assert_eq!(complete(&["fork-trace", "--stag"]), "--stages\n");
    assert!(complete(&["fork-trace", "repl"]).contains("replay\n"));
    assert_eq!(complete(&["fork-trace", "--format", "perf"]), "perfetto\n");
    assert_eq!(complete(&["fork-trace", "completions", "z"]), "zsh\n");
}

#[test]
fn zsh_and_fish_take_their_completions() {
    for (shell, head) in [("zsh", "#compdef fork-trace\n"), ("fish", "# Print an optspec")] {
        let script = printed(&fork_trace(&["completions", shell]));
        assert!(script.starts_with(head), "{shell}: {}", &script[..80]);
        for word in ["stages", "replay", "completions", "perfetto", "min-duration"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if let Some(checked) = run_on(shell, &["-n"], &script) {
            assert!(checked.status.success(), "{shell}: {}", errors(&checked));
        }
    }
}

#[test]
fn the_manual_page_is_sound() {
    let page = printed(&fork_trace(&["man"]));
    for part in [".TH fork-trace 1", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH FILTERS"] {
        assert!(page.contains(part), "{part}");
    }
    for part in
        ["\\-\\-stages", "\\-\\-backend", "\\-\\-format", "\nfork\\-trace replay\n", "Exit status"]
    {
        assert!(page.contains(part), "{part}");
    }
    if let Some(checked) = run_on("groff", &["-man", "-ww", "-Tutf8", "-P-cbou"], &page) {
        assert!(checked.status.success());
        assert_eq!(errors(&checked), "");
        assert!(printed(&checked).contains("--min-duration"));
    }
}

#[test]
fn a_configuration_is_looked_at_without_tracing() {
    let right = file("right.toml", "listen = \"127.0.0.1:0\"\n[filters]\nkind = [\"process\"]\n");
    let check =
        |path: &PathBuf| fork_trace(&["export", "--check", "--config", path.to_str().unwrap()]);
    let output = check(&right);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(printed(&output), "the configuration is right\n");
    let wrong = file("wrong.toml", "top = 5\n\nlisen = \"127.0.0.1:0\"\n");
    let output = check(&wrong);
    assert_eq!(output.status.code(), Some(2));
    let said = errors(&output);
    assert!(
        said.contains("wrong.toml, line 3: there is no key lisen here; did you mean listen?"),
        "{said}"
    );
    assert!(said.contains("\n  hint: "), "{said}");
    let output = check(&PathBuf::from("/nowhere/at/all.toml"));
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("all.toml: No such file"), "{}", errors(&output));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/export.toml");
    let output = check(&PathBuf::from(shipped));
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(fork_trace(&["export", "--check"]).status.code(), Some(2), "it names no file");
    for path in [right, wrong] {
        fs::remove_file(path).unwrap();
    }
}
