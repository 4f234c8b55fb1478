//! The tree as lines: figures in columns on the left, and the processes with their command lines.

use std::io::{self, Write};

use anstyle::Style;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    event::units::{count, counted, duration},
    output::text::{
        columns::GAP,
        follow_up::signal_name,
        line::{BOLD, DIM, Line, PLAIN, RED, YELLOW},
        tree::{
            family::{Deeds, LeftOut},
            lineage::{Lineage, Process},
        },
    },
};

/// What stands for a value that is not known.
const UNKNOWN: &str = "-";

/// Columns that the processes get at least.
const LEAST: usize = 36;

/// Where there is no width, how deep processes are indented. Deeper ones say how deep they are.
const DEEPEST: usize = 40;

/// What a column says of a process; `None` where there is nothing to say.
type Say = fn(&Process, &Lineage) -> Option<(Style, String)>;

/// A column of figures.
struct Figure {
    title: &'static str,
    /// Those with the least get room first.
    rank: u8,
    say: Say,
}

/// The columns, left to right.
static FIGURES: [Figure; 9] = [
    Figure { title: "PID", rank: 5, say: |process, _| Some((DIM, process.pid.to_string())) },
    Figure { title: "START", rank: 8, say: start },
    Figure { title: "LIFETIME", rank: 0, say: lifetime },
    Figure { title: "CPU", rank: 2, say: |process, _| plain(duration(process.life.end?.cpu_ns?)) },
    Figure { title: "EXIT", rank: 1, say: exit },
    Figure {
        title: "FORKS",
        rank: 3,
        say: |process, _| plain(some(process.deeds.as_ref()?.forks)?),
    },
    Figure {
        title: "THREADS",
        rank: 7,
        say: |process, _| plain(some(process.deeds.as_ref()?.threads)?),
    },
    Figure { title: "FAILED", rank: 6, say: failed },
    Figure { title: "HELD", rank: 4, say: held },
];

fn plain(text: String) -> Option<(Style, String)> {
    Some((PLAIN, text))
}

fn some(number: u64) -> Option<String> {
    (number > 0).then(|| count(number))
}

/// A time, or the least that it can be.
fn time(ns: u64, is_least: bool) -> String {
    let more = if is_least { ">" } else { "" };
    format!("{more}{}", duration(ns))
}

/// Since the beginning of the first process.
fn start(process: &Process, lineage: &Lineage) -> Option<(Style, String)> {
    let first = lineage.processes.get(*lineage.roots.first()?)?;
    plain(duration(process.began_ns?.checked_sub(first.began_ns?)?))
}

fn lifetime(process: &Process, lineage: &Lineage) -> Option<(Style, String)> {
    if let Some(end) = process.life.end {
        return plain(duration(end.lifetime_ns));
    }
    let began_ns = process.began_ns.filter(|_| lineage.runs(process))?;
    plain(time(lineage.last_ns.saturating_sub(began_ns), true))
}

fn exit(process: &Process, lineage: &Lineage) -> Option<(Style, String)> {
    let Some(end) = process.life.end else {
        return lineage.runs(process).then(|| (YELLOW, "runs".to_owned()));
    };
    match (end.signal, end.code) {
        (Some(signal), _) => Some((RED, signal_name(signal))),
        (None, Some(0)) => plain("0".to_owned()),
        (None, code) => Some((RED, code?.to_string())),
    }
}

fn failed(process: &Process, _: &Lineage) -> Option<(Style, String)> {
    let deeds = process.deeds.as_ref()?;
    let error = deeds.error.as_deref().map_or_else(String::new, |error| format!(" {error}"));
    Some((RED, some(deeds.failed)? + &error))
}

fn held(process: &Process, _: &Lineage) -> Option<(Style, String)> {
    let deeds = process.deeds.as_ref()?;
    let known = deeds.held_ns > 0 || deeds.unknown == 0;
    plain(time(deeds.held_ns, deeds.unknown > 0)).filter(|_| known)
}

/// A column with its width.
type Column = (&'static Figure, usize);

/// The columns that say something and have room, left to right.
fn columns(lineage: &Lineage, room: usize) -> Vec<Column> {
    let width = |figure: &'static Figure| {
        let said = lineage.processes.iter().filter_map(|process| (figure.say)(process, lineage));
        let widest = said.map(|(_, text)| text.width()).max()?;
        Some((figure, widest.max(figure.title.len())))
    };
    let mut columns: Vec<Column> = FIGURES.iter().filter_map(width).collect();
    let mut room = room.saturating_sub(LEAST);
    let mut by_rank: Vec<_> =
        columns.iter().map(|(figure, width)| (figure.rank, width + GAP)).collect();
    by_rank.sort_unstable();
    let fits = |(rank, width): (u8, usize)| {
        let left = room.checked_sub(width)?;
        room = left;
        Some(rank)
    };
    let last = by_rank.into_iter().map_while(fits).last();
    columns.retain(|(figure, _)| Some(figure.rank) <= last);
    columns
}

/// Writes the tree, and what is to be said of it as a whole.
pub(super) fn write(lineage: &Lineage, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    if !lineage.processes.is_empty() {
        rows(lineage, line, writer)?;
        line.end(writer)?;
    }
    totals(lineage, line, writer)?;
    for remark in remarks(lineage) {
        line.push(YELLOW, "note:");
        line.pad_to(line.column() + 1);
        let indent = line.column();
        line.push_words(writer, PLAIN, &remark, indent)?;
        line.end(writer)?;
    }
    Ok(())
}

fn rows(lineage: &Lineage, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let columns = columns(lineage, line.room());
    let mut end = 0;
    for (figure, width) in &columns {
        end += width;
        line.push_right(DIM, figure.title, end);
        end += GAP;
    }
    line.pad_to(end);
    line.push(DIM, "PROCESS");
    line.end(writer)?;

    let levels = match line.room_from(end) {
        usize::MAX => DEEPEST,
        room => (room / 4).clamp(1, DEEPEST),
    };
    // Of each level down to the one of the next row, whether more follows below.
    let mut more: Vec<bool> = Vec::new();
    let mut waiting: Vec<(usize, usize, bool)> = Vec::new();
    waiting.extend(lineage.roots.iter().rev().map(|root| (*root, 0, false)));
    while let Some((place, depth, more_follows)) = waiting.pop() {
        let Some(process) = lineage.processes.get(place) else { continue };
        more.truncate(depth.saturating_sub(1));
        if depth > 0 {
            more.push(more_follows);
        }
        figures(process, lineage, &columns, line);
        line.pad_to(end);
        branches(&more, levels, line);
        label(process, lineage, line);
        line.end(writer)?;
        let last = process.children.len().saturating_sub(1);
        let children = process.children.iter().enumerate().rev();
        waiting.extend(children.map(|(number, child)| (*child, depth + 1, number < last)));
    }
    Ok(())
}

fn figures(process: &Process, lineage: &Lineage, columns: &[Column], line: &mut Line) {
    let mut end = 0;
    for (figure, width) in columns {
        end += width;
        let said = (figure.say)(process, lineage);
        let (style, text) = said.unwrap_or_else(|| (DIM, UNKNOWN.to_owned()));
        line.push_right(style, &text, end);
        end += GAP;
    }
}

/// The branches from the root to a process, no more than `levels` of them.
fn branches(more: &[bool], levels: usize, line: &mut Line) {
    let Some((own, above)) = more.split_last() else { return };
    let shown = above.get(..levels.saturating_sub(1)).unwrap_or(above);
    for more in shown {
        line.push(DIM, if *more { "\u{2502} " } else { "  " });
    }
    let branch = if *own { "\u{251c}\u{2500}" } else { "\u{2514}\u{2500}" };
    line.push(DIM, branch);
    if shown.len() < above.len() {
        line.push(DIM, &format!("\u{2026}{} ", count(more.len() as u64)));
    }
}

/// What a process ran.
fn label(process: &Process, lineage: &Lineage, line: &mut Line) {
    if process.on_path {
        line.push(YELLOW, "* ");
    }
    let style = if process.on_path { BOLD } else { PLAIN };
    let life = &process.life;
    let called = process.deeds.as_ref().and_then(|deeds| deeds.command.as_deref());
    // A child that has not run a program of its own still has its parent's command line.
    let called = called.filter(|_| !process.is_followed || !lineage.has_execs);
    if let Some(command) = life.command.as_deref().or(called) {
        return line.push(style, command);
    }
    line.push(style, if process.comm.is_empty() { "?" } else { &process.comm });
    let without = life.end.is_some_and(|end| !end.execed).then_some("without exec");
    if let Some(why) = life.refused_exec.as_deref().or(without) {
        line.push(DIM, &format!(", {why}"));
    }
}

/// All together, on one line.
fn totals(lineage: &Lineage, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let deeds = || lineage.processes.iter().filter_map(|process| process.deeds.as_ref());
    let sum =
        |number: fn(&Deeds) -> u64| -> u64 { deeds().map(number).fold(0, u64::saturating_add) };
    let (threads, failed) = (sum(|deeds| deeds.threads), sum(|deeds| deeds.failed));
    let attempts = sum(|deeds| deeds.forks).saturating_add(threads).saturating_add(failed);
    let mut words = vec![number_of_processes(lineage.processes.len() as u64)];
    words.extend((threads > 0).then(|| counted(threads, "thread")));
    let cpus: Vec<u64> =
        lineage.processes.iter().filter_map(|process| process.life.end?.cpu_ns).collect();
    let cpu_ns = cpus.iter().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
    words.extend((!cpus.is_empty()).then(|| format!("{} of CPU", duration(cpu_ns))));
    if attempts > 0 {
        let held = time(sum(|deeds| deeds.held_ns), sum(|deeds| deeds.unknown) > 0);
        words.push(format!("{} held their callers for {held}", counted(attempts, "fork")));
    }
    words.extend((failed > 0).then(|| format!("{} of them failed", count(failed))));
    let path = lineage.processes.iter().filter(|process| process.on_path).count();
    words.extend(
        (path > 1).then(|| format!("* longest path: {}", number_of_processes(path as u64))),
    );
    line.push_words(writer, BOLD, &words.join(", "), GAP)?;
    line.end(writer)
}

fn number_of_processes(number: u64) -> String {
    let plural = if number == 1 { "" } else { "es" };
    format!("{} process{plural}", count(number))
}

/// What is missing, why, and what helps.
fn remarks(lineage: &Lineage) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut say = |is: bool, words: &str| {
        if is {
            remarks.push(words.to_owned());
        }
    };
    say(
        lineage.has_stages,
        "there are stage lines in place of fork lines, so it is not known who made whom: record without \
         --per-stage",
    );
    let forked = !lineage.processes.is_empty();
    say(
        forked && !lineage.has_execs,
        "there are no exec lines, so only processes that forked have a command line: record with --exec",
    );
    say(
        forked && !lineage.has_exits,
        "there are no exit lines, so no lifetimes, exit codes, CPU times and no longest path are known: record \
         with --exit",
    );
    say(
        lineage.lost,
        "records were lost, so processes may be missing, or their ends, and no longest path is told: give the \
         ring more room with --buffer",
    );
    let LeftOut { processes, attempts } = lineage.left_out;
    if lineage.left_out != LeftOut::default() {
        remarks.push(format!(
            "the tree is full: {} more, and what {} of others cost, are left out, and no longest path is told",
            number_of_processes(processes),
            counted(attempts, "attempt"),
        ));
    }
    remarks
}
