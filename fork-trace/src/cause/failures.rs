//! The tables as a page for people: docs/FAILURES.md.

use std::fmt::Write as _;

use fork_trace_common::stage::Stage;

use crate::{
    cause::{
        limits::{LIMITS, Limit},
        rules::{RULES, Rule},
    },
    event::cause::CauseKind,
};

/// The text above the tables of docs/FAILURES.md.
const HEAD: &str = "\
# Why a fork fails

fork-trace decides by these tables why an attempt failed. `cargo xtask docs` writes this file from
them; `fork-trace explain WHAT` prints the part about one error, flag, stage or kind of cause.

The rules are checked in the order given here, which is the kernel's. The cause is the first one
that gives the error that the caller got and whose condition holds, and it is certain. A limit is
certain only where the evidence proves it: for example, a counter that had reached the limit when
the call was refused.
";

/// The whole of docs/FAILURES.md.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Kinds of causes\n\n| kind | what |\n|---|---|\n");
    for kind in CauseKind::ALL {
        line(&mut page, format_args!("| `{}` | {} |", kind.name(), kind.what()));
    }
    page.push_str("\n## Limits, rights and memory\n\n| errno | stage | kind | what | look at | hint |\n|---|---|---|---|---|---|\n");
    for limit in LIMITS {
        let errno = limit.errno.map_or_else(|| "any".to_owned(), |errno| format!("{errno:?}"));
        let stage = limit.stage.map_or_else(String::new, |stage| format!("`{}`", name(stage)));
        let Limit { what, read, hint, .. } = limit;
        line(
            &mut page,
            format_args!(
                "| {errno} | {stage} | `{}` | {what} | {read} | {hint} |",
                limit.kind.name()
            ),
        );
    }
    page.push_str("\n## Rules for the arguments, in the kernel's order\n\n| errno | stage | rule | what | hint |\n|---|---|---|---|---|\n");
    for rule in RULES {
        let Rule { errno, what, hint, .. } = rule;
        let calls = if rule.clone3_only { " (`clone3`)" } else { "" };
        line(
            &mut page,
            format_args!(
                "| {errno:?} | `{}`{calls} | `{}` | {what} | {hint} |",
                name(rule.stage),
                rule.name
            ),
        );
    }
    page
}

fn name(stage: Stage) -> &'static str {
    stage.row().name
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    _ = writeln!(text, "{what}");
}
