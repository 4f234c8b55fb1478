//! The `start` line: what is traced on which host, and how well each stage can be seen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    filters::Filters,
    span::{Precision, Source},
    values::{Name, Ts},
};

/// The version of the JSON contract. It is raised when a field, its meaning or its unit changes,
/// and not when a field is added.
pub const SCHEMA_VERSION: u32 = 2;

/// The first line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of fork-trace.
    pub version: String,
    /// The moment when everything was attached and tracing began.
    pub ts: Ts,
    /// The same moment, in nanoseconds of `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// The traced host.
    pub host: HostInfo,
    /// The best kind of source that bounds stages in this trace.
    pub backend: Name,
    /// Which attempts are shown; without any filter, all attempts of the host.
    pub filters: Filters,
    /// How many samples of kernel stacks are taken a second on each CPU; absent: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_hz: Option<u32>,
    /// `false`: it was not measured where forks stand still (`--no-waits`), so nothing is told that
    /// follows from it: `waits`, `off_cpu_ns`, `held_ns` and `return_ns`, `to_user_ns`, `slow`, and
    /// `stuck` lines. Absent: it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<bool>,
    /// `true`: the callers' user-space stacks were taken (`--stacks`); absent: they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks: Option<bool>,
    /// How many bytes of records the kernel side holds until they are read: what comes when it is full
    /// is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_bytes: Option<u32>,
    /// What can be seen of each stage, in the kernel's order.
    pub coverage: Vec<Coverage>,
}

/// The traced host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostInfo {
    /// The host's name (`uname -n`).
    pub name: String,
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// The machine (`uname -m`).
    pub arch: String,
    /// How many CPUs are online.
    pub cpus: usize,
    /// The id of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

impl Coverage {
    /// Of a stage that is seen so precisely; nothing else is said of it yet.
    #[must_use]
    pub const fn new(name: Name, precision: Precision) -> Self {
        Self {
            name,
            precision,
            source: None,
            opens: None,
            closes: None,
            includes: Vec::new(),
            reason: None,
        }
    }
}

/// What can be seen of one stage on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// The stage's name.
    pub name: Name,
    /// How precisely the stage's time can be seen.
    pub precision: Precision,
    /// The kind of source that bounds the stage; absent where its time cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The name of the point at which its time begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Name>,
    /// The name of the point at which its time ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes: Option<Name>,
    /// Other stages that lie between the two points too, so that their time is included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<Name>,
    /// The reason why the stage's time cannot be seen; with `sampled`, why it cannot be seen better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
