//! The C library's side of a fork: `forker handlers` registers handlers that take 1, 2 and 3 ms, and
//! measures by its own clock how long each took.

use std::{fs, process::Command};

use serde_json::Value;

use crate::support::{
    Folder, fork_trace, forker, lines, live_test, ns, of_type, one_fork, read, run, skip, slower,
    summary,
};

/// The library's part of a stage's name.
fn part(libc: &Value, name: &str) -> Option<u64> {
    let stages = libc["stages"].as_array()?;
    let stage = stages.iter().find(|stage| stage["name"] == name)?;
    Some(ns(&stage["dur_ns"]))
}

/// Whether a C library is probed here.
fn is_probed(traced: &[Value]) -> bool {
    let coverage = traced[0]["coverage"].as_array().unwrap();
    coverage.iter().any(|row| row["name"] == "fork" && row["precision"] == "exact")
}

/// Within 5 %, or what a probe and a switch may take.
fn close(shown: u64, truth: u64, what: &str) {
    let most = (truth / 20).max(slower(300_000));
    assert!(shown.abs_diff(truth) <= most, "{what}: shown {shown}, in truth {truth}");
}

#[test]
fn handlers_are_told_on_their_side_of_the_call() {
    live_test!();
    for threads in ["0", "4"] {
        let mut tool = fork_trace();
        tool.arg("--libc");
        let Some((truth, fork, traced)) = one_fork(tool, "handlers", threads) else {
            continue;
        };
        if !is_probed(&traced) {
            skip!("no C library can be probed");
        }
        let libc = &fork["libc"];
        assert_eq!(libc["function"], "fork", "{fork}");
        for (side, handlers) in [
            ("prepare_ns", "__run_prefork_handlers"),
            ("parent_ns", "__run_postfork_handlers"),
            ("child_ns", "atfork_run_child"),
        ] {
            let truth = ns(&truth[side]);
            let what = format!("{side} beside {threads} threads: {libc}");
            // Threads that allocate are waited for, and the handlers' own time is told apart where the
            // library's debug symbols are there.
            match part(libc, handlers) {
                // In an emulated guest the threads take the caller's CPU for many milliseconds between a handler
                // and its probe.
                Some(shown) if threads != "0" && slower(1000) > 2000 => {
                    assert!(shown >= truth, "{what}: shown {shown}, in truth {truth}");
                }
                Some(shown) => close(shown, truth, &what),
                None if threads == "0" => close(ns(&libc[side]), truth, &what),
                None => {}
            }
            assert!(ns(&libc[side]) + slower(100_000) >= truth, "{what}");
        }
        assert_eq!(summary(&traced)["accounted"], true);
    }
}

#[test]
fn each_handler_is_named_and_timed() {
    live_test!();
    let folder = Folder::new("handlers-by-name");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.args(["--libc", "--stages=all", "-o"]).arg(&file).arg("--").arg(forker());
    // It takes the kernel a moment to probe handlers once they are registered.
    let pause_ms = slower(500).to_string();
    let output = run(tool.args(["handlers", "0", &pause_ms]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let truth = lines(&output.stdout).remove(0);
    let traced = read(&file);
    if !is_probed(&traced) {
        skip!("no C library can be probed");
    }
    let forks = of_type(&traced, "fork");
    let libc = &forks.iter().find(|fork| fork["child"]["tid"] == truth["child"]).unwrap()["libc"];
    for turn in ["prepare", "parent", "child"] {
        let handlers = libc["handlers"].as_array().unwrap_or_else(|| panic!("{libc}"));
        let own = handlers.iter().filter(|handler| handler["turn"] == turn);
        let own: Vec<_> = own.collect();
        let [handler] = own.as_slice() else { panic!("{turn}: {libc}") };
        let module = handler["module"].as_str().unwrap();
        assert_eq!(
            fs::canonicalize(module).unwrap(),
            fs::canonicalize(forker()).unwrap(),
            "{libc}"
        );
        if let Some(function) = handler["function"].as_str() {
            assert!(function.contains(turn), "{libc}");
        }
        // A kernel that does not tell which library it is (before 5.15) does not tell which handler either.
        if libc["library"].is_string() {
            close(
                ns(&handler["dur_ns"]),
                ns(&truth[format!("{turn}_ns")]),
                &format!("{turn}: {libc}"),
            );
        }
    }
    assert_eq!(summary(&traced)["accounted"], true);
}

#[test]
fn handlers_are_those_of_the_program_that_forks() {
    live_test!();
    let folder = Folder::new("handlers-inherited");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.args(["--libc", "-k", "process", "-o"]).arg(&file).arg("--").arg("sh");
    // The first program has handlers; the shell that then forks in the same process has none.
    let script = "FORKER handlers; exec sh -c '(:); (:)'";
    tool.arg("-c").arg(script.replace("FORKER", &forker().display().to_string()));
    let output = run(&mut tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = read(&file);
    if !is_probed(&traced) {
        skip!("no C library can be probed");
    }
    let forks = of_type(&traced, "fork");
    for fork in forks.iter().filter(|fork| fork["libc"]["function"] == "fork") {
        let has = fork["libc"]["handlers"].as_array().is_some_and(|all| all.len() == 3);
        assert_eq!(has, fork["parent"]["comm"] == "forker", "{fork}");
    }
}

#[test]
fn the_walk_through_a_fork_goes_as_its_page_says() {
    live_test!();
    let page = include_str!("../../../docs/WALKTHROUGH.md");
    let program = page.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = Folder::new("walkthrough");
    let (source, walk, file) =
        (folder.file("walk.c"), folder.file("walk"), folder.file("walk.txt"));
    fs::write(&source, program).unwrap();
    let compiled = Command::new("cc").arg("-o").arg(&walk).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        skip!("there is no C compiler");
    }
    let mut tool = fork_trace();
    tool.args(["--stages=all", "--libc", "--exit", "-o"]).arg(&file).arg(&walk);
    let output = run(&mut tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = fs::read_to_string(&file).unwrap();
    let markers = page.lines().filter_map(|line| line.strip_prefix("<!-- stages: "));
    let names = markers.flat_map(|marker| marker.trim_end_matches(" -->").split("; "));
    for name in names {
        let (begins, word) = name.split_once(" (").unwrap_or((name, ""));
        let is_row = |row: &str| row.trim_start().starts_with(begins) && row.contains(word);
        assert!(told.lines().any(is_row), "{name} is not in:\n{told}");
    }
}

#[test]
fn wrappers_are_named_and_what_passes_none_has_a_reason() {
    live_test!();
    let folder = Folder::new("wrappers");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.arg("--libc").arg("-o").arg(&file).arg("--");
    tool.arg("sh").arg("-c").arg(format!("(true); {} fork-raw", forker().display()));
    let output = run(&mut tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = read(&file);
    if !is_probed(&traced) {
        skip!("no C library can be probed");
    }
    let forks = of_type(&traced, "fork");
    let of = |comm: &str| forks.iter().find(|fork| fork["parent"]["comm"] == comm).unwrap();
    let shell = of("sh");
    assert!(shell["libc"]["function"].is_string(), "{shell}");
    assert!(shell["libc"]["prepare_ns"].is_u64(), "{shell}");
    let raw = of("forker");
    assert!(raw["libc"]["function"].is_null(), "{raw}");
    let reason = raw["libc"]["reason"].as_str().unwrap();
    assert!(["not-by-wrapper", "unknown"].contains(&reason), "{raw}");
}

#[test]
fn a_vfork_that_is_not_shown_is_not_taken_for_the_wrapper_of_a_later_fork() {
    live_test!();
    let folder = Folder::new("unshown-wrapper");
    let file = folder.file("forks.json");
    let mut tool = fork_trace();
    tool.args(["--libc", "-k", "process", "-o"]).arg(&file).arg("--").arg("sh");
    // A shell may start a program by vfork. Then it makes a shell of its own by fork, and becomes a program that
    // forks past its library.
    let script = "FORKER true; (:); FORKER true; exec FORKER fork-raw";
    tool.arg("-c").arg(script.replace("FORKER", &forker().display().to_string()));
    let output = run(&mut tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = read(&file);
    if !is_probed(&traced) {
        skip!("no C library can be probed");
    }
    let forks = of_type(&traced, "fork");
    let of = |comm: &str| forks.iter().rfind(|fork| fork["parent"]["comm"] == comm).unwrap();
    let shell = &of("sh")["libc"];
    assert_eq!(shell["function"], "fork", "{shell}");
    assert!(shell["parent_ns"].is_u64() && shell["child_ns"].is_u64(), "{shell}");
    let raw = &of("forker")["libc"];
    assert!(raw["function"].is_null() && raw["prepare_ns"].is_null(), "{raw}");
}
