//! What fork-trace says, as typed values that serde reads and writes: one [`Fork`] per attempt, and
//! the lines around it. These types are the JSON contract, version [`start::SCHEMA_VERSION`].
//!
//! Integers stay integers; durations are nanoseconds and end in `_ns`; a value that is not known is
//! absent. Fields keep the order of the contract. Every other room stands on this one, and it knows
//! none of them: neither BPF nor records nor `/proc`.

pub mod caller;
pub mod cause;
pub mod clock;
pub mod clone_flags;
pub mod errno;
pub mod filters;
pub mod follow_up;
pub mod fork;
pub mod memory;
pub mod memory_cost;
pub mod notice;
pub mod replay;
pub mod span;
pub mod start;
pub mod summary;
pub mod tally;
pub mod units;
pub mod values;
pub mod wait;

use serde::{Deserialize, Serialize};

use crate::event::{
    follow_up::{Exec, Exit, VforkDone},
    fork::Fork,
    notice::{Loss, Warning},
    start::Start,
    summary::Summary,
};

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first line: who traces what, and what can be seen.
    Start(Box<Start>),
    /// One attempt to make a task.
    Fork(Box<Fork>),
    /// The parent of a vfork goes on.
    VforkDone(VforkDone),
    /// A child runs another program.
    Exec(Exec),
    /// A child process ended.
    Exit(Exit),
    /// Records were lost.
    Loss(Loss),
    /// Something the user should know.
    Warning(Warning),
    /// The last line.
    Summary(Box<Summary>),
}
