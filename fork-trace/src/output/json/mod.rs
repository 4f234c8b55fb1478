//! JSON, one object a line: the contract itself.

mod compact;

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    event::{Event, fork::Fork, stage},
    output::{json::compact::Line, sink::Sink, told::Told},
};

/// Writes each event as one line of JSON.
pub struct Json<W> {
    to: W,
    /// The line under way: a serializer writes a few bytes at a time, which costs least in memory.
    line: Line,
    told: Told,
}

impl<W: Write> Json<W> {
    /// Onto `writer`, which gets one whole line at a time and should be buffered.
    pub const fn new(writer: W) -> Self {
        Self::telling(writer, Told::Forks)
    }

    /// As [`Self::new`], with `told` of the attempts.
    pub const fn telling(writer: W, told: Told) -> Self {
        Self { to: writer, line: Line::new(), told }
    }

    /// What it writes to.
    pub(super) const fn writer(&mut self) -> &mut W {
        &mut self.to
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        compact::append(&mut self.line, value)?;
        self.end()
    }

    /// A line of what an event holds, without a copy of it: the same bytes as the [`Event`] gives. The value is
    /// an object with a field at least.
    fn tagged(&mut self, tag: &str, value: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        self.line.add(b"{\"type\":\"");
        self.line.add(tag.as_bytes());
        self.line.push(b'"');
        let opening = self.line.len();
        compact::append(&mut self.line, value)?;
        self.line.replace(opening, b',');
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.line.push(b'\n');
        self.to.write_all(self.line.bytes())
    }
}

impl<W: Write> Sink for Json<W> {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        if self.told != Told::Stages {
            return self.tagged("fork", fork);
        }
        let mut lines = stage::lines(fork);
        lines.try_for_each(|stage| self.tagged("stage", &stage))
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.line(event)
    }

    fn tick(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
