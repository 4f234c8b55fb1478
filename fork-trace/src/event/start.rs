//! The `start` line: who traces what on which host, and how well each stage can be seen.

use serde::{Deserialize, Serialize};

use crate::event::{
    filters::Filters,
    span::{Precision, Source},
    values::{Name, Ts},
};

/// Raised when a field, its meaning or its unit changes; added fields do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// Head of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the tool.
    pub version: String,
    /// When tracing began: everything is attached.
    pub ts: Ts,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// Where.
    pub host: HostInfo,
    /// Which kind of source marks the stages' boundaries.
    pub backend: Name,
    /// Whose attempts are shown; empty: all of the host's.
    pub filters: Filters,
    /// What can be seen of each stage, in kernel order.
    pub stages: Vec<Coverage>,
}

/// The traced host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Host name (`uname -n`).
    pub name: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Machine (`uname -m`).
    pub arch: String,
    /// CPUs that are online.
    pub cpus: usize,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// What can be seen of one stage on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The stage.
    pub name: Name,
    /// How well.
    pub precision: Precision,
    /// By what; absent when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The mark from which its time counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Name>,
    /// The mark up to which its time counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes: Option<Name>,
    /// Other stages that fall between the two marks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<Name>,
    /// Why it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
