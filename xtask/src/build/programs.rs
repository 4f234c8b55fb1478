//! fork-trace's own programs: the tool, its example `forker` and its live tests, as cargo builds
//! them.
//!
//! This file knows where each is once it is built, and nothing of what is done with it.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{output, program, root};

/// Where fork-trace is once it is built.
pub(crate) fn fork_trace() -> PathBuf {
    root().join("target/release/fork-trace")
}

/// Where the example `forker` is once it is built.
pub(crate) fn forker() -> PathBuf {
    root().join("target/release/examples/forker")
}

/// Where the example `consumer` is once it is built.
pub(crate) fn consumer() -> PathBuf {
    root().join("target/release/examples/consumer")
}

/// The cargo command that builds these targets of package fork-trace to where we look for them.
pub(crate) fn cargo_build(targets: &[&str]) -> Command {
    let mut cargo = program("cargo");
    cargo.args(["build", "--release", "--package", "fork-trace", "--target-dir", "target"]);
    cargo.args(targets);
    cargo
}

/// Builds these targets. It shows on stderr what cargo compiles, and nothing if all is built
/// already.
pub(crate) fn build(targets: &[&str]) -> Result<()> {
    let mut cargo = cargo_build(targets).stderr(Stdio::piped()).spawn().context("start cargo")?;
    if let Some(stderr) = cargo.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line.context("read cargo's messages")?;
            if !line.trim_start().starts_with("Finished ") {
                eprintln!("{line}");
            }
        }
    }
    if !cargo.wait().context("wait for cargo")?.success() {
        bail!("fork-trace does not build: see cargo's messages above");
    }
    Ok(())
}

/// Builds the live tests; cargo says where their program is.
pub(crate) fn live_tests() -> Result<PathBuf> {
    let mut cargo = program("cargo");
    cargo.args(["test", "--quiet", "--package", "fork-trace", "--test", "live", "--no-run"]);
    let messages = output(cargo.arg("--message-format=json-render-diagnostics"))?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut live =
        messages.filter(|message| message.pointer("/target/name") == Some(&"live".into()));
    let program = live.find_map(|message| Some(message.get("executable")?.as_str()?.into()));
    program.context("cargo names no executable for the test target `live`")
}
