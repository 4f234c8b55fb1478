//! A table: names on the left, figures on the right, and as many of its columns as there is room for.

use std::io::{self, Write};

use anstyle::Style;
use unicode_width::UnicodeWidthStr as _;

use crate::output::text::{
    columns::GAP,
    line::{DIM, Line, PLAIN, printable},
};

/// The narrowest column of names.
const NAME: usize = 13;

/// The widest.
const WIDEST_NAME: usize = 48;

/// A column of figures.
#[derive(Clone, Copy)]
pub(in crate::output) struct Column {
    /// Its title.
    pub(in crate::output) title: &'static str,
    /// Its narrowest width.
    pub(in crate::output) least: usize,
    /// Those of the highest number go first where there is no room, all of one number together.
    pub(in crate::output) need: u8,
}

/// A row: its name, and a figure for each column; one that is not known is empty.
pub(in crate::output) struct Row {
    pub(in crate::output) name: String,
    pub(in crate::output) style: Style,
    pub(in crate::output) figures: Vec<String>,
}

/// Rows below a title.
pub(in crate::output) struct Section {
    pub(in crate::output) title: String,
    pub(in crate::output) rows: Vec<Row>,
}

/// Writes sections below each other, a blank line below each; their columns have the same places.
pub(in crate::output) fn write(
    columns: &[Column],
    sections: &[Section],
    line: &mut Line,
    writer: &mut impl Write,
) -> io::Result<()> {
    let rows = || sections.iter().flat_map(|section| &section.rows);
    let width = |(place, column): (usize, &Column)| {
        let figures = rows().filter_map(|row| Some(row.figures.get(place)?.width()));
        figures.chain([column.title.len(), column.least]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(width).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let taken = |shown: &[usize]| -> usize {
        shown.iter().filter_map(|place| widths.get(*place)).map(|width| width + GAP).sum()
    };
    while taken(&shown) + NAME > line.room() {
        let need = |place: &usize| columns.get(*place).map(|column| column.need);
        let Some(most) = shown.iter().map(need).max() else { break };
        shown.retain(|place| need(place) != most);
    }
    let titles = sections.iter().map(|section| section.title.as_str());
    let names =
        rows().map(|row| row.name.as_str()).chain(titles).map(|name| printable(name).width());
    let room = line.room().saturating_sub(taken(&shown)).min(WIDEST_NAME);
    // A name that is wider than that has a line of its own.
    let name = names.filter(|width| *width <= room).max().unwrap_or_default().max(NAME);
    let mut put = |line: &mut Line, style: Style, text: &str, figures: &[&str]| {
        line.push(style, text);
        if printable(text).width() > name && !figures.is_empty() {
            line.end(writer)?;
        }
        let mut end = name;
        for place in &shown {
            end += GAP + widths.get(*place).copied().unwrap_or_default();
            let figure = figures.get(*place).copied().unwrap_or_default();
            line.push_right(if style == DIM { DIM } else { PLAIN }, figure, end);
        }
        line.end(writer)
    };
    for section in sections.iter().filter(|section| !section.rows.is_empty()) {
        let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
        put(line, DIM, &section.title, &titles)?;
        for Row { name, style, figures } in &section.rows {
            let figures: Vec<&str> = figures.iter().map(String::as_str).collect();
            put(line, *style, name, &figures)?;
        }
        put(line, PLAIN, "", &[])?;
    }
    Ok(())
}
