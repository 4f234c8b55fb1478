//! The live tests: they trace this very host, and so are run as root.
//!
//! This file builds and starts them. They know what they check, and when they skip.

use std::{env, path::Path};

use anyhow::Result;

use super::outcome::{must_run_all, passed};
use crate::{
    build::programs::{cargo_build, fork_trace, forker, live_tests},
    command::{as_root, output, root},
};

/// Builds everything the live tests use, and runs them.
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
    let text = output(tests.current_dir(root().join("fork-trace")))?;

    let mut remark = format!("{} tests", passed(&text));
    for skip in text.lines().filter(|line| line.starts_with("skip")) {
        remark.push_str("\n    ");
        remark.push_str(skip);
    }
    Ok(remark)
}
