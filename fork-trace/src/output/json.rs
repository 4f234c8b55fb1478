//! JSON, one object a line: the contract itself.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    event::{Event, fork::Fork},
    output::sink::Sink,
};

/// Writes each event as one line of JSON.
pub struct Json<W>(W);

impl<W: Write> Json<W> {
    /// Onto `writer`, which should be buffered.
    pub const fn new(writer: W) -> Self {
        Self(writer)
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, value)?;
        self.0.write_all(b"\n")
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
        self.0.flush()
    }
}
