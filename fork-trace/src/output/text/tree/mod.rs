//! The tree of processes, drawn at the end: who made whom, which programs they ran, how long they lived, how
//! they ended, and what their forks cost.
//!
//! `family` takes the events as they come, in bounded memory; `lineage` joins what it holds to a tree and
//! finds the longest path; `draw` makes lines of it. None of them recurses, however deep the tree is.

mod draw;
mod family;
mod lineage;

use std::io::{self, Write};

use crate::{
    event::{Event, fork::Fork},
    output::text::{
        line::Line,
        tree::{family::Family, lineage::Lineage},
    },
};

/// The tree, while its events come.
pub(super) struct Tree {
    family: Option<Family>,
}

impl Tree {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        Self { family: Some(Family::default()) }
    }

    /// Takes an event, in output order.
    pub(super) fn event(&mut self, event: &Event) {
        if let Some(family) = &mut self.family {
            family.event(event);
        }
    }

    /// Takes an attempt, in output order.
    pub(super) fn fork(&mut self, fork: &Fork) {
        if let Some(family) = &mut self.family {
            family.fork(fork);
        }
    }

    /// Writes the tree, unless it was written.
    pub(super) fn write(&mut self, line: &mut Line, writer: &mut impl Write) -> io::Result<()> {
        let Some(family) = self.family.take() else { return Ok(()) };
        draw::write(&Lineage::of(family), line, writer)
    }
}
