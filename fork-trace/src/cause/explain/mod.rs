//! Pages about words: a stage, a call, a flag, an error, a kind of cause, a rule, the reason of a wait, the
//! code of a warning or the place of a loss. They are made from the tables of the house; what those do not
//! say stands in the files beside this one, which are data.

use std::fmt::Write as _;

use fork_trace_common::{
    callee::CALLEES,
    flags::{self, SIGCHLD},
    function::FUNCTIONS,
    libc,
    stage::{Bounds, Occurs, Row, STAGES, Side, Stage},
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

mod calls;
mod flag_words;
mod notices;
mod stages;

/// What is known about one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The word, and what it is.
    pub title: String,
    /// What is said of it, in the order in which it is read.
    pub parts: Vec<Part>,
}

/// A part of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What it is about, in a word or two.
    pub label: &'static str,
    /// Its paragraphs, each with how far it is indented below the label.
    pub lines: Vec<(usize, String)>,
}

impl Page {
    /// A page without parts.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), parts: Vec::new() }
    }

    /// Adds a part of one paragraph, unless that is empty.
    pub fn say(&mut self, label: &'static str, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.parts.push(Part { label, lines: vec![(0, text)] });
        }
    }

    /// Adds a part of several paragraphs, unless there are none.
    fn list(&mut self, label: &'static str, lines: Vec<(usize, String)>) {
        if !lines.is_empty() {
            self.parts.push(Part { label, lines });
        }
    }
}

/// All pages about `word`; none where it is not known here. A word may be in more than one table: `vfork` is a
/// call and the reason of a wait. A wait or work may be named as a verdict names it, with `wait:` or `work:`
/// before it.
#[must_use]
pub fn explain(word: &str) -> Vec<Page> {
    if let Some(reason) = word.strip_prefix("wait:") {
        return wait(reason).into_iter().collect();
    }
    if let Some(work) = word.strip_prefix("work:") {
        return stage(work).into_iter().collect();
    }
    let tables = [call, stage, function, flag, errno, kind, rule, wait, warning, loss, flags_word];
    tables.iter().filter_map(|table| table(word)).collect()
}

/// Every word that has a page, flags words and numbers of errors apart.
#[must_use]
pub fn words() -> Vec<String> {
    let stages = STAGES.iter().map(|row| row.name);
    let functions = FUNCTIONS.iter().flat_map(|row| row.names).copied();
    let libc = libc::FUNCTIONS.iter().flat_map(|row| row.symbols).copied();
    let callees = CALLEES.iter().map(|(name, _)| *name);
    let calls = calls::CALLS.iter().map(|page| page.name);
    let flags = flags::FLAGS.iter().map(|(_, name)| *name);
    let kinds = CauseKind::ALL.iter().map(|kind| kind.name());
    let rules = RULES.iter().map(|rule| rule.name);
    let notices = notices::WARNINGS.iter().map(|(code, ..)| *code);
    let notices = notices.chain(notices::LOSSES.iter().map(|(place, _)| *place));
    let fixed = calls.chain(stages).chain(functions).chain(libc).chain(callees).chain(flags);
    let fixed = fixed.chain(kinds).chain(rules).chain(waits::names()).chain(notices);
    fixed.map(str::to_owned).chain(errno_names()).collect()
}

fn call(word: &str) -> Option<Page> {
    let call = calls::CALLS.iter().find(|page| page.name == word)?;
    let mut page = Page::new(format!("{word}: {}", call.title));
    page.say("where", call.at);
    page.say("what", call.what);
    page.say("shares", call.shares);
    page.say("slow when", call.slow);
    page.say("fails", call.fails);
    Some(page)
}

fn stage(word: &str) -> Option<Page> {
    let row = Row::named(word)?;
    let more = stages::PAGES.iter().find(|page| page.stage == row.stage)?;
    let mut page = Page::new(format!("{word}: {}", row.what));
    page.say("where", format!("{}; {}", row.at, side(row.side)));
    page.say("when", when(row.occurs));
    page.say("what", more.what);
    let shared: Vec<_> =
        flags::FLAGS.iter().filter(|(flag, _)| row.shared_by & flag != 0).collect();
    if let [(_, flag), ..] = shared.as_slice() {
        page.say("shared", format!("with {flag}, and then nothing is copied"));
    }
    let around: Vec<_> = row.stage.around().map(|stage| stage.row().name).collect();
    page.say("part of", around.join(", which is part of "));
    page.say("holds", names(STAGES.iter().filter(|other| other.parent == Some(row.stage))));
    let is_beside = |other: &&Row| {
        let same = (other.parent, other.side) == (row.parent, row.side);
        same && (other.occurs == Occurs::OnFailure) == (row.occurs == Occurs::OnFailure)
    };
    let before = STAGES.iter().rfind(|other| other.stage < row.stage && is_beside(other));
    page.say("after", names(before.into_iter()));
    let after = STAGES.iter().find(|other| other.stage > row.stage && is_beside(other));
    page.say("before", names(after.into_iter()));
    page.say("slow when", more.slow);
    page.list("seen", seen(row));
    let rules = RULES.iter().filter(|rule| rule.stage == row.stage);
    let limits = LIMITS.iter().filter(|limit| limit.stage == Some(row.stage));
    page.list("refuses", refusals(rules, limits));
    Some(page)
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Libc => "the caller, in its C library",
        Side::Parent => "the caller, in the kernel",
        Side::Wait => "the caller, in the kernel, after the attempt and not part of its total",
        Side::Child => "the child, in the kernel",
        Side::ChildLibc => "the child, in its C library",
    }
}

fn when(occurs: Occurs) -> &'static str {
    match occurs {
        Occurs::Always => "",
        Occurs::AtTimes => "at times; where it is absent, there was nothing of it",
        Occurs::OnFailure => "only when an attempt fails, to undo what was done",
    }
}

fn names<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    rows.map(|row| row.name).collect::<Vec<_>>().join(", ")
}

/// The ways in which a stage can be seen, the best first.
fn seen(row: &Row) -> Vec<(usize, String)> {
    let mut ways = Vec::new();
    if let Some(function) = row.function {
        let names = function.row().names.join(" or ");
        let busy = if function.row().busy { ", with --stages=all" } else { "" };
        ways.push((
            0,
            format!("exactly, by entry and return of {names}{busy}, where functions can be probed"),
        ));
    }
    let probed = row.gaps.iter().chain(row.coarse);
    ways.extend(probed.map(|bounds| (0, between(bounds, "where functions can be probed"))));
    let marks = row.inner.iter().map(|bounds| between(bounds, "by tracepoints inside a fork"));
    let own = row.tracepoint.iter().map(|bounds| between(bounds, "by fork's own tracepoints"));
    ways.extend(marks.chain(own).map(|way| (0, way)));
    let is_part = libc::Part::ALL.iter().any(|part| part.stage() == row.stage);
    if is_part || matches!(row.stage, Stage::LibcFork | Stage::ChildFork) {
        ways.push((
            0,
            "with --libc, by uprobes, where the library's symbols tell where it is".to_owned(),
        ));
    } else if matches!(row.side, Side::Libc | Side::ChildLibc) {
        ways.push((
            0,
            "with --libc, where its neighbours bound it; it has no function of its own".to_owned(),
        ));
    }
    if CALLEES.iter().any(|(_, stage)| *stage == row.stage) || row.function.is_some() {
        ways.push((0, "as a share of a long stage, by samples of the kernel stack".to_owned()));
    }
    ways
}

fn between(bounds: &Bounds, source: &str) -> String {
    let mut text = format!("between {} and {}, {source}", bounds.opens, bounds.closes);
    let others: Vec<_> = bounds.includes.iter().map(|stage| stage.row().name).collect();
    if !others.is_empty() {
        _ = write!(text, "; {} may lie between them too", others.join(", "));
    }
    text
}

/// A function of the kernel or of a C library that is no stage under this name.
fn function(word: &str) -> Option<Page> {
    if Row::named(word).is_some() || calls::CALLS.iter().any(|page| page.name == word) {
        return None;
    }
    let mut page = Page::new(format!("{word}: a function that a fork passes"));
    let stages = |stages: Vec<&'static Row>| names(stages.into_iter());
    if let Some(row) = FUNCTIONS.iter().find(|row| row.names.contains(&word)) {
        let own = STAGES.iter().filter(|stage| stage.function == Some(row.function));
        let bounded = STAGES.iter().filter(|stage| {
            let all = stage.gaps.iter().chain(stage.coarse).chain(stage.inner.as_ref());
            all.flat_map(|bounds| [bounds.opens, bounds.closes])
                .any(|point| point.function() == Some(row.function))
        });
        page.say("stage", stages(own.collect()));
        page.say("bounds", stages(bounded.collect()));
    } else if let Some(row) = libc::FUNCTIONS.iter().find(|row| row.symbols.contains(&word)) {
        let parts = libc::Part::ALL.iter().filter(|part| row.role.is(**part));
        page.say("stage", stages(parts.map(|part| part.stage().row()).collect()));
        page.say("seen", "by a uprobe, with --libc");
    } else {
        let (_, stage) = CALLEES.iter().find(|(name, _)| *name == word)?;
        page.say("stage", stage.row().name);
        page.say("seen", "on the kernel stack, in samples and in waits");
    }
    Some(page)
}

fn errno(word: &str) -> Option<Page> {
    let errno = parse_errno(word)?;
    let mut page = Page::new(format!("{errno:?} ({}): {}", errno as i32, errno.desc()));
    let rules = RULES.iter().filter(|rule| rule.errno == errno);
    let limits = LIMITS.iter().filter(|limit| limit.errno.is_none_or(|of| of == errno));
    page.list("comes from", refusals(rules, limits));
    Some(page)
}

fn kind(word: &str) -> Option<Page> {
    let kind = CauseKind::ALL.iter().find(|kind| kind.name() == word)?;
    let mut page = Page::new(format!("{word}: {}", kind.what()));
    page.say("where", "a kind of cause: why an attempt failed");
    let rules = RULES.iter().filter(|rule| rule.kind == *kind);
    page.list("found by", refusals(rules, LIMITS.iter().filter(|limit| limit.kind == *kind)));
    Some(page)
}

fn rule(word: &str) -> Option<Page> {
    let mut named = RULES.iter().filter(|rule| rule.name == word).peekable();
    named.peek()?;
    let mut page = Page::new(format!("{word}: a rule for the arguments of a call"));
    page.list("says", refusals(named, [].iter()));
    Some(page)
}

fn wait(word: &str) -> Option<Page> {
    let reason = waits::named(word)?;
    let mut page = Page::new(format!("{word}: why a fork stands still"));
    page.say("what", reason.what);
    page.say("cause", reason.cause);
    page.say("cure", reason.cure);
    Some(page)
}

fn warning(word: &str) -> Option<Page> {
    let (_, what, cure) = notices::WARNINGS.iter().find(|(code, ..)| *code == word)?;
    let mut page = Page::new(format!("{word}: the code of a warning"));
    page.say("what", *what);
    page.say("cure", *cure);
    Some(page)
}

fn loss(word: &str) -> Option<Page> {
    let (_, what) = notices::LOSSES.iter().find(|(place, _)| *place == word)?;
    let mut page = Page::new(format!("{word}: the place of a loss"));
    page.say("what", *what);
    page.say("cure", notices::LOSS_CURE);
    Some(page)
}

fn flag(word: &str) -> Option<Page> {
    let wanted = word.to_ascii_uppercase();
    let is_meant =
        |name: &str| name == wanted || name.strip_prefix("CLONE_") == Some(wanted.as_str());
    let (value, name) = flags::FLAGS.iter().find(|(_, name)| is_meant(name))?;
    let only = if *value > u64::from(u32::MAX) || *value < 0x100 { ", clone3 only" } else { "" };
    let mut page = Page::new(format!("{name} ({value:#x}{only}): a clone flag"));
    let what = flag_words::FLAGS.iter().find(|(flag, _)| flag == value);
    page.say("what", what.map_or("", |(_, what)| *what));
    page.say("shares in", names(STAGES.iter().filter(|row| row.shared_by & value != 0)));
    let concerns = |what: &str| {
        what.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|word| word == *name)
    };
    let rules = RULES.iter().filter(|rule| concerns(rule.what));
    let limits = LIMITS.iter().filter(|limit| concerns(limit.what) || concerns(limit.read));
    page.list("refused", refusals(rules, limits));
    Some(page)
}

/// A flags word by name, once as `clone` reads it, if it fits into 32 bits, and once as `clone3` does.
fn flags_word(word: &str) -> Option<Page> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
    let value = u64::from_str_radix(digits, 16).ok()?;
    let names = |call| {
        let names = clone_flags::names(value, Some(call)).join(" | ");
        if names.is_empty() { "no flags".to_owned() } else { names }
    };
    let mut page = Page::new(format!("{value:#x}: a flags word"));
    if value <= u64::from(u32::MAX) {
        let signal = value & flags::CSIGNAL;
        let ends = if signal == SIGCHLD { ", which is SIGCHLD" } else { "" };
        page.say("clone", format!("{}; exit signal {signal}{ends}", names(Call::Clone)));
    }
    page.say("clone3", names(Call::Clone3));
    let used = |words: &[(u64, &'static str)]| {
        words.iter().find(|(known, _)| *known == value).map_or("", |(_, by)| *by)
    };
    page.say("made by", used(&MADE_BY));
    Some(page)
}

/// Flags words that programs often use, and who makes them.
const MADE_BY: [(u64, &str); 6] = [
    (0x120_0011, "fork of glibc"),
    (0x11, "fork as a system call, and fork of musl"),
    (0x4111, "vfork, and posix_spawn of glibc where clone3 is not to be had"),
    (0x3d_0f00, "pthread_create of glibc"),
    (0x7d_0f00, "pthread_create of musl"),
    (0x5_0f00, "new threads of Go's runtime"),
];

fn refusals<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    limits: impl Iterator<Item = &'a Limit>,
) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for rule in rules {
        lines.push((0, format!("{:?} in {}: {}", rule.errno, rule.stage.row().name, rule.what)));
        lines.push((2, format!("rule {}; {}", rule.name, rule.hint)));
    }
    for limit in limits {
        let errno =
            limit.errno.map_or_else(|| "any error".to_owned(), |errno| format!("{errno:?}"));
        let stage =
            limit.stage.map_or_else(String::new, |stage| format!(" in {}", stage.row().name));
        lines.push((0, format!("{errno}{stage}: {}", limit.what)));
        lines.push((2, format!("look at {}", limit.read)));
        lines.push((2, format!("{}: {}", limit.kind.name(), limit.hint)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is said of a word, in one text.
    fn text(word: &str) -> String {
        let pages = explain(word);
        let parts = pages.iter().flat_map(|page| &page.parts).flat_map(|part| &part.lines);
        let titles = pages.iter().map(|page| page.title.clone());
        titles.chain(parts.map(|(_, line)| line.clone())).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_word_of_the_tables_has_a_page() {
        for word in words() {
            assert!(explain(&word).iter().all(|page| !page.title.is_empty()), "{word}");
            assert!(!explain(&word).is_empty(), "{word}");
        }
        assert!(explain("nonsense").is_empty());
    }

    #[test]
    fn the_pages_say_what_the_tables_say() {
        for row in STAGES {
            let text = text(row.name);
            assert!(text.contains(row.what) && text.contains(row.at), "{}", row.name);
        }
        for rule in RULES {
            assert!(text(rule.name).contains(rule.what), "{}", rule.name);
        }
        assert!(text("EAGAIN").contains("pids.max"));
        assert!(text("CLONE_NEWPID").contains("thread-and-new-namespace"));
        assert!(text("0x1200011").contains("CLONE_CHILD_SETTID; exit signal 17, which is SIGCHLD"));
    }

    #[test]
    fn a_stage_is_told_with_its_neighbours() {
        let pages = explain("dup_mmap");
        let [page] = pages.as_slice() else { panic!("{pages:?}") };
        let part = |label: &str| {
            page.parts.iter().find(|part| part.label == label).map(|part| part.lines[0].1.as_str())
        };
        assert_eq!(part("after"), Some("mm_init"));
        assert_eq!(
            part("part of"),
            Some("copy_mm, which is part of copy_process, which is part of kernel_clone")
        );
        assert!(part("holds").unwrap().contains("copy_page_range"));
        assert!(part("slow when").unwrap().contains("mmap_lock"));
        assert_eq!(part("before"), None);
    }

    #[test]
    fn verdicts_are_explained_as_they_are_written() {
        assert!(text("wait:mmap_lock").starts_with("mmap_lock: why a fork stands still"));
        assert!(text("work:copy_page_range").starts_with("copy_page_range: "));
        assert!(text("vfork").contains("system call") && text("vfork").contains("stands still"));
    }
}
