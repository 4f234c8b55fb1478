//! JSON, one object a line: the contract itself.

mod compact;

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    event::{Event, fork::Fork},
    output::sink::Sink,
};

/// Writes each event as one line of JSON.
pub struct Json<W> {
    to: W,
    /// The line under way: a serializer writes a few bytes at a time, which costs least in memory.
    line: Vec<u8>,
}

impl<W: Write> Json<W> {
    /// Onto `writer`, which gets one whole line at a time and should be buffered.
    pub const fn new(writer: W) -> Self {
        Self { to: writer, line: Vec::new() }
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        compact::append(&mut self.line, value)?;
        self.line.push(b'\n');
        self.to.write_all(&self.line)
    }
}

/// A `fork` line, without a copy of the fork: the same bytes as [`Event::Fork`] gives.
#[derive(Serialize)]
struct ForkLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    fork: &'a Fork,
}

impl<W: Write> Sink for Json<W> {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        self.line(&ForkLine { r#type: "fork", fork })
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.line(event)
    }

    fn tick(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
