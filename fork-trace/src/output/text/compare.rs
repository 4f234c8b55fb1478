//! Two recordings beside each other, as text.

use std::io::{self, Write};

use anstyle::Style;

use crate::{
    event::{
        compare::{Compare, Failures, Figures, Recorded, Times},
        units::{count, duration, per_second, percent},
    },
    output::text::{
        line::{DIM, Line, PLAIN},
        table::{self, Column, Row, Section},
    },
};

const fn column(title: &'static str, least: usize, need: u8) -> Column {
    Column { title, least, need }
}

/// The columns of what is said of the whole.
const OF_ALL: [Column; 3] = [column("A", 7, 0), column("B", 7, 0), column("CHANGE", 6, 1)];

/// The columns of times.
const OF_TIMES: [Column; 8] = [
    column("COUNT A", 7, 6),
    column("COUNT B", 7, 6),
    column("P50 A", 7, 0),
    column("P50 B", 7, 0),
    column("CHANGE", 6, 2),
    column("P99 A", 7, 4),
    column("P99 B", 7, 4),
    column("CHANGE", 6, 4),
];

/// The columns of failures.
const OF_FAILURES: [Column; 5] = [
    column("COUNT A", 7, 0),
    column("COUNT B", 7, 0),
    column("RATE A", 6, 2),
    column("RATE B", 6, 2),
    column("CHANGE", 6, 1),
];

/// Writes all of it, in lines of no more than `width` columns.
///
/// # Errors
/// What the writer says.
pub fn write(
    compare: &Compare,
    width: Option<usize>,
    color: bool,
    writer: &mut impl Write,
) -> io::Result<()> {
    let line = &mut Line::new(width, color);
    let Compare { a, b, kinds, stages, failures: causes, .. } = compare;
    for (sign, side) in [("A", a), ("B", b)] {
        line.push(PLAIN, &format!("{sign}  "));
        line.push_words(writer, PLAIN, &about(side), "A  ".len())?;
        line.end(writer)?;
    }
    line.end(writer)?;
    table::write(&OF_ALL, &[all(a, b)], line, writer)?;
    let what = compare.compared.trim_end_matches("_ns").to_uppercase();
    let sections = [times(format!("KIND ({what})"), kinds), times("STAGE (TOTAL)".into(), stages)];
    table::write(&OF_TIMES, &sections, line, writer)?;
    table::write(&OF_FAILURES, &[failures(causes, a, b)], line, writer)?;
    for words in notes(compare) {
        line.push_words(writer, DIM, &words, 0)?;
        line.end(writer)?;
    }
    Ok(())
}

/// What a recording is.
fn about(side: &Recorded) -> String {
    let whole_seconds = side.ts.0.strftime("%Y-%m-%d %H:%M:%S UTC");
    let traced = side.traced_ns.map(|ns| format!(", {} traced", duration(ns))).unwrap_or_default();
    let cut = if side.cut_off.is_some() { ", cut off" } else { "" };
    let (host, kernel) = (&side.host.name, &side.host.kernel);
    format!("{}: {whole_seconds}, {host}, Linux {kernel}{traced}{cut}", side.file)
}

fn all(a: &Recorded, b: &Recorded) -> Section {
    let rate = |side: &Recorded| side.traced_ns.and_then(|ns| per_second(side.attempts, ns));
    let numbers = |name: &str, of: fn(&Recorded) -> u64| {
        figures(
            name.to_owned(),
            PLAIN,
            [Some(count(of(a))), Some(count(of(b))), change(Some(of(a)), Some(of(b)))],
        )
    };
    let share = |side: &Recorded| side.off_cpu_share.map(|share| u64::from(share.0));
    let shown = |share: Option<u64>| share.map(|share| percent(share, 1000));
    let rates = || {
        let [a, b] = [a, b].map(|side| Some((side.attempts, side.traced_ns?)));
        rate_change(a, b)
    };
    Section {
        title: "ALL".to_owned(),
        rows: vec![
            numbers("attempts", |side| side.attempts),
            figures("attempts per second".to_owned(), PLAIN, [rate(a), rate(b), rates()]),
            numbers("failed", |side| side.failed),
            numbers("lost", |side| side.lost),
            figures(
                "time off the CPU".to_owned(),
                PLAIN,
                [shown(share(a)), shown(share(b)), change(share(a), share(b))],
            ),
        ],
    }
}

fn times(title: String, rows: &[Times]) -> Section {
    let row = |times: &Times| {
        let Times { a, b, .. } = times;
        let ns = |ns: Option<u64>| ns.map(duration);
        let number = |figures: &Figures| Some(count(figures.count));
        let (p50, p99) = (change(a.p50_ns, b.p50_ns), change(a.p99_ns, b.p99_ns));
        let (name, style) = marked(&times.name, times.thin, times.other_bounds);
        figures(
            name,
            style,
            [
                number(a),
                number(b),
                ns(a.p50_ns),
                ns(b.p50_ns),
                p50,
                ns(a.p99_ns),
                ns(b.p99_ns),
                p99,
            ],
        )
    };
    Section { title, rows: rows.iter().map(row).collect() }
}

fn failures(rows: &[Failures], a: &Recorded, b: &Recorded) -> Section {
    let row = |row: &Failures| {
        let rate = |number, ns: Option<u64>| ns.and_then(|ns| per_second(number, ns));
        let [of_a, of_b] =
            [(row.a, a), (row.b, b)].map(|(number, side)| Some((number, side.traced_ns?)));
        let (name, style) = marked(&row.name, row.thin, None);
        figures(
            name,
            style,
            [
                Some(count(row.a)),
                Some(count(row.b)),
                rate(row.a, a.traced_ns),
                rate(row.b, b.traced_ns),
                rate_change(of_a, of_b).or_else(|| change(Some(row.a), Some(row.b))),
            ],
        )
    };
    Section { title: "FAILURE".to_owned(), rows: rows.iter().map(row).collect() }
}

/// A name with the signs of what says little.
fn marked(name: &str, thin: Option<bool>, other_bounds: Option<bool>) -> (String, Style) {
    let signs = [(thin, " *"), (other_bounds, " #")];
    let signs = signs.into_iter().filter_map(|(is, sign)| is.map(|_| sign)).collect::<String>();
    let style = if signs.is_empty() { PLAIN } else { DIM };
    (format!("{name}{signs}"), style)
}

fn figures<const N: usize>(name: String, style: Style, figures: [Option<String>; N]) -> Row {
    let figures = figures.map(|figure| figure.unwrap_or_else(|| "-".to_owned()));
    Row { name, style, figures: figures.to_vec() }
}

/// By how much `b` is more than `a`: in percent, or as a multiple where it is ten times as much.
fn change(a: Option<u64>, b: Option<u64>) -> Option<String> {
    let (a, b) = (a?, b?);
    Some(match (a, b) {
        (0, 0) => "0%".to_owned(),
        (0, _) => "new".to_owned(),
        _ if b / a >= 10 => format!("x{}", count(b / a)),
        _ => match percent(a.abs_diff(b), a) {
            zero if zero == "0%" => zero,
            some => format!("{}{some}", if b < a { "-" } else { "+" }),
        },
    })
}

/// The same of two rates, each a number in a time.
fn rate_change(a: Option<(u64, u64)>, b: Option<(u64, u64)>) -> Option<String> {
    let ((a, a_ns), (b, b_ns)) = (a?, b?);
    // As thousandths of a second, so that both products fit.
    let product =
        |number: u64, ns: u64| u64::try_from(u128::from(number) * u128::from(ns) / 1_000_000).ok();
    change(product(a, b_ns), product(b, a_ns))
}

/// By what the tables are ordered, and what the signs mean.
fn notes(compare: &Compare) -> Vec<String> {
    let mut notes = vec![
        "What moved most comes first: kinds and stages by how far the median (P50) moved in time, \
         failures by how far their rate did."
            .to_owned(),
    ];
    let all = || compare.kinds.iter().chain(&compare.stages);
    let thin = all().any(|times| times.thin.is_some())
        || compare.failures.iter().any(|row| row.thin.is_some());
    if thin {
        notes.push("* fewer than 20 attempts of A or of B: that says little.".to_owned());
    }
    if all().any(|times| times.other_bounds.is_some()) {
        notes.push(
            "# A and B bound this stage by different points: the times are not the same thing."
                .to_owned(),
        );
    }
    if compare.compared == "total_ns" {
        notes.push(
            "One of the two was recorded with --no-waits and does not tell how long callers were held: \
             kinds are compared by the time in the call."
                .to_owned(),
        );
    }
    notes
}
