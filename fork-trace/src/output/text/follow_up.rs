//! Follow-ups as text: a line each, below the header's time.

use std::io::{self, Write};

use nix::sys::signal::Signal;

use crate::{
    event::{
        follow_up::{Exec, Exit, ReleasedBy, VforkDone},
        units::{duration, size},
    },
    output::text::line::{DIM, Line, PLAIN, RED},
};

/// Where a line goes and what comes before its words.
pub(super) struct Place<'a> {
    /// The time, where there is a column for it.
    pub(super) time: Option<&'a str>,
    /// The column at which the words begin.
    pub(super) start: usize,
}

/// What happened to which child, in words.
struct Words {
    pid: u32,
    what: String,
    failed: bool,
}

/// Writes the line of a vfork's end.
pub(super) fn vfork_done(
    done: &VforkDone,
    place: &Place<'_>,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    let by = match done.released_by {
        Some(ReleasedBy::Exec) => ", until exec",
        Some(ReleasedBy::Exit) => ", until exit",
        Some(ReleasedBy::Killed) => ", until killed",
        None => "",
    };
    let waited = duration(done.held_ns.unwrap_or(done.wait_ns));
    let what = format!("vfork: its parent was held {waited}{by}");
    write(&Words { pid: done.pid, what, failed: false }, place, line, writer)
}

/// Writes the line of an exec.
pub(super) fn exec(
    exec: &Exec,
    place: &Place<'_>,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    let cut = |cut: Option<bool>| if cut.is_some() { "\u{2026}" } else { "" };
    let argv = exec.argv.as_deref().unwrap_or_default();
    let argv: Vec<_> = argv.iter().map(|word| quoted(word)).collect();
    let colon = if argv.is_empty() { "" } else { ": " };
    let failed = exec.errno_name.as_deref().map(|name| format!(" failed with {name}"));
    let exe = exec.exe.as_deref().map_or_else(|| "of an unreadable name".to_owned(), quoted);
    let what = format!(
        "exec {exe}{}{} after {}{colon}{}{}",
        cut(exec.exe_truncated),
        failed.as_deref().unwrap_or_default(),
        duration(exec.after_ns),
        argv.join(" "),
        cut(exec.argv_truncated),
    );
    write(&Words { pid: exec.pid, what, failed: failed.is_some() }, place, line, writer)
}

/// Writes the line of an exit.
pub(super) fn exit(
    exit: &Exit,
    place: &Place<'_>,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    let how = match (exit.signal, exit.code) {
        (Some(signal), _) => format!("killed by {}", signal_name(signal)),
        (None, Some(code)) => format!("exit {code}"),
        (None, None) => "exit".to_owned(),
    };
    let never = if exit.execed { "" } else { ", without exec" };
    let cpu = exit.cpu_ns.map(|ns| format!(", {} of CPU", duration(ns)));
    let rss = exit.max_rss_bytes.map(|bytes| format!(", at most {}", size(bytes)));
    let (cpu, rss) = (cpu.unwrap_or_default(), rss.unwrap_or_default());
    let what = format!("{how} after {}{never}{cpu}{rss}", duration(exit.lifetime_ns));
    let failed = exit.signal.is_some() || exit.code.is_some_and(|code| code != 0);
    write(&Words { pid: exit.pid, what, failed }, place, line, writer)
}

fn write(
    words: &Words,
    place: &Place<'_>,
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    if let Some(time) = place.time {
        line.push(DIM, time);
    }
    line.pad_to(place.start);
    line.push(PLAIN, &format!("{} ", words.pid));
    line.push(if words.failed { RED } else { PLAIN }, &words.what);
    line.end(writer)
}

/// The name of a signal, or its number.
pub(in crate::output) fn signal_name(signal: u32) -> String {
    let known = i32::try_from(signal).ok().and_then(|signal| Signal::try_from(signal).ok());
    known.map_or_else(|| format!("signal {signal}"), |known| known.as_str().to_owned())
}

/// A word as a shell would need it: in quotes where it is empty or holds a blank or quote.
pub(super) fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains([' ', '\'', '"', '\\', '$', '`', '\n', '\t']);
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
