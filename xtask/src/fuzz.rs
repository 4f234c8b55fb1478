//! `fuzz`: runs the property tests whose names begin with `fuzz_` for as long as is asked for.
//!
//! The targets are fork-trace's own tests. They are built as fast as a release, with the checks of a
//! debug build. proptest takes the number of cases and the seed from the environment. Time is CPU time, so
//! that a busy machine makes a run longer and not weaker.

use std::{
    fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{output, program};

/// What the name of a target's test begins with.
const TARGET: &str = "fuzz_";

/// How many cases one run makes.
const CASES: u64 = 50_000;

/// When a target is done with: whichever comes first.
#[derive(Clone, Copy)]
pub(crate) struct Enough {
    /// Minutes of CPU time.
    pub(crate) minutes: u64,
    /// Cases.
    pub(crate) cases: Option<u64>,
}

/// Fuzzes each target whose name contains `wanted` until it is enough, and says what was done.
pub(crate) fn fuzz(enough: Enough, seed: u64, wanted: &str) -> Result<()> {
    let mut any = false;
    for tests in test_programs()? {
        for target in targets(&tests)?.iter().filter(|target| target.contains(wanted)) {
            any = true;
            run(&tests, target, enough, seed)?;
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

/// Runs one target with one seed after the other until it is enough.
fn run(tests: &Path, target: &str, enough: Enough, first: u64) -> Result<()> {
    print!("{target:<50}");
    stdout().flush().context("write to stdout")?;
    let before = cpu_seconds_of_children()?;
    let (mut runs, mut seconds) = (0, 0.0);
    while runs == 0
        || (seconds < 60.0 * enough.minutes as f64
            && enough.cases.is_none_or(|most| runs * CASES < most))
    {
        let seed = first + runs;
        let mut test = Command::new(tests);
        test.args(["--exact", target]);
        test.env("PROPTEST_CASES", CASES.to_string()).env("PROPTEST_RNG_SEED", seed.to_string());
        output(&mut test).with_context(|| format!("PROPTEST_RNG_SEED={seed}"))?;
        runs += 1;
        seconds = cpu_seconds_of_children()? - before;
    }
    println!(
        "{:>12} cases in {seconds:>6.0} s of CPU time, seeds {first} to {}",
        runs * CASES,
        first + runs - 1
    );
    Ok(())
}

/// CPU time of the programs that were started here and have ended.
///
/// KERNEL: fs/proc/array.c `do_task_stat`: `cutime` and `cstime`, in ticks of which a second has 100.
fn cpu_seconds_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has no name in it")?;
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>().context("read CPU times in /proc/self/stat")?;
    Ok(ticks as f64 / 100.0)
}
