//! Reading what the tool and `forker` wrote: lines of JSON, and what holds for every stream of
//! them.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use fork_trace::event::schema::schema;
use jsonschema::{Validator, validator_for};
use serde_json::Value;

use super::host::slowness;

/// Each line of JSON; every line has to be whole. The stages of attempts get what their own lines leave out,
/// because the first line says it already or it goes without saying.
pub(crate) fn lines(text: impl AsRef<[u8]>) -> Vec<Value> {
    let text = std::str::from_utf8(text.as_ref()).unwrap();
    let mut coverage = Value::Null;
    let line = |line| {
        let mut line: Value = serde_json::from_str(line).expect(line);
        if line["type"] == "start" {
            coverage = line["coverage"].clone();
        }
        if coverage.is_array() {
            is_in_schema(&line);
        }
        if line["type"] == "fork" {
            line["stages"]
                .as_array_mut()
                .into_iter()
                .flatten()
                .for_each(|stage| fill(stage, &coverage));
        }
        line
    };
    text.lines().map(line).collect()
}

/// Asserts that a line of the tool's is as the schema says.
fn is_in_schema(line: &Value) {
    // What a line looks like does not depend on the kernel, and emulation is slow.
    if slowness() > 1.0 {
        return;
    }
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    let validator = VALIDATOR.get_or_init(|| validator_for(&schema()).unwrap());
    let wrong = || validator.iter_errors(line).map(|error| error.to_string()).collect::<Vec<_>>();
    assert!(validator.is_valid(line), "{:#?}: {line}", wrong());
}

/// Adds what a stage of an attempt leaves out.
fn fill(stage: &mut Value, coverage: &Value) {
    if stage["status"].is_null() {
        stage["status"] = "done".into();
    }
    if !stage["dur_ns"].is_u64() {
        stage["precision"] = "missing".into();
        return;
    }
    if stage["self_ns"].is_null() && stage["of"].is_null() {
        stage["self_ns"] = stage["dur_ns"].clone();
    }
    if stage["precision"].is_null() {
        let mut rows = coverage.as_array().into_iter().flatten();
        let row =
            rows.find(|row| row["name"] == stage["name"]).expect("the first line has all stages");
        stage["precision"] = row["precision"].clone();
        stage["source"] = row["source"].clone();
    }
}

/// Each line of a file.
pub(crate) fn read(path: &Path) -> Vec<Value> {
    lines(fs::read(path).unwrap())
}

/// The lines of one type.
pub(crate) fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).collect()
}

/// The lines of one type by the id of their fork; those of the traced command itself have none.
pub(crate) fn by_fork<'a>(lines: &'a [Value], name: &str) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut found: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in of_type(lines, name) {
        if let Some(fork) = event["fork_id"].as_str() {
            found.entry(fork).or_default().push(event);
        }
    }
    found
}

/// The last line, which has to be the summary.
pub(crate) fn summary(lines: &[Value]) -> &Value {
    let last = lines.last().expect("a stream is not empty");
    assert_eq!(last["type"], "summary", "the last line is always the summary");
    last
}

/// Asserts that every new task of the host was counted once.
pub(crate) fn accounted(lines: &[Value]) {
    assert_eq!(summary(lines)["accounted"], true, "{}", summary(lines));
}

/// Whether stages are bounded by function probes.
pub(crate) fn functions_are_probed(lines: &[Value]) -> bool {
    lines[0]["backend"] == "fentry" || lines[0]["backend"] == "kprobe"
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A stage of a fork, or of the first line, which tells how each can be seen.
pub(crate) fn stage<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    let stages = line["stages"].as_array().or_else(|| line["coverage"].as_array());
    stages?.iter().find(|stage| stage["name"] == name)
}

/// Whether a fork is what `forker` calls this attempt: the same caller made it at the same time.
pub(crate) fn is_attempt(fork: &Value, attempt: &Value) -> bool {
    let span = number(&attempt["start_ns"])..=number(&attempt["end_ns"]);
    fork["parent"]["tid"] == attempt["parent_tid"] && span.contains(&number(&fork["mono_ns"]))
}

/// Whether the tool warns of this.
pub(crate) fn warned(fork: &Value, code: &str) -> bool {
    let warnings = fork["warnings"].as_array();
    warnings.is_some_and(|warnings| warnings.iter().any(|warning| warning["code"] == code))
}

/// The middle of some figures.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Asserts what holds for every stream: a start, a summary, and stages that add up.
pub(crate) fn check(lines: &[Value]) {
    assert_eq!(lines[0]["type"], "start");
    let summary = summary(lines);
    let forks = of_type(lines, "fork");
    assert_eq!(summary["attempts"], forks.len(), "{summary}");
    for fork in forks {
        let stages = fork["stages"].as_array().cloned().unwrap_or_default();
        if fork["brief"] == true {
            assert!(stages.is_empty() && fork["other_ns"].is_null(), "{fork}");
            continue;
        }
        let own: u64 = stages.iter().filter_map(|stage| stage["self_ns"].as_u64()).sum();
        if let Some(total) = fork["total_ns"].as_u64() {
            assert_eq!(own + number(&fork["other_ns"]), total, "{fork}");
        }
        for stage in &stages {
            let timed = stage["dur_ns"].is_u64();
            // A share of another stage's own time.
            if stage["precision"] == "sampled" {
                assert!(timed && stage["self_ns"].is_null() && stage["of"].is_string(), "{stage}");
                continue;
            }
            // A stage that this host cannot time may be known to have failed.
            let untimed = stage["status"] == "failed" && stage["precision"] == "missing";
            let passed = stage["status"] == "done" || stage["status"] == "failed";
            assert_eq!(timed, passed && !untimed, "{stage}");
            assert_eq!(timed, stage["start_ns"].is_u64() && stage["self_ns"].is_u64(), "{stage}");
        }
    }
}

/// A time in nanoseconds; 0 where there is none.
pub(crate) fn ns(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
