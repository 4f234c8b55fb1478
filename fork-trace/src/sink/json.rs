//! JSON, one object a line: the contract itself.

use std::io::{self, Write};

use super::Sink;
use crate::fork::Event;

/// Writes each event as one line of JSON.
pub struct Json<W>(W);

impl<W: Write> Json<W> {
    /// Onto `writer`, which should be buffered.
    pub const fn new(writer: W) -> Self {
        Self(writer)
    }
}

impl<W: Write> Sink for Json<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        self.0.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
