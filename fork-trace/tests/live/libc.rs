//! The C library's side of a fork: `forker handlers` registers handlers that take 1, 2 and 3 ms, and
//! measures by its own clock how long each took.

use std::{fs, path::Path, process::Command};

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

/// Runs the tool, which writes a recording to `file`; returns what the traced command printed, and the recording.
/// `None` where no C library can be probed.
fn traced(tool: &mut Command, file: &Path) -> Option<(Vec<u8>, Vec<Value>)> {
    let output = run(tool);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let traced = read(file);
    is_probed(&traced).then_some((output.stdout, traced))
}

/// Within 5 %, or what a probe and a switch may take; otherwise what differs.
fn close(shown: u64, truth: u64, what: &str) -> Result<(), String> {
    let most = (truth / 20).max(slower(300_000));
    match shown.abs_diff(truth) <= most {
        true => Ok(()),
        false => Err(format!("{what}: shown {shown}, in truth {truth}")),
    }
}

/// How often a fork is made at most. Its caller may lose its CPU between a probe and the handler's own clock, and what
/// is compared then is not the same time.
const TRIES: usize = 8;

/// Compares each side of a fork with the handlers' own clocks.
fn sides(libc: &Value, truth: &Value, threads: &str) -> Result<(), String> {
    for (side, handlers) in [
        ("prepare_ns", "__run_prefork_handlers"),
        ("parent_ns", "__run_postfork_handlers"),
        ("child_ns", "atfork_run_child"),
    ] {
        let truth = ns(&truth[side]);
        let what = format!("{side} beside {threads} threads: {libc}");
        // When a child came to user space is not known where a switch of it was not seen.
        let whole = libc[side].as_u64().ok_or_else(|| format!("{what}: not known"))?;
        assert!(whole + slower(100_000) >= truth, "{what}");
        // Threads that allocate are waited for, and the handlers' own time is told apart where the
        // library's debug symbols are there.
        match part(libc, handlers) {
            Some(shown) => close(shown, truth, &what)?,
            None if threads == "0" => close(whole, truth, &what)?,
            None => {}
        }
    }
    Ok(())
}

#[test]
fn handlers_are_told_on_their_side_of_the_call() {
    live_test!();
    for threads in ["0", "4"] {
        let mut differs = None;
        for _ in 0..TRIES {
            let mut tool = fork_trace();
            tool.arg("--libc");
            let Some((truth, fork, traced)) = one_fork(tool, "handlers", threads) else {
                break;
            };
            if !is_probed(&traced) {
                skip!("no C library can be probed");
            }
            assert_eq!(fork["libc"]["function"], "fork", "{fork}");
            assert_eq!(summary(&traced)["accounted"], true);
            differs = sides(&fork["libc"], &truth, threads).err();
            if differs.is_none() {
                break;
            }
        }
        assert_eq!(differs, None);
    }
}

/// Compares each handler with its own clock, in a recording of `forker handlers`.
fn handlers(traced: &[Value], truth: &Value) -> Result<(), String> {
    let forks = of_type(traced, "fork");
    let libc = &forks.iter().find(|fork| fork["child"]["tid"] == truth["child"]).unwrap()["libc"];
    // Before 5.15 a kernel does not tell which of the handlers runs.
    let kernel = traced[0]["host"]["kernel"].as_str().unwrap();
    let mut numbers = kernel.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let is_timed = (numbers.next(), numbers.next()) >= (Some(5), Some(15));
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
        let dur = handler["dur_ns"].as_u64();
        if !is_timed {
            assert_eq!(dur, None, "{libc}");
            continue;
        }
        let dur = dur.ok_or_else(|| format!("{turn} is not timed: {libc}"))?;
        close(dur, ns(&truth[format!("{turn}_ns")]), &format!("{turn}: {libc}"))?;
    }
    Ok(())
}

#[test]
fn each_handler_is_named_and_timed() {
    live_test!();
    let folder = Folder::new("handlers-by-name");
    let file = folder.file("forks.json");
    // It takes the kernel a moment to probe handlers once they are registered.
    let pause_ms = slower(500).to_string();
    let mut differs = None;
    for _ in 0..TRIES {
        let mut tool = fork_trace();
        tool.args(["--libc", "--stages=all", "-o"]).arg(&file).arg("--").arg(forker());
        let Some((printed, traced)) = traced(tool.args(["handlers", "0", &pause_ms]), &file) else {
            skip!("no C library can be probed");
        };
        assert_eq!(summary(&traced)["accounted"], true);
        differs = handlers(&traced, &lines(&printed).remove(0)).err();
        if differs.is_none() {
            break;
        }
    }
    assert_eq!(differs, None);
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
    let Some((_, traced)) = traced(&mut tool, &file) else {
        skip!("no C library can be probed");
    };
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
    let markers = page.lines().filter_map(|line| line.strip_prefix("<!-- stages: "));
    let names: Vec<_> =
        markers.flat_map(|marker| marker.trim_end_matches(" -->").split("; ")).collect();
    let mut missing = Vec::new();
    // On a busy host the handlers may not be probed yet when the program forks.
    for _ in 0..TRIES {
        let mut tool = fork_trace();
        tool.args(["--stages=all", "--libc", "--exit", "-o"]).arg(&file).arg(&walk);
        let output = run(&mut tool);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = fs::read_to_string(&file).unwrap();
        let rows: Vec<_> = told.lines().map(str::trim_start).collect();
        missing = names.clone();
        missing.retain(|name| !rows.iter().any(|row| is_row(row, name)));
        if missing.is_empty() {
            break;
        }
    }
    assert_eq!(missing, [""; 0]);
}

/// Whether a row of the output is the one that the page names: `walk+ (prepare)` begins with the first and has the
/// second in it.
fn is_row(row: &str, name: &str) -> bool {
    match name.split_once(" (") {
        Some((begins, word)) => row.starts_with(begins) && row.contains(word),
        None if name.ends_with(':') => row.starts_with(name),
        None => row.split("  ").next() == Some(name),
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
    let Some((_, traced)) = traced(&mut tool, &file) else {
        skip!("no C library can be probed");
    };
    let forks = of_type(&traced, "fork");
    let of = |comm: &str| forks.iter().find(|fork| fork["parent"]["comm"] == comm).unwrap();
    let shell = of("sh");
    if shell["libc"]["reason"] == "no-library" {
        skip!("the shell here has its C library built in");
    }
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
    let Some((_, traced)) = traced(&mut tool, &file) else {
        skip!("no C library can be probed");
    };
    let forks = of_type(&traced, "fork");
    let of = |comm: &str| forks.iter().rfind(|fork| fork["parent"]["comm"] == comm).unwrap();
    let shell = &of("sh")["libc"];
    if shell["reason"] == "no-library" {
        skip!("the shell here has its C library built in");
    }
    assert_eq!(shell["function"], "fork", "{shell}");
    assert!(shell["parent_ns"].is_u64() && shell["child_ns"].is_u64(), "{shell}");
    let raw = &of("forker")["libc"];
    assert!(raw["function"].is_null() && raw["prepare_ns"].is_null(), "{raw}");
}
