//! The tree of processes, and stages as events of their own.

use std::{fs, process::Command};

use fork_trace_common::stage::STAGES;

use crate::support::{Folder, fork_trace, forker, live_test, number, of_type, read, run, summary};

/// The line of the process that ran `command`, and how deep it is indented.
fn row<'a>(tree: &'a str, command: &str) -> (usize, &'a str) {
    let row = tree.lines().find(|row| row.ends_with(command));
    let row = row.unwrap_or_else(|| panic!("no {command} in {tree}"));
    let before = row.strip_suffix(command).unwrap().trim_end_matches("* ");
    (before.chars().count(), row)
}

#[test]
fn a_tree_says_who_made_whom_how_it_ended_and_what_took_longest() {
    live_test!();
    let folder = Folder::new("tree");
    let (text, json) = (folder.file("tree.txt"), folder.file("forks.json"));
    // The parent of the first ends before it, and is its parent all the same. The last one goes on.
    let script = "(sh -c 'exit 3' & exit 0); sh -c '(sleep 0.02; :) & wait'; sh -c 'kill -9 $$'; \
                  sleep 61 >/dev/null 2>&1 & sleep 1; exit 7";
    let output = run(fork_trace()
        .args(["--as-root", "--tree", "-o"])
        .arg(&text)
        .arg("-o")
        .arg(&json)
        .args(["--", "sh", "-c", script]));
    assert_eq!(output.status.code(), Some(7));
    let (tree, lines) = (fs::read_to_string(text).unwrap(), read(&json));
    let of = |command| row(&tree, command);
    let depth = |command| of(command).0;
    let has = |command, word: &str| of(command).1.split_whitespace().any(|cell| cell == word);
    assert!(has("sh -c 'exit 3'", "3") && has("sh -c 'kill -9 $$'", "SIGKILL"), "{tree}");
    assert!(has("sleep 61", "runs"), "{tree}");
    assert_eq!(depth("sleep 61"), depth("sleep 1"), "{tree}");
    assert_eq!(depth("sh -c 'exit 3'"), depth("sleep 1") + 2, "a grandchild: {tree}");
    assert_eq!(depth("sleep 0.02"), depth("sleep 1") + 4, "{tree}");
    let on_path = |command| of(command).1.ends_with(&format!("* {command}"));
    assert!(on_path("sleep 1") && !on_path("sleep 0.02"), "{tree}");
    // The same facts are lines of the JSON; --tree alone asks for them.
    for line in of_type(&lines, "fork") {
        let pid = number(&line["child"]["pid"]).to_string();
        assert!(
            tree.lines().any(|row| row.split_whitespace().next() == Some(&pid)),
            "{pid}: {tree}"
        );
    }
    assert!(of_type(&lines, "exit").iter().any(|exit| exit["code"] == 3));
    for exec in of_type(&lines, "exec").iter().filter(|exec| exec["argv"][1] == "61") {
        let pid = u32::try_from(number(&exec["pid"])).unwrap();
        crate::support::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn each_stage_is_an_event_and_a_refused_attempt_says_why() {
    live_test!();
    let folder = Folder::new("stages");
    let json = folder.file("stages.json");
    let mut tool = fork_trace();
    tool.args(["--per-stage", "-o"])
        .arg(&json)
        .arg("--")
        .arg(forker())
        .args(["fork-raw", "einval-thread"]);
    let output = run(&mut tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = read(&json);
    assert!(of_type(&lines, "fork").is_empty());
    let stages = of_type(&lines, "stage");
    let of_attempts: Vec<_> =
        stages.chunk_by(|one, next| one["fork_id"] == next["fork_id"]).collect();
    assert_eq!(summary(&lines)["attempts"], of_attempts.len());
    for stages in &of_attempts {
        let place = |name: &str| STAGES.iter().position(|row| row.name == name);
        let places: Vec<_> =
            stages.iter().filter_map(|stage| place(stage["name"].as_str().unwrap())).collect();
        assert!(places.is_sorted(), "{stages:#?}");
        let id = stages[0]["fork_id"].as_str().unwrap();
        let (_, began_ns) = id.split_once('-').unwrap();
        for stage in stages.iter().filter(|stage| stage["start_ns"].is_u64()) {
            let at_ns = began_ns.parse::<u64>().unwrap() + number(&stage["start_ns"]);
            assert_eq!(stage["mono_ns"], at_ns, "{stage}");
        }
        let refused = stages.iter().filter(|stage| stage["errno_name"].is_string()).count();
        assert_eq!(refused, usize::from(stages[0]["child_tid"].is_null()), "{stages:#?}");
    }
    let refused = stages.iter().find(|stage| stage["errno_name"] == "EINVAL").unwrap();
    assert_eq!(refused["cause"]["kind"], "invalid-flags", "{refused}");
    assert_eq!(refused["status"], "failed", "{refused}");
    // A recording of them is replayed to the byte.
    let again = run(Command::new(crate::support::tool().get_program())
        .arg("replay")
        .arg(&json)
        .arg("--json"));
    assert_eq!(again.stdout, fs::read(&json).unwrap());
}
