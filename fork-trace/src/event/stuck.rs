//! The `stuck` line: an attempt that does not end, told while it lasts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    caller::Task,
    values::{Name, Ts},
    wait::{Keeper, WaitState},
};

/// A task that is inside a fork, and has been for some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stuck {
    /// Id of the attempt; absent where it began before tracing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_id: Option<String>,
    /// When this was seen; absent where nothing is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<Ts>,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// The task.
    pub parent: Task,
    /// Since when, `CLOCK_MONOTONIC`; absent where its beginning was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<u64>,
    /// For how long at least.
    pub for_ns: u64,
    /// Where it stands; absent where neither its stack nor a mark tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Name>,
    /// What it is.
    pub state: WaitState,
    /// Why: a name that `fork-trace explain` knows; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// Who keeps it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Keeper>,
    /// The functions on its kernel stack, the innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Name>,
}
