//! The summary as a block of text.

use std::{
    cmp::Ordering,
    io::{self, Write},
};

use unicode_width::UnicodeWidthStr as _;

use crate::{
    event::{
        summary::{Own, Percentiles, Summary},
        units::{count, counted, duration, size},
    },
    output::text::{
        columns::GAP,
        line::{BOLD, DIM, Line, PLAIN, RED, YELLOW, printable},
    },
};

/// Width of a duration.
const DURATION: usize = 7;

/// A row of a table: a name, how many, and the distribution if there is one.
type Row<'a> = (&'a str, u64, Option<&'a Percentiles>);

/// Where the columns of both tables end.
struct Widths {
    name: usize,
    count: usize,
}

/// Writes the block.
pub(super) fn write(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    counts(summary, line, writer)?;
    accounting(summary, line, writer)?;
    if let Some(own) = &summary.own {
        cost(own, line, writer)?;
    }
    let kinds: Vec<Row<'_>> = summary
        .by_kind
        .iter()
        .map(|(name, count)| (name.as_ref(), *count, summary.totals.get(name)))
        .collect();
    let (totals, own) = stages(summary);
    let causes: Vec<Row<'_>> = summary
        .failures_by_cause
        .iter()
        .map(|(cause, count)| (cause.as_ref(), *count, None))
        .collect();
    let rows = || kinds.iter().chain(&totals).chain(&own).chain(&causes);
    let widths = Widths {
        name: rows().map(|(name, ..)| printable(name).width()).max().unwrap_or(0).max(13),
        count: rows().map(|(_, number, _)| count(*number).len()).max().unwrap_or(0).max(5),
    };
    table("KIND (TOTAL)", &kinds, &widths, line, writer)?;
    table("STAGE (TOTAL)", &totals, &widths, line, writer)?;
    table("STAGE (SELF)", &own, &widths, line, writer)?;
    table("FAILURE", &causes, &widths, line, writer)
}

/// The stages by their whole time; and by their own, those of which other stages are a part, unless
/// those take it all.
fn stages(summary: &Summary) -> (Vec<Row<'_>>, Vec<Row<'_>>) {
    let mut totals: Vec<Row<'_>> = Vec::new();
    let mut own: Vec<Row<'_>> = Vec::new();
    for stage in &summary.by_stage {
        let (name, count) = (stage.name.as_ref(), stage.total.count);
        totals.push((name, count, Some(&stage.total)));
        let of_itself = stage.own.as_ref().filter(|own| own.max_ns > 0);
        own.extend(of_itself.map(|own| (name, count, Some(own))));
    }
    (totals, own)
}

fn counts(summary: &Summary, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    line.push(BOLD, &counted(summary.attempts, "attempt"));
    if summary.attempts > 0 {
        line.push(PLAIN, &format!(": {} made a task, ", count(summary.succeeded)));
        let style = if summary.failed > 0 { RED } else { PLAIN };
        line.push(style, &format!("{} failed", count(summary.failed)));
        if summary.fell_back > 0 {
            let words = format!(", {} made by another call instead", count(summary.fell_back));
            line.push(PLAIN, &words);
        }
    }
    line.end(writer)?;
    let made = summary.under_way_tasks.unwrap_or_default();
    let unmade = summary.under_way.zip(summary.under_way_tasks).map(|(all, _)| all - all.min(made));
    if let Some(unmade) = unmade.filter(|unmade| *unmade > 0) {
        let words = "under way at the start or end, without a task so far";
        line.push(PLAIN, &format!("{} {words}", counted(unmade, "more attempt")));
        line.end(writer)?;
    }
    if summary.lost > 0 {
        line.push(YELLOW, &format!("{} lost", counted(summary.lost, "record")));
        line.push(PLAIN, ": these attempts are not shown");
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

fn table(
    title: &str,
    rows: &[Row<'_>],
    widths: &Widths,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    line.end(writer)?;
    line.push(DIM, title);
    let mut end = widths.name + GAP + widths.count;
    line.push_right(DIM, "COUNT", end);
    if rows.iter().any(|(.., percentiles)| percentiles.is_some()) {
        for title in ["P50", "P90", "P99", "MAX"] {
            end += GAP + DURATION;
            line.push_right(DIM, title, end);
        }
    }
    line.end(writer)?;
    for (name, number, percentiles) in rows {
        line.push(PLAIN, name);
        let mut end = widths.name + GAP + widths.count;
        line.push_right(PLAIN, &count(*number), end);
        for ns in percentiles.iter().flat_map(|p| [p.p50_ns, p.p90_ns, p.p99_ns, p.max_ns]) {
            end += GAP + DURATION;
            line.push_right(PLAIN, &duration(ns), end);
        }
        line.end(writer)?;
    }
    Ok(())
}
