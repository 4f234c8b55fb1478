//! Two recordings beside each other, as `replay A --against B --json` prints them: types only.

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::{
    start::{HostInfo, Start},
    values::{Name, Ts},
    wait::Share,
};

/// What is printed by itself, and is no line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Printed {
    /// Two recordings beside each other.
    Compare(Box<Compare>),
}

/// Two recordings beside each other. What moved most comes first in each list, and what says little comes last.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Compare {
    /// The version of this contract.
    pub schema_version: u32,
    /// The recording that `replay` names first.
    pub a: Recorded,
    /// The one that `--against` names.
    pub b: Recorded,
    /// What `kinds` compare: `held_ns`, or `total_ns` where one of the two does not tell how long callers were
    /// held.
    pub compared: Name,
    /// By what `kinds` and `stages` are ordered: `p50_moved_ns`, whatever its sign.
    pub ordered_by: Name,
    /// The times of attempts that made a task, by kind.
    pub kinds: Vec<Times>,
    /// `dur_ns` by stage.
    pub stages: Vec<Times>,
    /// Failures by cause, ordered by how far their rate moved, or their number where a rate is not known.
    pub failures: Vec<Failures>,
}

/// One of the two recordings.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Recorded {
    /// The file, as it was named.
    pub file: String,
    /// When it began.
    pub ts: Ts,
    /// The host.
    pub host: HostInfo,
    /// `true`: it ends before its summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<bool>,
    /// How long was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traced_ns: Option<u64>,
    /// Attempts that the filters let through.
    pub attempts: u64,
    /// How many of them there were in each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Of the attempts, those that made a task.
    pub succeeded: u64,
    /// Of the attempts, those that made none, though nothing was made instead.
    pub failed: u64,
    /// Attempts that were lost.
    pub lost: u64,
    /// The share of all `total_ns` that was `off_cpu_ns`; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_cpu_share: Option<Share>,
}

impl Recorded {
    /// A recording in `file` that begins like this; nothing is counted yet.
    #[must_use]
    pub fn new(file: String, start: &Start) -> Self {
        Self {
            file,
            ts: start.ts,
            host: start.host.clone(),
            cut_off: None,
            traced_ns: None,
            attempts: 0,
            per_second: None,
            succeeded: 0,
            failed: 0,
            lost: 0,
            off_cpu_share: None,
        }
    }
}

/// The times of a kind or a stage in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Times {
    /// The kind or the stage.
    pub name: Name,
    /// In the first recording.
    pub a: Figures,
    /// In the second.
    pub b: Figures,
    /// By how much the median is longer in the second one; absent where one of the two has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_moved_ns: Option<i64>,
    /// The same of the 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_moved_ns: Option<i64>,
    /// `true`: fewer than 20 attempts of one of the two, so it says little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thin: Option<bool>,
    /// `true`: the two recordings bound the stage by different points, so its times are not the same thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_bounds: Option<bool>,
}

/// The times of a kind or a stage in one recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Figures {
    /// Attempts whose time is known.
    pub count: u64,
    /// Half of them took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<u64>,
    /// 99 % of them took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<u64>,
}

/// Failures for one cause in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Failures {
    /// The kind of cause, or the error where nothing is known of the cause.
    pub name: Name,
    /// How many in the first recording.
    pub a: u64,
    /// How many in the second.
    pub b: u64,
    /// `true`: one of the two has fewer than 20 attempts, so it says little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thin: Option<bool>,
}
