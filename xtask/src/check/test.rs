//! `test`: every check there is, cheapest first, up to the first that fails.
//!
//! This file knows the steps and when one may be left out. What a step checks is known to cargo or
//! to the tests.

use std::{
    io::{Write as _, stdout},
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{
    docs, live,
    outcome::{must_run_all, passed},
};
use crate::{
    build::{ebpf, toolchain::Toolchain},
    command::{output, program, root},
    rules,
};

/// Everything but the kernel side, which is no program for this machine.
const HOST: [&str; 4] = ["--quiet", "--workspace", "--exclude", "fork-trace-ebpf"];

/// A step's name, and what it does; it returns a remark for its line.
type Step = (&'static str, fn() -> Result<String>);

/// The steps, in the order in which they run.
const STEPS: [Step; 9] = [
    ("formatting", formatting),
    ("rules of the house", || rules::rules(&root())),
    ("lints", lints),
    ("lints of the kernel side", || output(&mut ebpf::clippy())),
    ("docs/STAGES.md", || docs::docs(true)),
    ("API docs", api_docs),
    ("unit, golden and CLI tests", host_tests),
    ("eBPF object", object),
    ("live tests", live::run),
];

/// Runs the steps, each with a line of its own.
pub(crate) fn test() -> Result<()> {
    let mut left_out = 0;
    for (name, step) in STEPS {
        print!("{name:<28}");
        stdout().flush().context("write to stdout")?;
        let start = Instant::now();
        let remark = step().inspect_err(|_| println!("FAILED")).context(name)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{seconds:>6.1} s  {}", remark.trim_end());
        left_out += u32::from(remark.starts_with("left out"));
    }
    match left_out {
        0 => println!("all passed"),
        some => println!("passed, {some} left out"),
    }
    Ok(())
}

fn formatting() -> Result<String> {
    output(program("cargo").args(["fmt", "--all", "--", "--check", "-l"]))
        .context("run `cargo fmt --all`")
}

fn lints() -> Result<String> {
    let deny = ["--", "-Dwarnings"];
    output(program("cargo").arg("clippy").args(HOST).arg("--all-targets").args(deny))?;
    // `--all-targets` leaves out what `cargo test` is told not to run.
    let live = ["clippy", "--quiet", "--package", "fork-trace", "--test", "live"];
    output(program("cargo").args(live).args(deny))
}

fn api_docs() -> Result<String> {
    let mut cargo = program("cargo");
    cargo.arg("doc").args(HOST).args(["--no-deps", "--document-private-items"]);
    output(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn host_tests() -> Result<String> {
    // Each run makes the same cases; `cargo xtask fuzz` makes others.
    let text = output(program("cargo").arg("test").args(HOST).env("PROPTEST_RNG_SEED", "1"))?;
    Ok(format!("{} tests", passed(&text)))
}

fn object() -> Result<String> {
    match Toolchain::complete() {
        Err(error) if !must_run_all() => Ok(format!("left out: {error:#}")),
        _ => ebpf::build(true),
    }
}
