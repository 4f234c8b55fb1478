//! What the steps of `test` have in common: whether one may be left out, and how tests went.

use std::env;

/// Whether a check that cannot be made is a failure, as it is in CI.
pub(crate) fn must_run_all() -> bool {
    env::var_os("FORK_TRACE_LIVE").is_some_and(|value| value == "require")
}

/// How many tests passed, from the test programs' output.
pub(crate) fn passed(text: &str) -> u32 {
    let results = text.lines().filter_map(|line| line.strip_prefix("test result: "));
    let numbers = results.filter_map(|result| result.split_once(". ")?.1.split_once(" passed"));
    numbers.filter_map(|(number, _)| number.parse::<u32>().ok()).sum()
}

/// Which tests failed, each with its reason, from the lines that a test program printed.
pub(crate) fn failures(output: &[&str]) -> Vec<(String, String)> {
    // The names come twice, each time after `failures:`: with the details, and at the end.
    let names = output.iter().rev().skip_while(|line| !line.starts_with("test result"));
    let names = names.skip(1).take_while(|line| **line != "failures:");
    let names = names.filter_map(|line| line.strip_prefix("    "));
    let mut failed: Vec<_> = names.map(|name| (name.to_owned(), reason(output, name))).collect();
    failed.reverse();
    failed
}

/// The first words of a test's panic.
fn reason(output: &[&str], name: &str) -> String {
    let head = format!("---- {name} stdout ----");
    let details = output.iter().skip_while(|line| **line != head).skip(1);
    let mut details = details.take_while(|line| !line.starts_with("---- "));
    let place = details.find_map(|line| line.split_once("panicked at ")).map(|(_, place)| place);
    let words = details.next().copied().unwrap_or_default();
    format!("{} {words}", place.unwrap_or_default().rsplit('/').next().unwrap_or_default())
}
