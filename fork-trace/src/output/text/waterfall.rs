//! The stages of one fork as an indented waterfall: what took how long, when.

use std::io::{self, Write};

use fork_trace_common::stage::{Row, Stage};
use unicode_width::UnicodeWidthStr as _;

use crate::{
    event::{
        clone_flags,
        fork::{ChildStart, Fork, OTHER},
        libc::{Libc, Unseen, When},
        memory::PAGE_BYTES,
        memory_cost::{self, known},
        span::{Precision, Span, Status},
        units::{count, duration, percent, size},
        wait::Wait,
    },
    output::text::{
        bar::blocks,
        columns::GAP,
        line::{CYAN, DIM, Line, PLAIN, printable},
    },
};

/// Where everything below a fork's line begins.
pub(super) const INDENT: usize = 4;

/// Between a stage and those within it.
const NEST: usize = 2;

/// Cells of a bar over the whole call: at least, at most.
const CELLS: (usize, usize) = (12, 40);

/// Cells after the call's return, for the child, where there is room: at most.
const AFTER: usize = 40;

const LEGEND: &str = "~ time between two marks, small other steps included; self: without the \
                      stages nested in it; \u{25b8} goes on.";

/// One row: a stage, the rest, or the child's start.
struct Bar {
    name: String,
    depth: usize,
    start_ns: Option<u64>,
    dur_ns: u64,
    precision: Precision,
    /// Part of the total, and so told in percent of it.
    is_part: bool,
    /// A remark between the numbers and the bar.
    detail: String,
}

/// Widths of the columns, from all rows of one fork.
struct Widths {
    name: usize,
    detail: usize,
    /// Of a bar over the whole call.
    cells: usize,
    /// Of the longest bar.
    most: usize,
}

/// What the caller's memory was, and what copying it cost.
fn memory(fork: &Fork) -> String {
    memory_cost::words(fork).unwrap_or_default()
}

/// Explains the signs, once.
pub(super) fn legend(line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    line.push_words(writer, DIM, LEGEND, 0)?;
    line.end(writer)?;
    line.end(writer)
}

/// Writes the rows of `fork` and an empty line.
pub(super) fn write(fork: &Fork, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    let bars = bars(fork);
    let name = |bar: &Bar| bar.depth * NEST + printable(&bar.name).width();
    let mut widths = Widths {
        name: bars.iter().map(name).max().unwrap_or(0),
        detail: bars.iter().map(|bar| bar.detail.width()).max().unwrap_or(0),
        cells: 0,
        most: 0,
    };
    let room = line.room_from(widths.bar_start());
    widths.cells = room.clamp(CELLS.0, CELLS.1);
    widths.most = room.clamp(widths.cells, widths.cells + AFTER);
    for bar in &bars {
        row(bar, &widths, fork.total_ns, line);
        line.end(writer)?;
    }
    let shared = fork.stages.iter().filter(|span| span.status == Status::Shared);
    for wait in &fork.waits {
        list("wait:", &waited(wait), line, writer)?;
    }
    list("waits:", &further(fork), line, writer)?;
    let child_waits = fork.child_start.iter().flat_map(|start| &start.waits);
    for wait in child_waits {
        list("child wait:", &waited(wait), line, writer)?;
    }
    let unseen = fork.libc.as_ref().and_then(|libc| libc.reason);
    list("libc:", unseen.map_or("", Unseen::words), line, writer)?;
    list("copied:", &copied(fork), line, writer)?;
    list("memory:", &memory(fork), line, writer)?;
    list("shared:", &sharing(shared), line, writer)?;
    line.end(writer)
}

/// All rows, in kernel order.
fn bars(fork: &Fork) -> Vec<Bar> {
    let mut bars = Vec::new();
    if let Some(libc) = &fork.libc {
        wrapper(libc, fork.held_ns, &mut bars);
    }
    let mut around: Vec<Stage> = Vec::new();
    for span in &fork.stages {
        let Some(dur_ns) = span.dur_ns else { continue };
        if span.is_sampled() {
            if !is_of_other(span) {
                bars.push(sampled(span, dur_ns, around.len()));
            }
            continue;
        }
        let stage = Row::named(&span.name);
        around.retain(|outer| stage.is_some_and(|row| row.stage.is_within(*outer)));
        bars.push(Bar {
            name: span.name.clone().into_owned(),
            depth: around.len(),
            start_ns: span.start_ns,
            dur_ns,
            precision: span.precision,
            is_part: true,
            detail: detail(span, dur_ns, fork.failed_stage.as_ref() == Some(&span.name)),
        });
        around.extend(stage.map(|row| row.stage));
    }
    // Of an attempt without stages the rest is all.
    if let Some(dur_ns) = fork.other_ns.filter(|ns| *ns > 0 && !bars.is_empty()) {
        bars.push(Bar { is_part: true, ..plain_bar(OTHER, dur_ns) });
        let shares = fork.stages.iter().filter(|span| is_of_other(span));
        bars.extend(shares.filter_map(|span| Some(sampled(span, span.dur_ns?, 1))));
    }
    let wrapper = fork.libc.as_ref().and_then(|libc| Some((libc, libc.function.as_ref()?)));
    if let Some((libc, function)) = wrapper {
        let name = format!("{function}: after the call");
        side(libc, When::After, &name, libc.parent_ns, &mut bars);
    }
    if let Some(start) = &fork.child_start {
        child(start, fork.woken_ns(), &mut bars);
    }
    if let Some((libc, function)) = wrapper {
        side(libc, When::Child, &format!("child: {function}"), libc.child_ns, &mut bars);
    }
    bars
}

/// The wrapper of the C library up to the call; all of it where its end was seen.
fn wrapper(libc: &Libc, held_ns: Option<u64>, bars: &mut Vec<Bar>) {
    let Some(function) = &libc.function else { return };
    let all_ns = libc.prepare_ns.zip(libc.parent_ns).zip(held_ns);
    if let Some(((before, after), held)) = all_ns {
        bars.push(plain_bar(function, before + held + after));
    }
    side(libc, When::Before, &format!("{function}: before the call"), libc.prepare_ns, bars);
}

/// What the C library did on one side of the call, or in the child, and the parts of it.
fn side(libc: &Libc, when: When, name: &str, ns: Option<u64>, bars: &mut Vec<Bar>) {
    let Some(ns) = ns else { return };
    bars.push(plain_bar(name, ns));
    let handlers = |turn, depth, bars: &mut Vec<Bar>| {
        let timed = libc.handlers_of(turn).filter_map(|one| Some((one.place(), one.dur_ns?)));
        bars.extend(timed.map(|(place, dur_ns)| Bar { depth, ..plain_bar(&place, dur_ns) }));
    };
    let parts: Vec<_> = libc.parts(when).collect();
    // Without the part that runs the handlers they stand by themselves.
    if parts.iter().all(|part| part.runs().is_none())
        && let Some(turn) = when.turn()
    {
        handlers(turn, 1, bars);
    }
    for part in parts {
        // It is bounded by what comes next.
        let is_bounded = part.name == Stage::ChildSetup.row().name;
        let precision = if is_bounded { Precision::Bounded } else { Precision::Exact };
        bars.push(Bar { depth: 1, precision, ..plain_bar(&part.name, part.dur_ns) });
        if let Some(turn) = part.runs() {
            handlers(turn, 2, bars);
        }
    }
}

/// Whether a stage is a share of the time that is in no stage.
fn is_of_other(span: &Span) -> bool {
    span.of.as_deref() == Some(OTHER)
}

/// A share of another row's own time. When it began is not known.
fn sampled(span: &Span, dur_ns: u64, depth: usize) -> Bar {
    Bar {
        depth,
        precision: span.precision,
        is_part: true,
        detail: format!("{} samples", count(span.samples.unwrap_or_default())),
        ..plain_bar(&span.name, dur_ns)
    }
}

/// What there is to say of a stage beside its time.
fn detail(span: &Span, dur_ns: u64, is_failed_stage: bool) -> String {
    // An own time of 0 says nothing that the stages nested in it do not say.
    let own = span.self_ns.filter(|self_ns| *self_ns != dur_ns && *self_ns > 0);
    let words = [
        own.map(|own| format!("self {}", duration(own))),
        span.off_cpu_ns.map(|off_ns| format!("off CPU {}", duration(off_ns))),
        span.tracer_ns.map(|ns| format!("{} of it fork-trace", duration(ns))),
        is_failed_stage.then(|| "failed".to_owned()),
        span.includes_undo.map(|_| "undoing included".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The child's start; its time runs beside the parent's, not within the total.
fn child(start: &ChildStart, woken_ns: Option<u64>, bars: &mut Vec<Bar>) {
    let mut cpu = match start.parent_cpu {
        Some(from) if from != start.cpu => format!("cpu {from} \u{2192} {}", start.cpu),
        _ => format!("cpu {}", start.cpu),
    };
    let waited_ns = start.queued_ns.unwrap_or_default();
    if let Some(queued_ns) = start.queued_ns {
        let detail = std::mem::take(&mut cpu);
        bars.push(Bar {
            start_ns: woken_ns,
            detail,
            ..plain_bar("child: sched_switch", queued_ns)
        });
    }
    if let Some(ran_ns) = start.to_user_ns.and_then(|to_user| to_user.checked_sub(waited_ns)) {
        let start_ns = woken_ns.map(|woken| woken + waited_ns);
        // Without its first moment on a CPU the two stages are one.
        let name = match start.queued_ns {
            Some(_) => "child: ret_from_fork",
            None => "child: in user space",
        };
        bars.push(Bar { start_ns, detail: cpu, ..plain_bar(name, ran_ns) });
    }
}

fn plain_bar(name: &str, dur_ns: u64) -> Bar {
    Bar {
        name: name.to_owned(),
        depth: 0,
        start_ns: None,
        dur_ns,
        precision: Precision::Exact,
        is_part: false,
        detail: String::new(),
    }
}

impl Widths {
    /// Of a duration with its `~`.
    const DUR: usize = 8;
    /// Of a share of the total.
    const SHARE: usize = 4;

    const fn dur_end(&self) -> usize {
        INDENT + self.name + GAP + Self::DUR
    }

    const fn share_end(&self) -> usize {
        self.dur_end() + GAP + Self::SHARE
    }

    const fn bar_start(&self) -> usize {
        let detail = if self.detail == 0 { 0 } else { self.detail + GAP };
        self.share_end() + GAP + detail
    }
}

fn row(bar: &Bar, widths: &Widths, total_ns: Option<u64>, line: &mut Line) {
    line.pad_to(INDENT + bar.depth * NEST);
    line.push(PLAIN, &bar.name);
    line.push_right(
        PLAIN,
        &format!("{}{}", bar.precision.mark(), duration(bar.dur_ns)),
        widths.dur_end(),
    );
    let Some(total_ns) = total_ns else { return };
    if bar.is_part {
        line.push_right(PLAIN, &percent(bar.dur_ns, total_ns), widths.share_end());
    }
    line.pad_to(widths.share_end() + GAP);
    line.push(DIM, &bar.detail);
    if let Some(start_ns) = bar.start_ns {
        let (skip, blocks) = blocks(start_ns, bar.dur_ns, total_ns, widths.cells, widths.most);
        line.pad_to(widths.bar_start() + skip);
        line.push(CYAN, &blocks);
    }
}

/// Stages that shared, by the flag that made them, without those within a stage that is named.
fn sharing<'a>(spans: impl Iterator<Item = &'a Span>) -> String {
    let mut groups: Vec<(u64, Vec<&str>)> = Vec::new();
    let mut named: Vec<Stage> = Vec::new();
    for span in spans {
        let row = Row::named(&span.name);
        if row.is_some_and(|row| named.iter().any(|outer| row.stage.is_within(*outer))) {
            continue;
        }
        named.extend(row.map(|row| row.stage));
        let flag = row.map_or(0, |row| row.shared_by);
        match groups.iter_mut().find(|(of, _)| *of == flag) {
            Some((_, names)) => names.push(&span.name),
            None => groups.push((flag, vec![&span.name])),
        }
    }
    let groups = groups.iter().map(|(flag, names)| {
        let flags = clone_flags::names(*flag, None).join(" ");
        let names = names.join(", ");
        if flags.is_empty() { names } else { format!("{names} ({flags})") }
    });
    groups.collect::<Vec<_>>().join("; ")
}

/// One time off the CPU.
fn waited(wait: &Wait) -> String {
    let mut text = format!("{} {}: {}", duration(wait.dur_ns), wait.state.name(), wait.reason);
    if let Some(lock) = wait.lock.as_ref().filter(|lock| **lock != wait.reason) {
        text.push_str(&format!(" ({lock})"));
    }
    if let Some(stage) = &wait.stage {
        text.push_str(&format!(", in {stage}"));
    }
    text.push_str(&format!(", from {} on", duration(wait.at_ns)));
    if !wait.stack.is_empty() {
        let stack: Vec<_> = wait.stack.iter().map(AsRef::as_ref).collect();
        text.push_str(&format!("; stack: {}", stack.join(" < ")));
    }
    text
}

/// The times off the CPU that are not told one by one.
fn further(fork: &Fork) -> String {
    let more = fork
        .waits_more
        .map(|more| format!("{} more, {} together", count(more.count), duration(more.dur_ns)));
    let lost = fork.waits_incomplete.map(|_| "some may be missing: records were lost".to_owned());
    more.into_iter().chain(lost).collect::<Vec<_>>().join("; ")
}

/// What was built for the child's own address space.
fn copied(fork: &Fork) -> String {
    let memory = &fork.memory;
    let about = if memory.copied_rss_error_pages.is_some() { "~" } else { "" };
    let pages = |pages: u64| size(pages.saturating_mul(PAGE_BYTES));
    let words = [
        memory.copied_vmas.map(|mappings| format!("{} mappings", count(mappings))),
        memory.copied_page_table_bytes.map(|bytes| format!("{} of page tables", size(bytes))),
        known(memory.copied_rss_pages, memory.copied_rss_error_pages)
            .map(|resident| format!("{about}{} of pages", pages(resident))),
        memory
            .copied_swap_pages
            .filter(|swap| *swap > 0)
            .map(|swap| format!("{} in swap", pages(swap))),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A line with a label.
fn list(label: &str, text: &str, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    line.pad_to(INDENT);
    line.push(DIM, label);
    let indent = line.column() + 1;
    line.pad_to(indent);
    line.push_words(writer, DIM, text, indent)?;
    line.end(writer)
}
