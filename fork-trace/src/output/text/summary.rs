//! The summary as a block of text.

use std::{
    cmp::{Ordering, Reverse},
    io::{self, Write},
};

use unicode_width::UnicodeWidthStr as _;

use crate::{
    event::{
        caller::Task,
        summary::{
            By, FailedBy, Group, Groups, Own, Percentiles, SlowAttempt, StageTimes, Summary,
        },
        units::{count, counted, duration, per_second, percent, size},
        values::Kind,
    },
    output::text::{
        cells::before,
        columns::GAP,
        follow_up::quoted,
        line::{DIM, Line, PLAIN, RED, YELLOW, printable},
        table::{self, Column, Row, Section},
        waterfall,
    },
};

/// Width of a duration.
const DURATION: usize = 7;

/// A column of durations.
const fn durations(title: &'static str, need: u8) -> Column {
    Column { title, least: DURATION, need }
}

/// The columns of a table of groups.
const OF_GROUPS: [Column; 9] = [
    Column { title: "COUNT", least: 5, need: 0 },
    Column { title: "RATE", least: 0, need: 8 },
    durations("SUM", 1),
    Column { title: "SHARE", least: 0, need: 5 },
    durations("P50", 2),
    durations("P90", 7),
    durations("P99", 4),
    durations("MAX", 3),
    Column { title: "FAILED", least: 0, need: 6 },
];

/// The columns of the tables of stages.
const OF_STAGES: [Column; 6] = [
    Column { title: "COUNT", least: 5, need: 0 },
    durations("SUM", 1),
    durations("P50", 2),
    durations("P90", 5),
    durations("P99", 4),
    durations("MAX", 3),
];

/// Writes the block, with a blank line below each of its tables.
pub(super) fn write(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    if let Some(groups) = &summary.groups {
        table::write(&OF_GROUPS, &[of_groups(groups, summary.traced_ns)], line, writer)?;
        bounds(groups, line, writer)?;
    }
    details(summary, line, writer)?;
    threads_left(summary, line, writer)?;
    under_way(summary, line, writer)?;
    accounting(summary, line, writer)?;
    if let Some(own) = &summary.own {
        cost(own, line, writer)?;
    }
    Ok(())
}

/// Writes its slowest attempts, its stages and its failures.
pub(in crate::output) fn details(
    summary: &Summary,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    slowest(&summary.slowest, line, writer)?;
    table::write(&OF_STAGES, &of_stages(&summary.by_stage), line, writer)?;
    failures(summary, line, writer)
}

fn of_groups(groups: &Groups, traced_ns: Option<u64>) -> Section {
    let row = |group: &Group, name: String, style| {
        let held = group.held.as_ref();
        let time = |of: fn(&Percentiles) -> u64| held.map(|held| duration(of(held)));
        let sum_ns = held.and_then(|held| held.sum_ns);
        let share = sum_ns.zip(traced_ns).map(|(sum_ns, traced_ns)| percent(sum_ns, traced_ns));
        let figures = [
            Some(count(group.count)),
            traced_ns.and_then(|ns| per_second(group.count, ns)),
            sum_ns.map(duration),
            share,
            time(|held| held.p50_ns),
            time(|held| held.p90_ns),
            time(|held| held.p99_ns),
            time(|held| held.max_ns),
            Some(group.failed).filter(|failed| *failed > 0).map(count),
        ];
        Row { name, style, figures: figures.map(Option::unwrap_or_default).to_vec() }
    };
    let mut rows: Vec<Row> =
        groups.rows.iter().map(|group| row(group, name(group), PLAIN)).collect();
    if let Some(other) = &groups.other {
        let many = groups.other_groups.map_or_else(|| "many".to_owned(), count);
        rows.push(row(other, format!("({many} others)"), DIM));
    }
    Section { title: format!("{} (HELD)", groups.by.name().to_uppercase()), rows }
}

/// What a group is called.
fn name(group: &Group) -> String {
    let name = match group.name.as_deref() {
        None => "-".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(name) => group.user.as_deref().unwrap_or(name).to_owned(),
    };
    if group.incomplete.is_some() { format!("{name} +") } else { name }
}

/// What was too much for the table of groups.
fn bounds(groups: &Groups, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    if groups.other.is_some() && groups.other_groups.is_none() {
        let incomplete = groups.rows.iter().any(|group| group.incomplete.is_some());
        let more = if incomplete { "; one with a + may have more attempts among them" } else { "" };
        let words =
            format!("there were too many groups to keep apart: the smallest are others{more}");
        line.push_words(writer, YELLOW, &words, GAP)?;
        line.end(writer)?;
        line.end(writer)?;
    }
    if groups.by == By::Cause && groups.rows.is_empty() {
        line.push(PLAIN, "no attempt failed, so there is no cause");
        line.end(writer)?;
        line.end(writer)?;
    }
    Ok(())
}

/// The slowest attempts, and below each what took its time, where that is known.
fn slowest(attempts: &[SlowAttempt], line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    const PARENT: usize = DURATION + GAP;
    const KIND: usize = PARENT + 23 + GAP;
    const STAGE: usize = KIND + 9 + GAP;
    line.push_right(DIM, "HELD", DURATION);
    for (title, start) in [("SLOWEST, BY", PARENT), ("KIND", KIND), ("SLOWEST STAGE", STAGE)] {
        line.pad_to(start);
        line.push(DIM, title);
    }
    line.end(writer)?;
    for attempt in attempts {
        line.push_right(PLAIN, &duration(attempt.held_ns), DURATION);
        line.pad_to(PARENT);
        line.push(PLAIN, &caller(&attempt.parent, KIND - PARENT - GAP));
        line.pad_to(KIND);
        line.push(PLAIN, attempt.kind.map_or("-", Kind::name));
        line.pad_to(STAGE);
        if let Some(what) = what(attempt) {
            line.push(PLAIN, &format!("{what}  "));
        }
        if let Some(errno) = &attempt.errno_name {
            line.push(RED, errno);
        }
        line.end(writer)?;
        if let Some(slow) = &attempt.slow {
            line.pad_to(waterfall::INDENT);
            line.push(YELLOW, "why:");
            let indent = line.column() + 1;
            line.pad_to(indent);
            line.push_words(writer, PLAIN, &slow.text, indent)?;
            line.end(writer)?;
        }
    }
    line.end(writer)
}

/// Name and process id of a caller.
fn caller(task: &Task, room: usize) -> String {
    let comm = if task.comm.is_empty() { "\"\"" } else { &task.comm };
    before(&printable(comm), &format!(" {}", task.pid), room)
}

/// What took the time of an attempt, and its share of it.
fn what(attempt: &SlowAttempt) -> Option<String> {
    if let Some(slow) = &attempt.slow {
        return Some(format!("{} {}", slow.kind, percent(slow.share.0.into(), 1000)));
    }
    let (stage, ns) = attempt.stage.as_ref().zip(attempt.stage_ns)?;
    Some(format!("{stage} {}", percent(ns, attempt.held_ns)))
}

/// The stages by their whole time; by their own, those of which other stages are a part, unless those take
/// it all; and by the time that they waited.
fn of_stages(stages: &[StageTimes]) -> [Section; 3] {
    let mut sections = ["TOTAL", "SELF", "WAITING"]
        .map(|what| Section { title: format!("STAGE ({what})"), rows: Vec::new() });
    for stage in stages {
        let own = stage.own.as_ref().filter(|own| own.max_ns > 0);
        let times = [Some(&stage.total), own, stage.off_cpu.as_ref()];
        for (section, times) in sections.iter_mut().zip(times) {
            let Some(Percentiles { count: number, sum_ns, p50_ns, p90_ns, p99_ns, max_ns }) = times
            else {
                continue;
            };
            let times = [Some(*p50_ns), Some(*p90_ns), Some(*p99_ns), Some(*max_ns)];
            let times = [*sum_ns].into_iter().chain(times);
            let times = times.map(|ns| ns.map(duration).unwrap_or_default());
            let figures = std::iter::once(count(*number)).chain(times).collect();
            section.rows.push(Row { name: stage.name.to_string(), style: PLAIN, figures });
        }
    }
    sections
}

/// Failures by cause, the most first, with those who failed.
fn failures(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let mut causes: Vec<(&str, u64)> =
        summary.failures_by_cause.iter().map(|(cause, count)| (cause.as_ref(), *count)).collect();
    if causes.is_empty() {
        return Ok(());
    }
    causes.sort_by_key(|(_, count)| Reverse(*count));
    let widest = causes.iter().map(|(cause, _)| printable(cause).width()).max();
    let name = widest.unwrap_or_default().max(13);
    let number = causes.iter().map(|(_, number)| count(*number).len()).max().unwrap_or_default();
    let end = name + GAP + number.max(5);
    line.push(DIM, "FAILURE");
    line.push_right(DIM, "COUNT", end);
    if !summary.failed_by.is_empty() {
        line.pad_to(end + GAP);
        line.push(DIM, "BY");
    }
    line.end(writer)?;
    for (cause, number) in causes {
        line.push(PLAIN, cause);
        line.push_right(PLAIN, &count(number), end);
        line.pad_to(end + GAP);
        let callers = summary.failed_by.get(cause).map(Vec::as_slice).unwrap_or_default();
        line.push_words(writer, PLAIN, &who(callers, number), end + GAP)?;
        line.end(writer)?;
    }
    line.end(writer)
}

/// Threads that have not ended, by process and the place that made them.
fn threads_left(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let left = &summary.threads_left;
    if left.is_empty() && summary.threads_not_followed == 0 {
        return Ok(());
    }
    let widest = |figures: Vec<u64>| figures.into_iter().map(|figure| count(figure).len()).max();
    let widths = [
        widest(left.iter().map(|of| of.left).collect()),
        widest(left.iter().map(|of| of.made).collect()),
    ];
    let [first, second] = widths.map(|width| width.unwrap_or_default());
    let first = first.max("THREADS LEFT".len());
    let second = first + GAP + second.max("OF".len());
    line.push_right(DIM, "THREADS LEFT", first);
    line.push_right(DIM, "OF", second);
    line.pad_to(second + GAP);
    line.push(DIM, "MADE BY");
    line.end(writer)?;
    for of in left {
        line.push_right(PLAIN, &count(of.left), first);
        line.push_right(PLAIN, &count(of.made), second);
        line.pad_to(second + GAP);
        let stack = of.stack.as_deref().map(|stack| format!(": {}", printable(stack)));
        let words = format!("{} {}{}", quoted(&of.comm), of.pid, stack.unwrap_or_default());
        line.push_words(writer, PLAIN, &words, second + GAP)?;
        line.end(writer)?;
    }
    if summary.threads_not_followed > 0 {
        let more = counted(summary.threads_not_followed, "more thread");
        line.push(PLAIN, &format!("{more} could not be followed: too many were there at once"));
        line.end(writer)?;
    }
    line.end(writer)
}

/// Who failed how often, of `all`.
fn who(callers: &[FailedBy], all: u64) -> String {
    let named = callers.iter().fold(0_u64, |sum, by| sum.saturating_add(by.count));
    let rest = Some(all.saturating_sub(named)).filter(|rest| *rest > 0 && !callers.is_empty());
    let callers = callers.iter().map(|by| format!("{} {}", quoted(&by.comm), count(by.count)));
    let rest = rest.map(|rest| format!("others {}", count(rest)));
    callers.chain(rest).collect::<Vec<_>>().join(", ")
}

/// Attempts that had not made a task when tracing began or ended.
fn under_way(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let made = summary.under_way_tasks.unwrap_or_default();
    let unmade = summary.under_way.zip(summary.under_way_tasks).map(|(all, _)| all - all.min(made));
    if let Some(unmade) = unmade.filter(|unmade| *unmade > 0) {
        let words = "under way at the start or end, without a task so far";
        line.push(PLAIN, &format!("{} {words}", counted(unmade, "more attempt")));
        line.end(writer)?;
    }
    Ok(())
}

/// Whether the attempts agree with the kernel's own count.
fn accounting(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let Some(kernel) = summary.kernel_forks else {
        line.push(PLAIN, "the kernel's own count could not be told exactly");
        return line.end(writer);
    };
    let beside = [
        (summary.lost_tasks.or(Some(summary.lost)), "lost"),
        (summary.filtered, "filtered out"),
        (summary.under_way_tasks.or(summary.under_way), "under way at the start or end"),
    ];
    let beside = beside.map(|(number, what)| (number.unwrap_or(0), what));
    let known =
        beside.iter().fold(summary.succeeded, |sum, (number, _)| sum.saturating_add(*number));
    line.push(PLAIN, &format!("kernel counted {}; ", counted(kernel, "fork")));
    let gap = count(kernel.abs_diff(known));
    match (summary.accounted, kernel.cmp(&known)) {
        (Some(true), _) | (None, Ordering::Equal) => line.push(PLAIN, "all accounted for"),
        (_, Ordering::Less) => line.push(YELLOW, &format!("{gap} fewer than are known here")),
        (_, _) => line.push(YELLOW, &format!("{gap} not explained")),
    }
    let mut words = String::new();
    for (number, what) in beside.iter().filter(|(number, _)| *number > 0) {
        words.push_str(&format!(", {} {what}", count(*number)));
    }
    if !words.is_empty() {
        let words = format!("({} shown{words})", count(summary.succeeded));
        line.pad_to(line.column() + 1);
        line.push_words(writer, PLAIN, &words, GAP)?;
    }
    line.end(writer)
}

/// What tracing cost.
fn cost(own: &Own, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let words = format!(
        "tracing cost {} of CPU and {} of memory; attached in {}, detached in {}",
        duration(own.cpu_ns),
        size(own.max_rss_bytes),
        duration(own.attach_ns),
        duration(own.detach_ns),
    );
    line.push_words(writer, PLAIN, &words, GAP)?;
    line.end(writer)
}
