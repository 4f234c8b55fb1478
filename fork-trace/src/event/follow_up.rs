//! What becomes of a child after its fork, as the JSON contract tells it: types only.
//!
//! Each names its fork by that one's `id`. A follow-up comes after its fork in a stream, unless
//! the fork's own record was lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::values::{Name, Ts};

/// The parent of a vfork goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VforkDone {
    /// Id of the fork.
    pub fork_id: String,
    /// When the parent returned to user space.
    pub ts: Ts,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// Process id of the child, initial pid namespace.
    pub pid: u32,
    /// From the child runnable to the parent's return to user space.
    pub wait_ns: u64,
    /// From the beginning of the attempt to the parent's return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_ns: Option<u64>,
    /// What let the parent go; absent where that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_by: Option<ReleasedBy>,
    /// Its fork is not shown, because it was lost; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan: Option<bool>,
}

/// What lets the parent of a vfork go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleasedBy {
    /// The child runs another program.
    Exec,
    /// The child ended by itself.
    Exit,
    /// A signal killed the child, or the parent while it waited.
    Killed,
}

/// A child runs another program, or could not. It may do so more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// Id of the fork; absent for the traced command itself, whose fork is the tracer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_id: Option<String>,
    /// When the new program's memory was in place; of one that failed, when the call returned.
    pub ts: Ts,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// Process id of the child, initial pid namespace.
    pub pid: u32,
    /// Since the child was made (its `start_time`).
    pub after_ns: u64,
    /// The file as it was named to the kernel; a script's own, not its interpreter's. Absent where it
    /// could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The name is longer than what is kept of it; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_truncated: Option<bool>,
    /// Arguments, from the new program's memory; a script's begin with its interpreter. Absent
    /// where they could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// The arguments are longer than what is kept of them: the last one shown is cut; absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_truncated: Option<bool>,
    /// Its fork is not shown, because it was lost; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan: Option<bool>,
    /// Error number, where the child could not run the program and goes on with its own; absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_name: Option<Name>,
}

/// A child process ended: its last thread did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// Id of the fork; absent for the traced command itself, whose fork is the tracer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_id: Option<String>,
    /// When.
    pub ts: Ts,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// Process id of the child, initial pid namespace.
    pub pid: u32,
    /// Since the child was made (its `start_time`).
    pub lifetime_ns: u64,
    /// Exit code; absent when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
    /// Whether it ever ran another program.
    pub execed: bool,
    /// Its fork is not shown, because it was lost; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan: Option<bool>,
    /// How long its threads were on CPUs, user and system together, its own children apart; absent
    /// where the kernel's last look at it was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    /// The most memory that it had resident at once, as `ru_maxrss` of its own; until it runs another
    /// program, a child has its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rss_bytes: Option<u64>,
}
