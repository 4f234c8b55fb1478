//! The live tests: they trace this very host, and so are run as root.
//!
//! This file builds and starts them. They know what they check, and when they skip.

use std::{env, fmt::Write as _, path::Path};

use anyhow::{Result, bail};

use super::outcome::{failures, must_run_all, passed};
use crate::{
    build::programs::{cargo_build, fork_trace, forker, live_tests},
    command::{as_root, output, output_and_result, root},
};

/// How many failed tests are tried again.
const MOST_AGAIN: usize = 3;

/// Builds everything the live tests use, and runs them. What fails is tried once more, alone, because another
/// program of the host may have disturbed it; the remark says so.
pub(super) fn run() -> Result<String> {
    // They are started by `env`, because sudo passes no environment on.
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
    tests.arg(live_tests()?).args(["--test-threads=1", "--show-output"]);
    let (text, result) = output_and_result(tests.current_dir(root().join("fork-trace")))?;
    let failed = failures(&text.lines().collect::<Vec<_>>());
    let mut remark = match result {
        Ok(()) => format!("{} tests", passed(&text)),
        // Where many fail, or the program did not come to its end, it is no disturbance.
        Err(error) if failed.is_empty() || failed.len() > MOST_AGAIN => bail!("{text}{error}"),
        Err(_) => {
            print!("{text}");
            let names = failed.iter().map(|(name, _)| name);
            let again = output(tests.arg("--exact").args(names))?;
            format!("{} tests", passed(&text) + passed(&again))
        }
    };
    for (name, reason) in failed {
        write!(remark, "\n    {name}: passed when tried again, after {reason}")?;
    }
    for skip in text.lines().filter(|line| line.starts_with("skip")) {
        write!(remark, "\n    {skip}")?;
    }
    Ok(remark)
}
