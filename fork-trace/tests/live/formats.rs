//! Every format of one trace says the same.

use std::{fs, process::Command};

use crate::{
    perfetto::Trace,
    support::{Folder, check, fork_trace, live_test, number, of_type, read, run, tool},
};

#[test]
fn every_output_of_a_trace_says_the_same() {
    live_test!();
    let folder = Folder::new("formats");
    let file = |ending: &str| folder.file(&format!("forks.{ending}"));
    let mut traced = fork_trace();
    for ending in ["json", "json.gz", "jsonl.zst", "pftrace"] {
        traced.arg("-o").arg(file(ending));
    }
    let command = "ls / | wc -l; (exit 3); true & wait";
    let output = run(traced.args(["--exec", "--exit", "--", "sh", "-c", command]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = read(&file("json"));
    check(&shown);
    let json = fs::read(file("json")).unwrap();
    for ending in ["json.gz", "jsonl.zst"] {
        assert!(fs::metadata(file(ending)).unwrap().len() < json.len() as u64 / 2, "{ending}");
        let replayed = run(tool().arg("replay").arg(file(ending)).arg("--json"));
        assert!(replayed.status.success(), "{ending}: {replayed:?}");
        assert_eq!(replayed.stdout, json, "{ending}");
    }

    let replay = ["--format", "perfetto", "-o", "-"];
    let replayed =
        run(Command::new(tool().get_program()).arg("replay").arg(file("json")).args(replay));
    let live = fs::read(file("pftrace")).unwrap();
    assert_eq!(replayed.stdout, live, "a replay gives the same bytes");
    let trace = Trace::read(&live);
    trace.has_ended();
    let forks = of_type(&shown, "fork");
    for fork in &forks {
        let (call, pid) = (fork["syscall"].as_str().unwrap(), &fork["child"]["pid"]);
        let begin = format!("{} ", number(&fork["mono_ns"]));
        let is_it =
            |line: &&String| line.starts_with(&begin) && line.contains(&format!("{call:?}"));
        let line = trace.lines.iter().find(is_it).unwrap_or_else(|| panic!("{fork}"));
        assert!(line.contains(&format!("child: {{pid: {pid}, tid: {pid}}}")), "{line}");
    }
    assert!(forks.len() >= 4, "{}", forks.len());
    assert_eq!(trace.arrows.len(), forks.len());
    for (kind, least) in [("exec", 2), ("exit", forks.len())] {
        let told =
            trace.lines.iter().filter(|line| line.contains(&format!("\" {kind} {{"))).count();
        assert_eq!(told, of_type(&shown, kind).len());
        assert!(told >= least, "{kind}: {told}");
    }
}
