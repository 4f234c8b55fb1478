//! Draws what is known into the cells of a screen. Pure.

use std::time::Instant;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use unicode_width::UnicodeWidthStr as _;

use crate::{
    event::{
        fill::Fill,
        summary::By,
        units::{count, counted, duration, per_second, percent, size},
    },
    output::{
        text::line::{printable, shorten},
        top::{
            details,
            model::{Model, Span},
            readings::Readings,
            rows::{self, Label, Row, Sort},
            screen::{KEYS, Screen},
        },
    },
};

/// The narrowest column of names, and the widest.
const NAME: [usize; 2] = [15, 40];

/// Between two columns.
const GAP: usize = 2;

/// Lines of figures above the table.
const MOST_FIGURES: u16 = 3;

/// How long a warning is shown.
const WARNING_SECONDS: u64 = 10;

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const RED: Style = Style::new().fg(Color::Red);
const YELLOW: Style = Style::new().fg(Color::Yellow);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What a cell says, and how.
type Said = (String, Style);

/// A column of the table; those of the lowest need get room first.
struct Column {
    title: &'static str,
    sort: Option<Sort>,
    width: usize,
    need: u8,
    is_right: bool,
    /// Not shown where rows are put into groups by that.
    not_by: Option<By>,
    cell: fn(&Row, Option<u64>) -> Said,
}

const fn figures(
    title: &'static str,
    (sort, width, need): (Sort, usize, u8),
    cell: fn(&Row, Option<u64>) -> Said,
) -> Column {
    Column { title, sort: Some(sort), width, need, is_right: true, not_by: None, cell }
}

const fn words(
    title: &'static str,
    (width, need): (usize, u8),
    not_by: Option<By>,
    cell: fn(&Row, Option<u64>) -> Said,
) -> Column {
    Column { title, sort: None, width, need, is_right: false, not_by, cell }
}

/// The columns beside that of names, from left to right.
const COLUMNS: [Column; 11] = [
    figures("FORKS/S", (Sort::Rate, 9, 0), |row, ns| {
        (rate(row.recent.forks, ns), if row.recent.forks > 0 { BOLD } else { DIM })
    }),
    figures("FORKS", (Sort::Total, 10, 4), |row, _| (count(row.all.forks), PLAIN)),
    figures("FAILED", (Sort::Failed, 8, 1), |row, _| some(row.all.failed, RED)),
    figures("HELD/S", (Sort::Held, 8, 2), |row, ns| {
        // Where it is known of none, it is not 0.
        let ns = ns.filter(|_| row.longest_ns.is_some());
        (held(row.recent.held_ns, ns), PLAIN)
    }),
    figures("LONGEST", (Sort::Longest, 8, 6), |row, _| {
        (row.longest_ns.map_or_else(|| "-".to_owned(), duration), PLAIN)
    }),
    Column { sort: Some(Sort::Waiting), ..words("WAITING", (18, 3), None, |row, _| waiting(row)) },
    words("LAST FAILURE", (18, 5), None, |row, _| match &row.last_failure {
        Some((_, name)) => (name.clone().into_owned(), RED),
        None => (String::new(), PLAIN),
    }),
    words("PARENTS", (24, 7), None, |row, _| (parents(row), PLAIN)),
    words("UNIT", (22, 8), Some(By::Unit), |row, _| {
        (row.belongs_to.as_deref().unwrap_or("-").to_owned(), PLAIN)
    }),
    words("PROGRAM", (24, 9), Some(By::Exe), |row, _| {
        let more = if row.programs > 1 { format!(" +{}", row.programs - 1) } else { String::new() };
        (format!("{}{more}", row.exe.as_deref().unwrap_or("-")), PLAIN)
    }),
    words("USER", (10, 10), Some(By::Uid), |row, _| {
        (row.user.as_deref().unwrap_or("-").to_owned(), PLAIN)
    }),
];

fn some(number: u64, style: Style) -> Said {
    if number > 0 { (count(number), style) } else { ("-".to_owned(), DIM) }
}

/// How many a second; without the unit, which the title has.
fn rate(number: u64, ns: Option<u64>) -> String {
    let rate = ns.and_then(|ns| per_second(number, ns));
    rate.map_or_else(|| "-".to_owned(), |rate| rate.trim_end_matches("/s").to_owned())
}

/// For how long callers were held in each second.
fn held(held_ns: u128, ns: Option<u64>) -> String {
    let each = ns.and_then(|ns| (held_ns * 1_000_000_000).checked_div(u128::from(ns)));
    each.map_or_else(|| "-".to_owned(), |each| duration(u64::try_from(each).unwrap_or(u64::MAX)))
}

/// The share of the time that callers waited, and for what most.
fn waiting(row: &Row) -> Said {
    match row.waiting() {
        None => ("-".to_owned(), DIM),
        Some((share, reason)) => {
            let share = percent(share, 1000);
            let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
            (format!("{share:>4}{reason}"), PLAIN)
        }
    }
}

/// From which the caller descends, the nearest first.
fn parents(row: &Row) -> String {
    let names = row.ancestors.iter().map(|ancestor| ancestor.comm.as_ref());
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" < ") }
}

/// The cells that are drawn into.
pub(super) struct Canvas<'a> {
    pub(super) buffer: &'a mut Buffer,
    pub(super) color: bool,
}

impl Canvas<'_> {
    pub(super) fn area(&self) -> Rect {
        self.buffer.area
    }

    /// Puts `text` at `x` of line `y`, in `width` columns and no more; returns the columns that it takes. Nothing of
    /// it can do more to a terminal than be shown.
    fn put(&mut self, (x, y): (usize, u16), width: usize, style: Style, text: &str) -> usize {
        let text = printable(text);
        let room = width.min(usize::from(self.area().width).saturating_sub(x));
        let text = shorten(&text, room);
        let style = if self.color { style } else { Style { fg: None, bg: None, ..style } };
        if y < self.area().height
            && room > 0
            && let Ok(x) = u16::try_from(x)
        {
            self.buffer.set_stringn(x, y, &text, room, style);
        }
        text.width()
    }

    fn put_right(&mut self, (end, y): (usize, u16), width: usize, style: Style, text: &str) {
        let taken = printable(text).width().min(width);
        self.put((end - taken, y), taken, style, text);
    }

    /// Puts pieces one after the other, on further lines where one is full, no more than `most` of them; returns the
    /// line below.
    fn flow(&mut self, y: u16, most: u16, pieces: &[Said]) -> u16 {
        let (mut x, mut line) = (0, y);
        for (text, style) in pieces {
            let width = printable(text).width();
            if x > 0 && x + GAP + width > usize::from(self.area().width) {
                if line + 1 == y + most {
                    break;
                }
                (x, line) = (0, line + 1);
            }
            let start = if x > 0 { x + GAP } else { 0 };
            x = start + self.put((start, line), usize::MAX, *style, text);
        }
        line + 1
    }
}

/// Draws everything.
pub(super) fn draw(
    model: &Model,
    screen: &mut Screen,
    readings: &Readings,
    now: Instant,
    buffer: &mut Buffer,
) {
    let mut canvas = Canvas { buffer, color: screen.color };
    let span = model.span(now);
    let y = head(&mut canvas, screen);
    let y = canvas.flow(y, MOST_FIGURES, &host(model, readings, span, now));
    let warning = model.warning(now, WARNING_SECONDS);
    let below = 1 + u16::from(warning.is_some());
    let end = canvas.area().height.saturating_sub(below).max(y);
    if let Some(warning) = warning {
        canvas.put((0, end), usize::MAX, YELLOW, &format!("warning: {}", warning.text));
    }
    if screen.is_help {
        text(&mut canvas, (y, end), &details::help(), 0);
    } else if let Some(label) = screen.details.clone() {
        let width = usize::from(canvas.area().width);
        let lines = details::of_group(model, screen.by, &label, span, width);
        let most = lines.len().saturating_sub(usize::from(end.saturating_sub(y)));
        screen.scroll = screen.scroll.min(most);
        screen.page = usize::from(end.saturating_sub(y)).max(1);
        text(&mut canvas, (y, end), &lines, screen.scroll);
    } else {
        table(&mut canvas, model, screen, span, (y, end));
    }
    let last = canvas.area().height.saturating_sub(1);
    foot(&mut canvas, screen, last);
}

/// What is shown, and how; returns the line below.
fn head(canvas: &mut Canvas<'_>, screen: &Screen) -> u16 {
    let mut pieces = vec![("fork-trace top".to_owned(), BOLD)];
    if screen.is_paused {
        pieces.push((" PAUSED ".to_owned(), REVERSED));
    }
    if let Some(path) = &screen.recording {
        pieces.push((format!("recording to {path}"), RED));
    }
    if !screen.filter.is_empty() && !screen.is_typing {
        pieces.push((format!("only \"{}\"", screen.filter), YELLOW));
    }
    pieces.push((screen.source.clone(), DIM));
    canvas.flow(0, 1, &pieces)
}

/// The figures of the host, those first that matter most.
fn host(model: &Model, readings: &Readings, span: Span, now: Instant) -> Vec<Said> {
    let recent = span.counts(&model.recent, &model.all);
    let mut pieces = Vec::new();
    let ns = span.ns();
    pieces.push((format!("{} forks/s", rate(recent.forks, ns)), BOLD));
    let style = if recent.failed > 0 { RED } else { PLAIN };
    pieces.push((format!("{} failed/s", rate(recent.failed, ns)), style));
    let style = |number: u64, style| if number > 0 { style } else { PLAIN };
    pieces.push((format!("{} lost", count(model.lost)), style(model.lost, RED)));
    let stuck = readings.stuck.or_else(|| u64::try_from(model.stuck.len()).ok());
    if let Some(stuck) = stuck {
        pieces.push((format!("{} stuck", count(stuck)), style(stuck, YELLOW)));
    }
    if let Some(zombies) = &readings.zombies {
        let all = zombies.iter().map(|(_, number)| number).sum();
        let most = zombies.first().map(|(name, number)| format!(" ({name} {})", count(*number)));
        let most = most.unwrap_or_default();
        pieces.push((format!("{}{most}", counted(all, "zombie")), style(all, YELLOW)));
    }
    let mut limits: Vec<&Fill> = readings.limits.iter().filter(|limit| limit.is_near()).collect();
    for limit in model.limits(now) {
        let same = |other: &&Fill| (&other.limit, &other.path) == (&limit.limit, &limit.path);
        // What was read of it since then counts.
        if !readings.limits.iter().any(|other| same(&other)) {
            limits.push(limit);
        }
    }
    limits.sort_by_key(|limit| std::cmp::Reverse(limit.thousandths()));
    for limit in limits {
        let path = limit.path.as_deref().map(|path| format!(" of {path}")).unwrap_or_default();
        let share = percent(limit.current, limit.max);
        let number = if limit.is_bytes { size } else { count };
        let figures = format!("{} of {}", number(limit.current), number(limit.max));
        pieces.push((format!("{}{path} {share} full ({figures})", limit.limit), YELLOW));
    }
    let known = ns.filter(|_| model.all.held_ns > 0);
    pieces.push((format!("{} held/s", held(recent.held_ns, known)), PLAIN));
    pieces.push((
        format!("{} forks, {} failed", count(model.all.forks), count(model.all.failed)),
        DIM,
    ));
    if model.unfollowed > 0 {
        let words = format!("{} vforks were too many to be timed", count(model.unfollowed));
        pieces.push((words, YELLOW));
    }
    pieces
}

fn text(canvas: &mut Canvas<'_>, (y, end): (u16, u16), lines: &[String], skip: usize) {
    for (y, line) in (y..end).zip(lines.iter().skip(skip)) {
        canvas.put((0, y), usize::MAX, PLAIN, line);
    }
}

/// The columns that there is room for, and how wide the names are.
fn fitting(by: By, width: usize) -> (Vec<&'static Column>, usize) {
    let [least, most] = NAME;
    let mut wanted: Vec<&Column> =
        COLUMNS.iter().filter(|column| column.not_by != Some(by)).collect();
    wanted.sort_by_key(|column| column.need);
    let mut room = width.saturating_sub(least);
    let fits = |column: &&Column| {
        let left = room.checked_sub(column.width + GAP);
        room = left.unwrap_or(room);
        left.is_some()
    };
    let needs: Vec<u8> = wanted.into_iter().take_while(fits).map(|column| column.need).collect();
    let shown = COLUMNS.iter().filter(|column| needs.contains(&column.need)).collect();
    (shown, (least + room).min(most).min(width))
}

/// The rows.
fn table(
    canvas: &mut Canvas<'_>,
    model: &Model,
    screen: &mut Screen,
    span: Span,
    (y, end): (u16, u16),
) {
    let width = usize::from(canvas.area().width);
    let (columns, name) = fitting(screen.by, width);
    let title = match screen.by {
        By::Comm => "COMM",
        By::Exe => "PROGRAM",
        By::Unit => "UNIT",
        By::Cgroup => "CONTAINER OR GROUP",
        _ => "USER",
    };
    let marked = |sort: Option<Sort>| sort.is_some_and(|sort| sort == screen.sort);
    let head = |sort| if marked(sort) { BOLD.add_modifier(Modifier::UNDERLINED) } else { DIM };
    canvas.put((0, y), name, head(Some(Sort::Name)), title);
    let mut start = name;
    for column in &columns {
        start += GAP;
        let style = head(column.sort);
        match column.is_right {
            true => canvas.put_right((start + column.width, y), column.width, style, column.title),
            false => drop(canvas.put((start, y), column.width, style, column.title)),
        }
        start += column.width;
    }
    let rows = rows::rows(model, span, screen.by, &screen.filter, screen.sort);
    let lines = usize::from(end.saturating_sub(y + 1));
    let first = screen.show(rows.iter().map(|row| row.label.clone()).collect(), lines);
    let chosen = screen.chosen.clone();
    for (y, row) in (y + 1..end).zip(rows.iter().skip(first)) {
        row_cells(canvas, row, y, (&columns, name), span);
        if chosen.as_ref() == Some(&row.label) {
            let line = Rect { x: 0, y, width: canvas.area().width, height: 1 };
            canvas.buffer.set_style(line, REVERSED);
        }
    }
    if rows.is_empty() {
        let words = match (screen.filter.is_empty(), span) {
            (false, _) => "no row has this text in a name; Esc forgets it",
            (true, Span::Last(_)) => "no fork so far",
            (true, Span::Whole(_)) => "the recording has no fork so far",
        };
        canvas.put((0, y + 1), usize::MAX, DIM, words);
    }
}

fn row_cells(
    canvas: &mut Canvas<'_>,
    row: &Row,
    y: u16,
    (columns, name): (&[&Column], usize),
    span: Span,
) {
    let late = if row.late { " +" } else { "" };
    let style = if row.label == Label::Other { DIM } else { PLAIN };
    let room = name.saturating_sub(late.len());
    let taken = canvas.put((0, y), room, style, row.label.text());
    canvas.put((taken, y), late.len(), YELLOW, late);
    let mut start = name;
    for column in columns {
        start += GAP;
        let (text, style) = (column.cell)(row, span.ns());
        match column.is_right {
            true => canvas.put_right((start + column.width, y), column.width, style, &text),
            false => drop(canvas.put((start, y), column.width, style, &text)),
        }
        start += column.width;
    }
}

/// The last line: what is typed, what was said, or the keys.
fn foot(canvas: &mut Canvas<'_>, screen: &Screen, y: u16) {
    if screen.is_typing {
        let x = canvas.put((0, y), usize::MAX, BOLD, &format!("filter: {}", screen.filter));
        canvas.put((x, y), 1, REVERSED, " ");
        return;
    }
    if let Some((said, is_error)) = &screen.said {
        canvas.put((0, y), usize::MAX, if *is_error { RED } else { BOLD }, said);
        return;
    }
    let width = usize::from(canvas.area().width);
    let mut x = 0;
    for (key, what, _) in KEYS.iter().filter(|(_, what, _)| !what.is_empty()) {
        if x + key.len() + what.len() + 1 > width {
            break;
        }
        x += canvas.put((x, y), usize::MAX, BOLD, key) + 1;
        x += canvas.put((x, y), usize::MAX, DIM, what) + GAP;
    }
}
