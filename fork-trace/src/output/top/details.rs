//! All that is known of one group, and the help: lines of text.

use crate::{
    event::{
        summary::{By, Summary},
        units::{count, counted, duration, per_second, percent},
    },
    output::{
        text::{
            line::{Line, PLAIN},
            stuck, summary,
            table::{self, Column, Row, Section},
        },
        top::{
            cell::Cell,
            model::{Model, Span},
            rows::{Label, group},
            screen::KEYS,
        },
    },
};

/// Where the text beside a label begins.
const INDENT: usize = 11;

/// The columns of the reasons of waits.
const OF_WAITS: [Column; 2] =
    [Column { title: "TIME", least: 7, need: 0 }, Column { title: "SHARE", least: 5, need: 1 }];

/// What is known of the group that `label` names.
pub(super) fn of_group(
    model: &Model,
    by: By,
    label: &Label,
    span: Span,
    width: usize,
) -> Vec<String> {
    let mut text = Text { line: Line::new(Some(width), false), bytes: Vec::new() };
    match group(model, by, label) {
        Some(cell) => text.cell(model, &cell, label, span),
        None => text.say("", "it is one of the others by now; Esc goes back"),
    }
    String::from_utf8_lossy(&text.bytes).lines().map(str::to_owned).collect()
}

/// What each key does.
pub(super) fn help() -> Vec<String> {
    let keys = KEYS.iter().map(|(key, _, what)| format!("  {key:<9}  {what}"));
    let columns = [
        "",
        "FORKS/S and HELD/S are of the last 5 seconds, of a recording of all its time.",
        "HELD/S is for how long callers were held in each second, all together.",
        "WAITING is the share of that time in which they stood still, and why most.",
        "LONGEST, FORKS and FAILED are since the start.",
        "A row with a + may have more forks among the others: there were too many programs.",
        "`fork-trace explain WORD` says what a reason, a cause or a stage is.",
    ];
    keys.chain(columns.map(str::to_owned)).collect()
}

/// Lines in the making. Writing into memory does not fail, so nothing is done about that.
struct Text {
    line: Line,
    bytes: Vec<u8>,
}

impl Text {
    /// A label, and text beside it on as many lines as that takes.
    fn say(&mut self, label: &str, text: &str) {
        let Self { line, bytes } = self;
        line.push(PLAIN, label);
        line.pad_to(INDENT);
        line.push_words(bytes, PLAIN, text, INDENT).ok();
        line.end(bytes).ok();
    }

    fn some(&mut self, label: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.say(label, text);
        }
    }

    fn blank(&mut self) {
        self.line.end(&mut self.bytes).ok();
    }

    fn cell(&mut self, model: &Model, cell: &Cell, label: &Label, span: Span) {
        self.say("name", label.text());
        if *label != Label::Other {
            self.of_whom(cell);
        }
        self.figures(cell, span);
        self.blank();
        self.waits(cell);
        let summary = Summary {
            slowest: cell.slowest.summary(),
            by_stage: cell.stages.times(),
            failures_by_cause: cell.failures.iter().cloned().collect(),
            ..Summary::default()
        };
        summary::details(&summary, &mut self.line, &mut self.bytes).ok();
        for (label, text) in cell.last_failure.iter().flat_map(|last| &last.why) {
            self.say(label, text);
        }
        for stuck in model.stuck.iter().filter(|stuck| stuck.parent.comm == *cell.key.comm) {
            self.say("stuck:", &stuck::words(stuck));
        }
    }

    /// What the caller is, of the program that forked most.
    fn of_whom(&mut self, cell: &Cell) {
        self.some("program", cell.key.exe.as_deref());
        let user = match &cell.user {
            Some(user) => format!("{user} ({})", cell.key.uid),
            None => cell.key.uid.to_string(),
        };
        self.say("user", &user);
        self.some("unit", cell.unit.as_deref());
        self.some("container", cell.container.as_deref());
        self.some("group", cell.key.cgroup.as_deref());
        let own = format!("{} {}", cell.key.comm, cell.pid);
        let above = cell.ancestors.iter().map(|above| format!("{} {}", above.comm, above.pid));
        let chain: Vec<_> = std::iter::once(own).chain(above).collect();
        self.say("parents", &chain.join(" < "));
    }

    fn figures(&mut self, cell: &Cell, span: Span) {
        let recent = span.counts(&cell.recent, &cell.all);
        let rate = span.ns().and_then(|ns| per_second(recent.forks, ns));
        let kinds =
            cell.kinds.iter().map(|(kind, number)| format!("{} {}", count(*number), kind.name()));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let late = if cell.late { ", and perhaps more among the others" } else { "" };
        let rate = rate.map(|rate| format!("{rate}; ")).unwrap_or_default();
        self.say("forks", &format!("{rate}{} in all{late}: {kinds}", count(cell.all.forks)));
        if cell.all.failed > 0 {
            let share = percent(cell.all.failed, cell.all.forks);
            self.say("failed", &format!("{} ({share})", count(cell.all.failed)));
        }
        if let Some(held) = cell.held.some_percentiles() {
            let sum =
                held.sum_ns.map(|ns| format!("{} in all; ", duration(ns))).unwrap_or_default();
            let [p50, p90, p99, most] =
                [held.p50_ns, held.p90_ns, held.p99_ns, held.max_ns].map(duration);
            self.say(
                "held",
                &format!(
                    "{sum}{}: half up to {p50}, p90 {p90}, p99 {p99}, longest {most}",
                    counted(held.count, "fork")
                ),
            );
        }
    }

    /// For what it waited, the longest first.
    fn waits(&mut self, cell: &Cell) {
        let mut waits = cell.all.waits.clone();
        waits.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
        let number = |ns: u128| u64::try_from(ns).unwrap_or(u64::MAX);
        let row = |(reason, ns): &(_, u128)| {
            let share = percent(number(*ns), number(cell.all.held_ns));
            let reason: &str = std::borrow::Borrow::borrow(reason);
            Row {
                name: reason.to_owned(),
                style: PLAIN,
                figures: vec![duration(number(*ns)), share],
            }
        };
        let rows = waits.iter().map(row).collect();
        let section = Section { title: "WAITED FOR".to_owned(), rows };
        table::write(&OF_WAITS, &[section], &mut self.line, &mut self.bytes).ok();
    }
}
