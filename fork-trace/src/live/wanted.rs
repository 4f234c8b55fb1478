//! What is wanted of a trace, whoever said so.

use std::time::{Duration, Instant};

use crate::event::filters::Filters;

/// What becomes of children, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// Only of attempts that are wanted for their outcome.
    pub by_outcome: bool,
    /// Their ends.
    pub exits: bool,
    /// Only of attempts that held their caller for so long; the attempts themselves are left out
    /// too.
    pub min_held_ns: u64,
    /// Which threads are left in the end.
    pub threads_left: bool,
}

/// When to stop, apart from signals and the command's end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time.
    pub duration: Option<Duration>,
    /// After this many attempts.
    pub max_events: Option<u64>,
}

/// What is wanted of a trace.
pub struct Wanted {
    /// Whose attempts, as the `start` line tells it.
    pub filters: Filters,
    /// What becomes of children.
    pub followed: Followed,
    /// When to stop.
    pub limits: Limits,
    /// Whether it is not measured where a fork stands still.
    pub no_waits: bool,
    /// Whether the callers' stacks are taken.
    pub stacks: bool,
    /// The size of the ring.
    pub ring_bytes: u32,
    /// When the program was started: attaching is counted from here.
    pub since: Instant,
}
