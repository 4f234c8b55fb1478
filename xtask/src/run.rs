//! `run`: builds fork-trace and becomes it, as root. Also where fork-trace's release build is,
//! and that of its example `forker`, which the live tests and `bench` run too.
//!
//! Knows none of fork-trace's arguments; they are passed on as they came.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, program, root};

/// Where fork-trace is once built.
pub(crate) fn fork_trace() -> PathBuf {
    root().join("target/release/fork-trace")
}

/// Where the example `forker` is once built.
pub(crate) fn forker() -> PathBuf {
    root().join("target/release/examples/forker")
}

/// Builds fork-trace, then runs it in our place, so that signals and exit status are its own.
pub(crate) fn run(args: Vec<OsString>) -> Result<()> {
    let mut command = as_root(&fork_trace())?;
    build(&["--bin", "fork-trace"])?;
    Err(command.args(args).exec()).with_context(|| format!("run {}", fork_trace().display()))
}

/// The cargo command that builds these targets of package fork-trace, to where we look for them.
pub(crate) fn cargo_build(targets: &[&str]) -> Command {
    let mut cargo = program("cargo");
    cargo.args(["build", "--release", "--package", "fork-trace", "--target-dir", "target"]);
    cargo.args(targets);
    cargo
}

/// Builds; shows on stderr what cargo compiles, and nothing when there is nothing to compile.
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
