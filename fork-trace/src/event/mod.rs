//! Everything that fork-trace reports, as types that serde reads and writes: one [`Fork`] per
//! attempt, and the other lines of a stream. These types are the JSON contract, version
//! [`start::SCHEMA_VERSION`].
//!
//! Integers stay integers; durations are nanoseconds and end in `_ns`; a value that is not known is
//! absent. Fields keep the order of the contract. Every other room is built on this one. It knows
//! neither BPF nor the kernel side's records nor `/proc`.

pub mod bytes;
pub mod caller;
pub mod cause;
pub mod clock;
pub mod clone_flags;
pub mod errno;
pub mod filters;
pub mod follow_up;
pub mod fork;
pub mod libc;
pub mod memory;
pub mod memory_cost;
pub mod nearest;
pub mod notice;
pub mod replay;
pub mod schema;
pub mod span;
pub mod stage;
pub mod start;
pub mod stuck;
pub mod summary;
pub mod tally;
pub mod units;
pub mod values;
pub mod wait;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    follow_up::{Exec, Exit, VforkDone},
    fork::Fork,
    notice::{Loss, Warning},
    stage::StageLine,
    start::Start,
    stuck::Stuck,
    summary::Summary,
};

/// One line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first line: what is traced on which host, and which stages can be seen.
    Start(Box<Start>),
    /// One attempt to make a task.
    Fork(Box<Fork>),
    /// One stage of an attempt, in a stream that has these lines instead of `fork` lines.
    Stage(Box<StageLine>),
    /// The parent of a vfork continues.
    VforkDone(VforkDone),
    /// A child began to run another program.
    Exec(Exec),
    /// A child process ended.
    Exit(Exit),
    /// An attempt has not ended for a while.
    Stuck(Stuck),
    /// Records were lost.
    Loss(Loss),
    /// Something that the user should know.
    Warning(Warning),
    /// The last line: totals of the whole trace.
    Summary(Box<Summary>),
}
