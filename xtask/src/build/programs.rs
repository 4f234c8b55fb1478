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

use crate::{
    build::apt::require,
    command::{output, program, root, run},
};

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
    shown(&mut cargo_build(targets))
}

/// Runs cargo, and shows on stderr what it compiles.
fn shown(cargo: &mut Command) -> Result<()> {
    let mut cargo = cargo.stderr(Stdio::piped()).spawn().context("start cargo")?;
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
    live_tests_by(&mut cargo_test())
}

fn cargo_test() -> Command {
    let mut cargo = program("cargo");
    cargo.args(["test", "--quiet", "--package", "fork-trace", "--test", "live", "--no-run"]);
    cargo
}

fn live_tests_by(cargo: &mut Command) -> Result<PathBuf> {
    let messages = output(cargo.arg("--message-format=json-render-diagnostics"))?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut live =
        messages.filter(|message| message.pointer("/target/name") == Some(&"live".into()));
    let program = live.find_map(|message| Some(message.get("executable")?.as_str()?.into()));
    program.context("cargo names no executable for the test target `live`")
}

/// Another machine that is built for, with Debian's cross compiler.
#[derive(Debug)]
pub(crate) struct Target {
    /// Rust's name of it.
    pub(crate) triple: &'static str,
    /// What the names of the compiler and of the binutils begin with.
    pub(crate) tools: &'static str,
    /// The Debian package that they come with.
    pub(crate) package: &'static str,
    /// Where its shared libraries are.
    pub(crate) libraries: &'static str,
}

/// The tool, its example `forker` and its live tests for another machine: where they are.
pub(crate) struct Crossed {
    /// The tool.
    pub(crate) fork_trace: PathBuf,
    /// The example.
    pub(crate) forker: PathBuf,
    /// The live tests.
    pub(crate) live: PathBuf,
}

impl Target {
    /// The compiler, or one of the binutils.
    pub(crate) fn tool(&self, name: &str) -> String {
        format!("{}{name}", self.tools)
    }

    /// Builds all that a guest runs. It is a development build, as the tests are, so that no crate is compiled
    /// twice: an emulated CPU takes its time whatever runs on it.
    pub(crate) fn build(&self) -> Result<Crossed> {
        require(&self.tool("gcc"), self.package)?;
        standard_library(self.triple)?;
        let linker = self.triple.to_uppercase().replace('-', "_");
        let linker = (format!("CARGO_TARGET_{linker}_LINKER"), self.tool("gcc"));
        let cross = |cargo: &mut Command| {
            cargo.env(&linker.0, &linker.1).args(["--target", self.triple]);
        };
        let mut cargo = program("cargo");
        cargo.args(["build", "--package", "fork-trace", "--target-dir", "target", "--bins"]);
        cross(cargo.arg("--examples"));
        shown(&mut cargo)?;
        let mut cargo = cargo_test();
        cross(&mut cargo);
        let built = root().join("target").join(self.triple).join("debug");
        Ok(Crossed {
            fork_trace: built.join("fork-trace"),
            forker: built.join("examples/forker"),
            live: live_tests_by(&mut cargo)?,
        })
    }
}

/// Where the standard library for a target is; it is fetched if it is not there.
pub(crate) fn standard_library(triple: &str) -> Result<PathBuf> {
    let folder = ["--print", "target-libdir", "--target", triple];
    let folder = PathBuf::from(output(program("rustc").args(folder))?.trim());
    if !folder.is_dir() {
        run(program("rustup").args(["target", "add", triple]))
            .with_context(|| format!("the standard library for {triple} is missing"))?;
    }
    Ok(folder)
}
