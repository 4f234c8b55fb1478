//! The one interface behind which every format stands.

use std::io;

use crate::event::{Event, fork::Fork};

/// Writes what a trace says somewhere.
///
/// An error takes this output away and leaves the others; a closed pipe does so quietly. A sink knows
/// events and its writer, and nothing of BPF, records or `/proc`.
pub trait Sink {
    /// Takes one attempt, in output order.
    ///
    /// # Errors
    /// What the writer says.
    fn fork(&mut self, fork: &Fork) -> io::Result<()>;

    /// Takes any other event, in output order; `event` is never [`Event::Fork`].
    ///
    /// # Errors
    /// What the writer says.
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// A pause between two batches of events, some twenty times a second: what was taken so far becomes
    /// visible.
    ///
    /// # Errors
    /// What the writer says.
    fn tick(&mut self) -> io::Result<()>;

    /// The end: nothing comes after it. What is still held back is written.
    ///
    /// # Errors
    /// What the writer says.
    fn finish(&mut self) -> io::Result<()> {
        self.tick()
    }
}

/// Hands `event` to the method of `sink` that takes it.
///
/// # Errors
/// What the writer says.
pub fn send(sink: &mut (impl Sink + ?Sized), event: &Event) -> io::Result<()> {
    match event {
        Event::Fork(fork) => sink.fork(fork),
        other => sink.event(other),
    }
}
