//! `docs`: writes docs/STAGES.md from the stage table, docs/FAILURES.md as fork-trace prints it, and the output in
//! docs/WALKTHROUGH.md from a recording.
//!
//! This file knows how a row is written down, and none of the rows.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, bail};
use fork_trace_common::{
    flags::FLAGS,
    stage::{Bounds, STAGES, Side},
};

use crate::{
    check::walkthrough,
    command::{program, root},
};

/// The file of the stages, from the workspace's root.
const FILE: &str = "docs/STAGES.md";

/// The file of the reasons for failures, from there too.
const FAILURES: &str = "docs/FAILURES.md";

/// The walk through a fork, and the recording that it shows.
const WALKTHROUGH: &str = "docs/WALKTHROUGH.md";
const RECORDING: &str = "docs/walkthrough.json";

/// What stands above the table.
const HEAD: &str = "\
# The stages of a fork

Every stage fork-trace knows, in the order they happen; a stage that is part of another is indented
below it. `cargo xtask docs` writes this file from the table in `fork-trace-common/src/stage.rs`.

*Shared with*: with this clone flag the child shares the thing, and the stage copies nothing.
*Function*: where a kernel lets it be probed, its entry and return give the stage's exact time.
*Points*: otherwise the stage lies between the first of these pairs that can be taken on a kernel:
entries and returns of functions around it, or tracepoints (or fields) inside it. What else lies
between the two is named after `+`, so the time between them is an upper bound for the stage alone.
";

/// The parts of the page.
const SIDES: [(Side, &str); 5] = [
    (Side::Libc, "In the C library, the parent"),
    (Side::Parent, "In the kernel, the parent"),
    (Side::Wait, "In the kernel, the parent after the attempt"),
    (Side::Child, "In the kernel, the child"),
    (Side::ChildLibc, "In the C library, the child"),
];

/// The head of each part's table.
const COLUMNS: &str = "| stage | what happens | source | shared with | function | points |\n|---|---|---|---|---|---|";

/// Writes the files, or compares them with the tables; returns what was done.
pub(crate) fn docs(check: bool) -> Result<String> {
    let stages = file(FILE, page()?, check)?;
    let failures = file(FAILURES, printed(&["explain", "--markdown"])?, check)?;
    let recording = root().join(RECORDING);
    let recording = recording.to_str().context("read the path of the recording")?;
    let output = printed(&["replay", "--stages", "--utc", recording])?;
    let old = fs::read_to_string(root().join(WALKTHROUGH)).context("read the walkthrough")?;
    let walkthrough = file(WALKTHROUGH, walkthrough::page(&old, &output)?, check)?;
    Ok(format!(
        "{FILE}: {} stages, {stages}\n{FAILURES}: {failures}\n{WALKTHROUGH}: {walkthrough}",
        STAGES.len()
    ))
}

/// Writes or compares one file.
fn file(name: &str, new: String, check: bool) -> Result<&'static str> {
    let path = root().join(name);
    let same = fs::read_to_string(&path).is_ok_and(|old| old == new);
    if check && !same {
        bail!("{name} is not what the tables give: run `cargo xtask docs`");
    }
    if !same {
        fs::create_dir_all(root().join("docs")).context("create docs/")?;
        fs::write(&path, new).with_context(|| format!("write {name}"))?;
    }
    Ok(if same { "up to date" } else { "written" })
}

/// What the tool prints: its crate is too large to link here.
fn printed(args: &[&str]) -> Result<String> {
    let mut cargo = program("cargo");
    cargo.args(["run", "--quiet", "--package", "fork-trace", "--bin", "fork-trace", "--"]);
    let output = cargo.args(args).output().context("run fork-trace")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("fork-trace {} failed:\n{said}", args.join(" "));
    }
    String::from_utf8(output.stdout).context("read what fork-trace printed")
}

/// The whole file.
fn page() -> Result<String> {
    let mut page = HEAD.to_owned();
    for (side, title) in SIDES {
        writeln!(page, "\n## {title}\n\n{COLUMNS}")?;
        for row in STAGES.iter().filter(|row| row.side == side) {
            let indent = "&emsp;".repeat(row.depth());
            let shared = flag_names(row.shared_by);
            let function =
                row.function.map(|function| format!("`{}`", function.row().names.join("`, `")));
            let function = function.unwrap_or_default();
            let ways = row.gaps.iter().copied().chain(row.inner);
            let ways = ways.chain(row.coarse.iter().copied()).chain(row.tracepoint);
            let points = ways.map(bounds).collect::<Vec<_>>().join("<br>");
            write!(page, "| {indent}`{}` | {} | {} ", row.name, row.what, row.at)?;
            writeln!(page, "| {shared} | {function} | {points} |")?;
        }
    }
    Ok(page)
}

/// The flags of a row, by name.
fn flag_names(flags: u64) -> String {
    let named = FLAGS.iter().filter(|(flag, _)| flags & flag != 0);
    named.map(|(_, name)| format!("`{name}`")).collect()
}

/// The two points, and what else lies between them.
fn bounds(bounds: Bounds) -> String {
    let mut text = format!("`{}` to `{}`", bounds.opens, bounds.closes);
    for stage in bounds.includes {
        text.push_str(" + `");
        text.push_str(stage.row().name);
        text.push('`');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_table_has_a_name() {
        let named = FLAGS.iter().fold(0, |all, (flag, _)| all | flag);
        for row in STAGES {
            assert_eq!(row.shared_by & !named, 0, "{}", row.name);
        }
    }
}
