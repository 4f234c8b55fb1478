//! The last line of every text: how many attempts are shown, and how many are not.

use std::io::{self, Write};

use crate::{
    event::{
        filters::Filters,
        summary::Summary,
        units::{count, counted},
    },
    output::text::{
        columns::GAP,
        line::{BOLD, DIM, Line, PLAIN, RED, YELLOW},
    },
};

/// Writes the line; `filters` say whose attempts are shown.
pub(super) fn write(
    summary: &Summary,
    filters: &Filters,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    line.push(BOLD, &format!("{} shown", count(summary.attempts)));
    let mut piece = |number: u64, what: &str, style| {
        line.push(PLAIN, ", ");
        line.push_words(writer, style, &format!("{} {what}", count(number)), GAP)
    };
    let some = |number: u64, style| if number > 0 { style } else { PLAIN };
    if let Some(filtered) = summary.filtered {
        piece(filtered, "filtered out", PLAIN)?;
    }
    piece(summary.failed, "failed", some(summary.failed, RED))?;
    if summary.fell_back > 0 {
        piece(summary.fell_back, "refused and made by another call", PLAIN)?;
    }
    piece(summary.lost, "lost", some(summary.lost, YELLOW))?;
    let all_lost = summary.lost_by.values().fold(0_u64, |sum, number| sum.saturating_add(*number));
    let parts = all_lost.saturating_sub(summary.lost);
    if parts > 0 {
        let what = if parts == 1 { "part of others" } else { "parts of others" };
        piece(parts, what, YELLOW)?;
    }
    if summary.attempts == 0 {
        line.push(DIM, ": ");
        line.push_words(writer, DIM, &why_nothing(summary, filters), GAP)?;
    }
    line.end(writer)
}

/// Why no attempt is shown, as far as that is known.
fn why_nothing(summary: &Summary, filters: &Filters) -> String {
    let command = filters.command.is_some();
    let filtered = *filters != Filters { command: filters.command.clone(), ..Filters::default() };
    if summary.lost > 0 {
        return format!("{} could not be shown", counted(summary.lost, "attempt"));
    }
    if let Some(number) = summary.under_way.filter(|number| *number > 0) {
        let attempts = counted(number, "attempt");
        return format!("{attempts} began before or ended after the time that was traced");
    }
    let words = match (command, filtered) {
        (true, false) => "the command made no fork",
        (true, true) => "the command made no fork that the filters let through",
        (false, true) => "there was no fork that the filters let through",
        // The kinds that are left out unless they are asked for, or more than `--max-events`.
        (false, false) if summary.filtered.is_some_and(|number| number > 0) => {
            "there were only forks by the kernel for itself; --kind shows these"
        }
        (false, false) => "there was no fork",
    };
    words.to_owned()
}
