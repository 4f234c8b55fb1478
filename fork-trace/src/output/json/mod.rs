//! JSON, one object a line: the contract itself.

mod compact;

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    event::{Event, fork::Fork, stage},
    output::{sink::Sink, told::Told},
};

/// Writes each event as one line of JSON.
pub struct Json<W> {
    to: W,
    /// The line under way: a serializer writes a few bytes at a time, which costs least in memory.
    line: Vec<u8>,
    told: Told,
}

impl<W: Write> Json<W> {
    /// Onto `writer`, which gets one whole line at a time and should be buffered.
    pub const fn new(writer: W) -> Self {
        Self::telling(writer, Told::Forks)
    }

    /// As [`Self::new`], with `told` of the attempts.
    pub const fn telling(writer: W, told: Told) -> Self {
        Self { to: writer, line: Vec::new(), told }
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        compact::append(&mut self.line, value)?;
        self.line.push(b'\n');
        self.to.write_all(&self.line)
    }
}

/// A line of what an event holds, without a copy of it: the same bytes as the [`Event`] gives.
#[derive(Serialize)]
struct Tagged<'a, T> {
    r#type: &'static str,
    #[serde(flatten)]
    of: &'a T,
}

impl<W: Write> Sink for Json<W> {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        if self.told != Told::Stages {
            return self.line(&Tagged { r#type: "fork", of: fork });
        }
        let mut lines = stage::lines(fork);
        lines.try_for_each(|stage| self.line(&Tagged { r#type: "stage", of: &stage }))
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.line(event)
    }

    fn tick(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
