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
pub mod compare;
pub mod errno;
pub mod fill;
pub mod filters;
pub mod follow_up;
pub mod fork;
pub mod largest;
pub mod libc;
pub mod memory;
pub mod memory_cost;
pub mod nearest;
pub mod notice;
pub mod replay;
pub mod schema;
pub mod selection;
pub mod span;
pub mod stack;
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An attempt of this id with these further fields, each behind a comma. Without a `parent` among them it is
    /// process 1 that calls.
    pub(crate) fn fork(id: &str, fields: &str) -> Box<Fork> {
        let parent = match fields.contains(r#""parent""#) {
            true => "",
            false => r#","parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0}"#,
        };
        let head = format!(r#""id":"{id}","ts":"2026-01-01T00:00:00Z","mono_ns":100"#);
        serde_json::from_str(&format!("{{{head}{parent}{fields}}}")).unwrap()
    }

    /// The end of a vfork.
    pub(crate) fn done(fork_id: &str, held_ns: u64) -> Event {
        let head = format!(r#""fork_id":"{fork_id}","ts":"2026-01-01T00:00:00Z","mono_ns":1"#);
        let json =
            format!(r#"{{"type":"vfork_done",{head},"pid":2,"wait_ns":1,"held_ns":{held_ns}}}"#);
        serde_json::from_str(&json).unwrap()
    }
}
