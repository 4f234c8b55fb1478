//! The tables in words: the text that `fork-trace explain` prints, and the page docs/FAILURES.md.

use std::fmt::Write as _;

use fork_trace_common::{
    flags::FLAGS,
    stage::{Row, STAGES, Stage},
};

use crate::{
    cause::{
        limits::{LIMITS, Limit},
        rules::{RULES, Rule},
        waits,
    },
    event::{
        cause::CauseKind,
        clone_flags,
        errno::{errno_names, parse_errno},
        values::Call,
    },
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

/// All that the tables say about `word`: an error, a flag, a stage, a kind of cause, a rule, a reason of a
/// wait, or a flags word in hexadecimal. A wait or work may be named as a verdict names it, with `wait:` or
/// `work:` before it. `None` where it is none of these.
#[must_use]
pub fn explain(word: &str) -> Option<String> {
    if let Some(reason) = word.strip_prefix("wait:") {
        return waits::explain(reason);
    }
    if let Some(work) = word.strip_prefix("work:") {
        return stage(work);
    }
    let tables = [errno, flag, stage, kind, rule, waits::explain, flags_word];
    // A word may be in more than one: `vfork` is a flag and a reason.
    let texts: Vec<_> = tables.iter().filter_map(|table| table(word)).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// Every word that is explained, flags words and numbers of errors apart.
#[must_use]
pub fn words() -> Vec<String> {
    let stages = STAGES.iter().map(|row| row.name);
    let flags = FLAGS.iter().map(|(_, name)| *name);
    let kinds = CauseKind::ALL.iter().map(|kind| kind.name());
    let rules = RULES.iter().map(|rule| rule.name);
    let fixed = stages.chain(flags).chain(kinds).chain(rules).chain(waits::names());
    fixed.map(str::to_owned).chain(errno_names()).collect()
}

fn errno(word: &str) -> Option<String> {
    let errno = parse_errno(word)?;
    let mut text = format!("{errno:?} ({}): {}\n", errno as i32, errno.desc());
    let rules = RULES.iter().filter(|rule| rule.errno == errno);
    let limits = LIMITS.iter().filter(|limit| limit.errno.is_none_or(|of| of == errno));
    list(&mut text, rules, limits);
    Some(text)
}

fn kind(word: &str) -> Option<String> {
    let kind = CauseKind::ALL.iter().find(|kind| kind.name() == word)?;
    let mut text = format!("{word}: {}\n", kind.what());
    let rules = RULES.iter().filter(|rule| rule.kind == *kind);
    list(&mut text, rules, LIMITS.iter().filter(|limit| limit.kind == *kind));
    Some(text)
}

fn rule(word: &str) -> Option<String> {
    let mut named = RULES.iter().filter(|rule| rule.name == word).peekable();
    named.peek()?;
    let mut text = format!("{word}: a rule for the arguments\n");
    list(&mut text, named, [].iter());
    Some(text)
}

fn stage(word: &str) -> Option<String> {
    let row = Row::named(word)?;
    let mut text = format!("{word}: {}\n  source: {}\n", row.what, row.at);
    if row.shared_by != 0 {
        let names = FLAGS.iter().filter(|(flag, _)| row.shared_by & flag != 0);
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        line(&mut text, format_args!("  shared with {}", names.join(", ")));
    }
    let rules = RULES.iter().filter(|rule| rule.stage == row.stage);
    list(&mut text, rules, LIMITS.iter().filter(|limit| limit.stage == Some(row.stage)));
    Some(text)
}

fn flag(word: &str) -> Option<String> {
    let wanted = word.to_ascii_uppercase();
    let (value, name) = FLAGS.iter().find(|(_, name)| {
        *name == wanted || name.strip_prefix("CLONE_") == Some(wanted.as_str())
    })?;
    let only = if *value > u64::from(u32::MAX) || *value < 0x100 { ", clone3 only" } else { "" };
    let mut text = format!("{name} ({value:#x}{only})\n");
    for row in STAGES.iter().filter(|row| row.shared_by & value != 0) {
        line(&mut text, format_args!("  shares in {}: {}", row.name, row.what));
    }
    let concerns =
        |what: &str| what.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|w| w == *name);
    let rules = RULES.iter().filter(|rule| concerns(rule.what));
    list(
        &mut text,
        rules,
        LIMITS.iter().filter(|limit| concerns(limit.what) || concerns(limit.read)),
    );
    Some(text)
}

/// A flags word by name, once as `clone` reads it, if it fits into 32 bits, and once as `clone3`
/// does.
fn flags_word(word: &str) -> Option<String> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
    let value = u64::from_str_radix(digits, 16).ok()?;
    let mut text = format!("{value:#x}\n");
    let signal = value & 0xff;
    let names = |call| clone_flags::names(value, Some(call)).join(" | ");
    if value <= u64::from(u32::MAX) {
        line(
            &mut text,
            format_args!("  clone:  {}; exit signal {signal}", none(&names(Call::Clone))),
        );
    }
    line(&mut text, format_args!("  clone3: {}", none(&names(Call::Clone3))));
    Some(text)
}

fn none(names: &str) -> &str {
    if names.is_empty() { "no flags" } else { names }
}

fn list<'a>(
    text: &mut String,
    rules: impl Iterator<Item = &'a Rule>,
    limits: impl Iterator<Item = &'a Limit>,
) {
    for rule in rules {
        line(text, format_args!("  {:?} in {}: {}", rule.errno, name(rule.stage), rule.what));
        line(text, format_args!("      rule {}; {}", rule.name, rule.hint));
    }
    for limit in limits {
        let errno =
            limit.errno.map_or_else(|| "any error".to_owned(), |errno| format!("{errno:?}"));
        let stage = limit.stage.map_or_else(String::new, |stage| format!(" in {}", name(stage)));
        line(text, format_args!("  {errno}{stage}: {}", limit.what));
        line(text, format_args!("      look at {}", limit.read));
        line(text, format_args!("      {}: {}", limit.kind.name(), limit.hint));
    }
}

fn name(stage: Stage) -> &'static str {
    stage.row().name
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    _ = writeln!(text, "{what}");
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_in_the_tables_is_explained() {
        for row in STAGES {
            assert!(explain(row.name).is_some(), "{}", row.name);
        }
        for (_, name) in FLAGS {
            assert!(explain(name).unwrap().starts_with(name));
        }
        for kind in CauseKind::ALL {
            assert!(explain(kind.name()).unwrap().contains(kind.what()));
        }
        for rule in RULES {
            assert!(explain(rule.name).unwrap().contains(rule.what), "{}", rule.name);
        }
        assert!(explain("EAGAIN").unwrap().contains("pids.max"));
        assert!(explain("CLONE_NEWPID").unwrap().contains("thread-and-new-namespace"));
        let word = explain("0x1200011").unwrap();
        assert!(
            word.contains("CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID; exit signal 17"),
            "{word}"
        );
        assert_eq!(explain("nonsense"), None);
        for word in words() {
            assert!(explain(&word).is_some(), "{word}");
        }
    }
}
