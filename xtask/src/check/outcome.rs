//! What the steps of `test` have in common: whether one may be left out, and how tests went.

use std::env;

/// Whether a check that cannot be made is a failure, as it is in CI.
pub(crate) fn must_run_all() -> bool {
    env::var_os("FORK_TRACE_LIVE").is_some_and(|value| value == "require")
}

/// How many tests passed, from the test programs' output.
pub(crate) fn passed(text: &str) -> u32 {
    let results = text.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|rest| rest.split_whitespace().next()?.parse::<u32>().ok()).sum()
}
