//! One line of a terminal: styled, harmless, and never wider than allowed.
//!
//! All text of the human outputs goes through here, so that no name of a process can move the
//! cursor, change colours or break the layout.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use anstyle::{AnsiColor, Effects, Style};
use unicode_width::UnicodeWidthStr as _;

/// As the terminal shows text by itself.
pub(crate) const PLAIN: Style = Style::new();
/// What the eye may skip.
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
/// What deserves a look.
pub(crate) const BOLD: Style = Style::new().effects(Effects::BOLD);
/// What failed.
pub(crate) const RED: Style = AnsiColor::Red.on_default();
/// What is odd.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Bars.
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();

/// A line in the making; reused from line to line.
pub(crate) struct Line {
    text: String,
    /// Columns taken so far.
    width: usize,
    /// The column at which the next piece begins, spaces up to there not yet written.
    next: usize,
    limit: Option<usize>,
    color: bool,
}

impl Line {
    /// An empty line of at most `limit` columns; styles are left out without `color`.
    pub(crate) const fn new(limit: Option<usize>, color: bool) -> Self {
        Self { text: String::new(), width: 0, next: 0, limit, color }
    }

    /// The column at which the next piece begins.
    pub(crate) const fn column(&self) -> usize {
        self.next
    }

    /// Columns left.
    pub(crate) fn room(&self) -> usize {
        self.room_from(self.next)
    }

    /// Columns from `column` on.
    pub(crate) fn room_from(&self, column: usize) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(column))
    }

    /// Moves on to `column`, unless the line is there already.
    pub(crate) fn pad_to(&mut self, column: usize) {
        self.next = self.next.max(column);
    }

    /// Adds `text`, shortened to the room that is left. Blanks at its end are kept back until
    /// something follows.
    pub(crate) fn push(&mut self, style: Style, text: &str) {
        let text = printable(text);
        let text = shorten(&text, self.room());
        let shown = text.trim_end_matches(' ');
        if !shown.is_empty() {
            for _ in self.width..self.next {
                self.text.push(' ');
            }
            if self.color && style != PLAIN {
                self.text.push_str(&format!("{style}{shown}{style:#}"));
            } else {
                self.text.push_str(shown);
            }
            self.width = self.next + shown.width();
        }
        self.next += text.width();
    }

    /// Adds `text` so that it ends just before column `end`, or later if it is too wide for that.
    pub(crate) fn push_right(&mut self, style: Style, text: &str, end: usize) {
        self.pad_to(end.saturating_sub(printable(text).width()));
        self.push(style, text);
    }

    /// Adds `text`, going on at column `indent` of further lines where one is full.
    pub(crate) fn push_words(
        &mut self,
        writer: &mut impl Write,
        style: Style,
        text: &str,
        indent: usize,
    ) -> io::Result<()> {
        let mut run = String::new();
        for word in text.split_whitespace() {
            let word = printable(word);
            let gap = if run.is_empty() { "" } else { " " };
            let full = run.width() + gap.len() + word.width() > self.room();
            if full && !run.is_empty() {
                self.push(style, &run);
                self.end(writer)?;
                self.pad_to(indent);
                run = word.into_owned();
            } else {
                run.push_str(gap);
                run.push_str(&word);
            }
        }
        self.push(style, &run);
        Ok(())
    }

    /// Writes the line and empties it.
    pub(crate) fn end(&mut self, writer: &mut impl Write) -> io::Result<()> {
        self.text.push('\n');
        let written = writer.write_all(self.text.as_bytes());
        self.text.clear();
        self.width = 0;
        self.next = 0;
        written
    }
}

/// `text` with everything spelt out that a terminal would obey rather than show.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_invisible(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Characters that show nothing but reorder, join or separate their neighbours.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// `text` if it fits into `room` columns, else its beginning and `…`.
pub(crate) fn shorten(text: &str, room: usize) -> Cow<'_, str> {
    if text.len() <= room || text.width() <= room {
        return Cow::Borrowed(text);
    }
    let Some(room) = room.checked_sub(1) else {
        return Cow::Borrowed("");
    };
    let mut kept = text;
    while kept.width() > room {
        let last = kept.char_indices().next_back().map_or(0, |(at, _)| at);
        kept = kept.get(..last).unwrap_or("");
    }
    Cow::Owned(format!("{kept}…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &mut Line) -> String {
        let mut out = Vec::new();
        line.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(printable("tmux: server"), "tmux: server");
        assert_eq!(printable("a\x1b[2J\tb\n\r\x7f"), "a\\x1b[2J\\tb\\n\\r\\x7f");
        assert_eq!(printable("\u{9b}31m"), "\\x9b31m");
        assert_eq!(printable("txt\u{202e}exe"), "txt\\u{202e}exe");
        assert_eq!(printable("日本語 é 🦀"), "日本語 é 🦀");
        let hostile = "x\x1b\u{200d}y";
        assert_eq!(printable(&printable(hostile)), printable(hostile));
    }

    #[test]
    fn shortening_keeps_to_columns_not_characters() {
        assert_eq!(shorten("copy_process", 12), "copy_process");
        assert_eq!(shorten("copy_process", 11), "copy_proce…");
        assert_eq!(shorten("日本語", 6), "日本語");
        assert_eq!(shorten("日本語", 5), "日本…");
        assert_eq!(shorten("日本語", 4), "日…");
        assert_eq!(shorten("日本語", 1), "…");
        assert_eq!(shorten("日本語", 0), "");
    }

    #[test]
    fn a_line_is_padded_cut_and_without_trailing_spaces() {
        let mut line = Line::new(Some(10), false);
        line.push(RED, "ab");
        line.pad_to(4);
        line.push_right(PLAIN, "1", 6);
        line.push(PLAIN, "23456789");
        assert_eq!(written(&mut line), "ab   1234…\n");
        line.push(PLAIN, "ab");
        line.pad_to(8);
        assert_eq!(written(&mut line), "ab\n");
    }

    #[test]
    fn colour_surrounds_a_piece_only() {
        let mut line = Line::new(None, true);
        line.pad_to(1);
        line.push(RED, "no");
        line.push(PLAIN, "!");
        assert_eq!(written(&mut line), " \x1b[31mno\x1b[0m!\n");
    }

    #[test]
    fn words_go_on_below() {
        let mut line = Line::new(Some(12), false);
        let mut out = Vec::new();
        line.push(PLAIN, "note: ");
        line.push_words(&mut out, PLAIN, "one two three\tfour", 2).unwrap();
        line.end(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "note: one\n  two three\n  four\n");
    }
}
