//! `fuzz`: runs the property tests whose names begin with `fuzz_` for as long as is asked for.
//!
//! The targets are fork-trace's own tests. They are built as fast as a release, with the checks of a
//! debug build. proptest takes the number of cases and the seed from the environment.

use std::{
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{output, program};

/// What the name of a target's test begins with.
const TARGET: &str = "fuzz_";

/// How many cases one run makes.
const CASES: u64 = 50_000;

/// Fuzzes each target whose name contains `wanted`, `minutes` each, and says what was done.
pub(crate) fn fuzz(minutes: u64, seed: u64, wanted: &str) -> Result<()> {
    let mut any = false;
    for tests in test_programs()? {
        for target in targets(&tests)?.iter().filter(|target| target.contains(wanted)) {
            any = true;
            run(&tests, target, Duration::from_secs(60 * minutes), seed)?;
        }
    }
    if any { Ok(()) } else { bail!("no target's name contains {wanted:?}") }
}

/// Builds the programs that hold the targets.
fn test_programs() -> Result<Vec<PathBuf>> {
    let mut cargo = program("cargo");
    cargo.args(["test", "--quiet", "--profile", "fuzz", "--package", "fork-trace", "--no-run"]);
    cargo.args(["--lib", "--test", "fuzz", "--message-format=json-render-diagnostics"]);
    let messages = output(&mut cargo)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // cargo names the program `fork-trace` too, which is built for the tests and has none in it.
    let tests = messages.filter(|message| message.pointer("/profile/test") == Some(&true.into()));
    let program = |message: Value| Some(PathBuf::from(message.get("executable")?.as_str()?));
    Ok(tests.filter_map(program).collect())
}

/// The whole names of the targets that a test program holds.
fn targets(tests: &Path) -> Result<Vec<String>> {
    let list = output(Command::new(tests).args(["--list", "--format=terse"]))?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_target = |name: &&str| name.rsplit("::").next().is_some_and(|n| n.starts_with(TARGET));
    Ok(names.filter(is_target).map(str::to_owned).collect())
}

/// Runs one target with one seed after the other until the time is up.
fn run(tests: &Path, target: &str, time: Duration, first: u64) -> Result<()> {
    print!("{target:<50}");
    stdout().flush().context("write to stdout")?;
    let start = Instant::now();
    let mut runs = 0;
    while runs == 0 || start.elapsed() < time {
        let seed = first + runs;
        let mut test = Command::new(tests);
        test.args(["--exact", target]);
        test.env("PROPTEST_CASES", CASES.to_string()).env("PROPTEST_RNG_SEED", seed.to_string());
        output(&mut test).with_context(|| format!("PROPTEST_RNG_SEED={seed}"))?;
        runs += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:>12} cases in {seconds:>6.0} s, seeds {first} to {}",
        runs * CASES,
        first + runs - 1
    );
    Ok(())
}
