//! The live tests: they trace this very host, and so are run as root.
//!
//! Builds and starts them; what they check, and when they skip, is theirs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    command::{as_root, output, program, root},
    run::{cargo_build, fork_trace, forker},
    test::{must_run_all, passed},
};

/// Builds everything the live tests use, and runs them.
pub(crate) fn live_tests() -> Result<String> {
    // `env`, because sudo passes no environment on.
    let mut tests = match as_root(Path::new("env")) {
        Err(error) if !must_run_all() => return Ok(format!("left out: {error:#}")),
        command => command?,
    };
    output(&mut cargo_build(&["--bins", "--examples"]))?;
    tests.arg(format!("FORK_TRACE_BIN={}", fork_trace().display()));
    tests.arg(format!("FORKER_BIN={}", forker().display()));
    for name in ["FORK_TRACE_LIVE", "RUST_BACKTRACE"] {
        if let Ok(value) = env::var(name) {
            tests.arg(format!("{name}={value}"));
        }
    }
    tests.arg(build()?).args(["--test-threads=1", "--show-output"]);
    let text = output(tests.current_dir(root().join("fork-trace")))?;

    let mut remark = format!("{} tests", passed(&text));
    for skip in text.lines().filter(|line| line.starts_with("skip")) {
        remark.push_str("\n    ");
        remark.push_str(skip);
    }
    Ok(remark)
}

/// Builds the test program.
fn build() -> Result<PathBuf> {
    let mut cargo = program("cargo");
    cargo.args(["test", "--quiet", "--package", "fork-trace", "--test", "live", "--no-run"]);
    executable(&mut cargo)
}

/// Runs a cargo command that builds the test program; cargo says where it is.
pub(crate) fn executable(cargo: &mut Command) -> Result<PathBuf> {
    let messages = output(cargo.arg("--message-format=json-render-diagnostics"))?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut live =
        messages.filter(|message| message.pointer("/target/name") == Some(&"live".into()));
    let program = live.find_map(|message| Some(message.get("executable")?.as_str()?.into()));
    program.context("cargo names no executable for the test target `live`")
}
