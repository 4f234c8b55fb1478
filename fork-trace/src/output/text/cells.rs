//! What each column says about a fork or a stage.

use anstyle::Style;
use fork_trace_common::stage::Stage;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    event::{
        bytes::bytes,
        caller::{Container, Parent},
        fork::Fork,
        span::Status,
        stage::StageLine,
        units::{counted, duration, percent},
        values::{Kind, Ts},
        wait::Slow,
    },
    output::text::{
        columns::Column,
        line::{BOLD, DIM, PLAIN, RED, YELLOW, printable, shorten},
    },
};

/// What stands for a value that is not there.
const NONE: &str = "-";

/// The stages that copy what a program would miss most, and a short name of what they copy.
const RESOURCES: [(Stage, &str); 5] = [
    (Stage::CopyMm, "mm"),
    (Stage::CopyFiles, "files"),
    (Stage::CopyFs, "fs"),
    (Stage::CopySighand, "sighand"),
    (Stage::CopySemundo, "sem"),
];

/// The flags that make a namespace, and its name in `/proc/PID/ns`.
const NAMESPACES: [(&str, &str); 8] = [
    ("CLONE_NEWPID", "pid"),
    ("CLONE_NEWUSER", "user"),
    ("CLONE_NEWNET", "net"),
    ("CLONE_NEWNS", "mnt"),
    ("CLONE_NEWUTS", "uts"),
    ("CLONE_NEWIPC", "ipc"),
    ("CLONE_NEWCGROUP", "cgroup"),
    ("CLONE_NEWTIME", "time"),
];

/// A cell's text: pieces of one style each.
pub(super) type Cell = Vec<(Style, String)>;

/// What is the same for every line.
pub(super) struct Context {
    /// The zone in which times are told.
    pub(super) zone: TimeZone,
    /// There is room for what a caller's name does not say.
    pub(super) names_programs: bool,
    /// No result column: the child's column tells what failed.
    pub(super) errors_in_child: bool,
}

/// The text of `column`, which fits `room` if it can be made to.
pub(super) fn cell(column: Column, fork: &Fork, room: usize, context: &Context) -> Cell {
    match column {
        Column::Time => vec![(DIM, time(fork.ts, &context.zone))],
        Column::Parent => caller(&fork.parent, room, context.names_programs),
        Column::Child => match &fork.child {
            Some(child) => plain(child.tid.to_string()),
            None if context.errors_in_child && !fork.succeeded() => {
                vec![(RED, error(fork.errno_name.as_deref(), fork.errno, room))]
            }
            None => plain(NONE),
        },
        Column::Kind => plain(fork.kind.map_or(NONE, Kind::name)),
        Column::Total => match (fork.took_ns(), fork.total_ns) {
            (Some(ns), _) if ns >= Slow::FROM_NS => vec![(BOLD, duration(ns))],
            (Some(ns), _) => plain(duration(ns)),
            (None, Some(_)) if is_held(fork) => vec![(BOLD, "held".to_owned())],
            // How long its caller was kept after the call is not known.
            (None, Some(ns)) => plain(duration(ns)),
            (None, None) => plain(NONE),
        },
        Column::Shared => plain(shared(fork)),
        Column::Slowest => plain(slowest(fork, room).unwrap_or_else(|| NONE.to_owned())),
        Column::ChildWait => plain(child_wait(fork, room).unwrap_or_else(|| NONE.to_owned())),
        Column::Result => result(fork, room),
        // Only stages have these.
        Column::Stage | Column::Start | Column::Own | Column::OffCpu => Cell::new(),
    }
}

/// The text of `column` of a stage.
pub(super) fn stage_cell(column: Column, line: &StageLine, room: usize, context: &Context) -> Cell {
    let span = &line.span;
    let ns = |ns: Option<u64>| plain(ns.map_or_else(|| NONE.to_owned(), duration));
    match column {
        Column::Time => vec![(DIM, time(line.ts, &context.zone))],
        Column::Parent => {
            plain(parent((line.parent.pid, line.parent.tid), &line.parent.comm, room))
        }
        Column::Child => {
            plain(line.child_tid.map_or_else(|| NONE.to_owned(), |tid| tid.to_string()))
        }
        Column::Kind => plain(line.kind.map_or(NONE, Kind::name)),
        Column::Stage => plain(span.name.clone()),
        Column::Start => ns(span.start_ns),
        Column::Total => match span.dur_ns {
            Some(ns) => plain(format!("{}{}", span.precision.mark(), duration(ns))),
            None => plain(NONE),
        },
        Column::Own => ns(span.self_ns),
        Column::OffCpu => ns(span.off_cpu_ns),
        Column::Result => stage_result(line, room),
        // Only forks have these.
        Column::Shared | Column::Slowest | Column::ChildWait => Cell::new(),
    }
}

/// What became of a stage, and what else fits.
fn stage_result(line: &StageLine, room: usize) -> Cell {
    let span = &line.span;
    let refused = line.errno.is_some().then(|| error(line.errno_name.as_deref(), line.errno, room));
    let first = match (refused, span.status) {
        (Some(error), _) => (RED, error),
        (None, Status::Failed) => (RED, "failed".to_owned()),
        (None, Status::Shared) => (DIM, "shared".to_owned()),
        (None, Status::Done) => (PLAIN, "ok".to_owned()),
    };
    let taken = first.1.width();
    let sampled = || Some(format!(", of {} by samples", span.of.as_deref()?));
    let undone = span.includes_undo.map(|_| ", with undoing".to_owned());
    let rest = undone.or_else(sampled).filter(|rest| taken + printable(rest).width() <= room);
    std::iter::once(first).chain(rest.map(|rest| (PLAIN, rest))).collect()
}

/// Whether the caller was still held when the line was made.
fn is_held(fork: &Fork) -> bool {
    fork.warnings.iter().any(|warning| warning.code == "still-held")
}

fn plain(text: impl Into<String>) -> Cell {
    vec![(PLAIN, text.into())]
}

pub(super) fn time(ts: Ts, zone: &TimeZone) -> String {
    let at = zone.to_datetime(ts.0);
    let micros = at.subsec_nanosecond() / 1000;
    format!("{:02}:{:02}:{:02}.{micros:06}", at.hour(), at.minute(), at.second())
}

/// Name and ids of a caller; with `names_programs` also what it belongs to, where that fits.
fn caller(of: &Parent, room: usize, names_programs: bool) -> Cell {
    /// Columns in which a name can be known again.
    const LEAST: usize = 6;
    let mut cell = plain(parent((of.pid, of.tid), &of.comm, room));
    if let Some(more) = belongs_to(of).filter(|_| names_programs) {
        let taken = cell.iter().map(|(_, text)| text.width()).sum::<usize>() + 1;
        if room.saturating_sub(taken) >= printable(&more).width().min(LEAST) {
            cell.push((DIM, format!(" {more}")));
        }
    }
    cell
}

/// What a caller belongs to: its container or unit, or else its program where its name is another.
fn belongs_to(of: &Parent) -> Option<String> {
    /// Characters of a container's id, as runtimes show it.
    const ID: usize = 12;
    if let Some(Container { id, runtime }) = &of.container {
        return Some(format!("{runtime}:{}", id.get(..ID).unwrap_or(id)));
    }
    if let Some(unit) = &of.unit {
        return Some(unit.to_string());
    }
    let program = of.exe.as_deref()?.rsplit('/').next()?;
    // KERNEL: include/linux/sched.h: a task's name is the first 15 bytes of its program's.
    let is_cut = bytes(&of.comm).len() == 15 && program.starts_with(&of.comm);
    (program != of.comm && !is_cut).then(|| program.to_owned())
}

/// Name and process id; the thread id too where it differs and there is room for it.
fn parent((pid, tid): (u32, u32), comm: &str, room: usize) -> String {
    let comm = if comm.is_empty() { "\"\"" } else { comm };
    let comm = printable(comm);
    let mut ids = format!(" {pid}");
    if tid != pid {
        let both = format!("{ids}/{tid}");
        if comm.width() + both.len() <= room {
            ids = both;
        }
    }
    before(&comm, &ids, room)
}

/// `tail` after as much of `head` as there is room for.
pub(super) fn before(head: &str, tail: &str, room: usize) -> String {
    format!("{}{tail}", shorten(head, room.saturating_sub(tail.len())))
}

/// What parent and child share, and which namespaces are new; `-` when all is copied.
fn shared(fork: &Fork) -> String {
    let Some(flags) = &fork.clone_flags_names else {
        return "?".to_owned();
    };
    let is_shared = |stage: Stage| {
        let name = stage.row().name;
        fork.stages.iter().any(|span| span.status == Status::Shared && span.name == name)
    };
    let shared = RESOURCES.iter().filter(|(stage, _)| is_shared(*stage)).map(|(_, name)| *name);
    let shared = shared.collect::<Vec<_>>().join(" ");
    let fresh = NAMESPACES.iter().filter(|(flag, _)| flags.iter().any(|name| name == flag));
    let fresh = fresh.map(|(_, name)| *name).collect::<Vec<_>>().join(" ");
    match (shared.is_empty(), fresh.is_empty()) {
        (true, true) => NONE.to_owned(),
        (false, true) => shared,
        (true, false) => format!("new {fresh}"),
        (false, false) => format!("{shared}, new {fresh}"),
    }
}

/// What took most of the time for which the caller was held, and its share: the stage that worked for
/// longest, or the reason of its waits. Of a slow fork it is what its verdict says, where that is a wait.
fn slowest(fork: &Fork, room: usize) -> Option<String> {
    let verdict = fork.slow.as_ref().filter(|slow| slow.kind.starts_with("wait:"));
    if let Some(slow) = verdict {
        let share = format!(" {}", percent(slow.share.0.into(), 1000));
        return Some(before(&printable(&slow.kind), &share, room));
    }
    let took_ns = fork.took_ns().or(fork.total_ns)?;
    let stage = fork.slowest_with_wait();
    let stage_ns = stage.map_or(0, |(_, ns)| ns);
    let waited = fork.longest_wait().filter(|(_, ns)| *ns > stage_ns && *ns <= took_ns);
    let (name, ns) = match waited {
        Some((wait, ns)) => (format!("wait:{}", wait.reason), ns),
        None => stage.map(|(name, ns)| (name.to_owned(), ns))?,
    };
    Some(before(&printable(&name), &format!(" {}", percent(ns, took_ns)), room))
}

/// How long from the wake-up to the child's first step in user space, and how much of it the child
/// waited for a CPU.
fn child_wait(fork: &Fork, room: usize) -> Option<String> {
    let start = fork.child_start.as_ref()?;
    let queued = start.queued_ns.map(|ns| format!("{} queued", duration(ns)));
    match (start.to_user_ns.map(duration), queued) {
        (Some(to_user), Some(queued)) => {
            let both = format!("{to_user} ({queued})");
            Some(if both.len() <= room { both } else { to_user })
        }
        (to_user, queued) => to_user.or(queued),
    }
}

/// `ok` or the error, and what else fits.
fn result(fork: &Fork, room: usize) -> Cell {
    let refused = || vec![(RED, error(fork.errno_name.as_deref(), fork.errno, room))];
    let mut pieces = if fork.succeeded() { plain("ok") } else { refused() };
    let mut taken = pieces.iter().map(|(_, text)| text.width()).sum::<usize>();
    let mut add = |style, text: String| {
        if taken + text.len() <= room {
            taken += text.len();
            pieces.push((style, text));
        }
    };
    if let Some(number) = other_number(fork) {
        add(PLAIN, format!(", as {number}"));
    }
    if let Some(restarts) = restarts(fork) {
        add(YELLOW, format!(", {restarts}"));
    }
    pieces
}

/// The error's name; its number where that is all there is or fits.
fn error(name: Option<&str>, number: Option<u32>, room: usize) -> String {
    let name = name.filter(|name| printable(name).width() <= room);
    match (name, number) {
        (Some(name), _) => name.to_owned(),
        (None, Some(number)) => format!("E{number}"),
        (None, None) => "failed".to_owned(),
    }
}

/// The child's number as the caller saw it, where its pid namespace numbers differently.
fn other_number(fork: &Fork) -> Option<i64> {
    let tid = i64::from(fork.child.as_ref()?.tid);
    fork.ret.filter(|ret| *ret > 0 && *ret != tid)
}

fn restarts(fork: &Fork) -> Option<String> {
    fork.restarts.map(|times| counted(times.into(), "restart"))
}

/// Whether the result column says how often the call was restarted.
pub(super) fn shows_restarts(fork: &Fork, room: usize) -> bool {
    result(fork, room).iter().any(|(style, _)| *style == YELLOW)
}

/// The restarts in words, for a line of their own.
pub(super) fn restarts_in_words(fork: &Fork) -> Option<String> {
    restarts(fork).map(|restarts| format!("{restarts} of the call, each for a signal"))
}
