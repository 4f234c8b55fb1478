//! What others make of the files: Perfetto's own definitions, and the recipes for `DuckDB` and pandas in
//! docs/JSON.md. These packages come from `PyPI`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::support::{Folder, fork_trace, live_test, number, of_type, read, run, skip, wait};

/// What is installed.
const PACKAGES: [&str; 3] = ["duckdb==2.0.1", "pandas==3.1.1", "perfetto==0.59.1"];

/// A Python that has [`PACKAGES`]; what was installed once stays. The error is that there is none, as without
/// a network.
fn python() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (python, done) = (place.join("bin/python"), place.join("installed"));
    if fs::read_to_string(&done).is_ok_and(|text| text == PACKAGES.join(" ")) {
        return Ok(python);
    }
    let step = |command: &mut Command| {
        let child = command.stdout(std::process::Stdio::piped());
        let child = child.stderr(std::process::Stdio::piped()).spawn();
        let child = child.map_err(|error| format!("{command:?}: {error}"))?;
        let output = wait(child, Duration::from_secs(600));
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    };
    step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
    step(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    fs::write(done, PACKAGES.join(" ")).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Takes a Python that has the packages, or skips; where everything has to run, it must be there.
macro_rules! python_or_skip {
    () => {
        match python() {
            Ok(python) => python,
            Err(error) => {
                let required = env::var_os("FORK_TRACE_LIVE").is_some_and(|it| it == "require");
                assert!(!required, "{error}");
                skip!("{error}")
            }
        }
    };
}

fn succeeded(output: Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A recording of a pipeline, in the formats of these endings.
fn record(folder: &Folder, endings: &[&str]) {
    let mut traced = fork_trace();
    for ending in endings {
        traced.arg("-o").arg(folder.file(&format!("forks.{ending}")));
    }
    traced.args(["--exec", "--exit", "--", "sh", "-c", "ls / | sort | wc -l; (exit 3)"]);
    let output = run(&mut traced);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn perfetto_reads_what_is_written() {
    live_test!();
    let python = python_or_skip!();
    let folder = Folder::new("pftrace");
    record(&folder, &["json", "pftrace"]);
    let script = include_str!("read_pftrace.py");
    let trace = folder.file("forks.pftrace");
    let said =
        succeeded(run(Command::new(python).args(["-c", script]).arg(trace)), "read_pftrace.py");
    let said: Value = serde_json::from_str(&said).unwrap();
    let shown = read(&folder.file("forks.json"));
    let forks = of_type(&shown, "fork");
    let calls = said["calls"].as_array().unwrap();
    assert_eq!(calls.len(), forks.len());
    for (call, fork) in calls.iter().zip(&forks) {
        assert_eq!(call["name"], fork["syscall"]);
        assert_eq!((&call["tid"], &call["begin"]), (&fork["parent"]["tid"], &fork["mono_ns"]));
        assert_eq!(number(&call["end"]) - number(&call["begin"]), number(&fork["total_ns"]));
        assert_eq!(call["child"], fork["child"]["tid"], "the arrow leads to the child");
        let stages = fork["stages"].as_array().unwrap();
        let timed = stages.iter().filter(|stage| stage["start_ns"].is_u64()).count();
        assert_eq!(call["stages"], timed, "{fork}");
    }
    assert_eq!(said["forks"], forks.len(), "the counter has each");
    assert_eq!(said["failures"], 0);
    assert_eq!(said["realtime"], shown[0]["mono_ns"], "the clocks stand beside one another");
}

#[test]
fn each_python_recipe_of_the_docs_works() {
    live_test!();
    let python = python_or_skip!();
    let folder = Folder::new("recipes");
    record(&folder, &["json", "json.gz"]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/JSON.md");
    let page = fs::read_to_string(page).unwrap();
    let recipes: Vec<_> = page
        .split("```python\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```").map(|(recipe, _)| recipe))
        .collect();
    assert_eq!(recipes.len(), 2);
    for recipe in recipes {
        let mut command = Command::new(&python);
        let said = succeeded(run(command.args(["-c", recipe]).current_dir(folder.path())), recipe);
        for wanted in ["sh", "copy_process"] {
            assert!(said.contains(wanted), "{wanted}: {recipe}\n{said}");
        }
    }
}
