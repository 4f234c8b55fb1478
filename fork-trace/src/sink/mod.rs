//! Where events go: one format a file, all behind [`Sink`].
//!
//! A sink knows [`Event`]s and its writer, nothing else: no BPF, no records, no `/proc`.

pub mod json;
pub mod notes;
pub mod text;

use std::io;

use crate::fork::Event;

/// Writes events somewhere. An error ends the trace; a closed pipe ends it quietly.
pub trait Sink {
    /// Takes one event, in output order.
    ///
    /// # Errors
    /// What the writer says.
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// A pause between batches: what was taken becomes visible.
    ///
    /// # Errors
    /// What the writer says.
    fn flush(&mut self) -> io::Result<()>;
}
