//! The `summary` line: counts, percentiles, and whether they agree with the kernel's own count.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::event::values::Name;

/// The last line: counts, and whether they agree with the kernel's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Attempts shown.
    pub attempts: u64,
    /// Of these, those that made a task.
    pub succeeded: u64,
    /// Of these, those that did not.
    pub failed: u64,
    /// Attempts shown by kind; those of unknown kind are left out.
    pub by_kind: BTreeMap<Name, u64>,
    /// Failures by kind of cause; by the errno's name where nothing is known of the cause.
    pub failures_by_cause: BTreeMap<Name, u64>,
    /// Attempts whose record was lost.
    pub lost: u64,
    /// New tasks that are not shown: another process's, or of a kind left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<u64>,
    /// Attempts that were under way when tracing began or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<u64>,
    /// Growth of `processes` in /proc/stat while attached; absent when it could not be pinned to
    /// one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_forks: Option<u64>,
    /// Whether `kernel_forks` equals the successes shown plus those lost, filtered or under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounted: Option<bool>,
    /// What tracing cost.
    #[serde(rename = "self", default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
    /// Runs of programs that the kernel skipped, by tracepoint or function: a program does not run
    /// while it is under way on the same CPU, and a probed return not if there was no room for it.
    /// Absent where none was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missed_runs: BTreeMap<Name, u64>,
    /// `total_ns` by kind.
    pub totals: BTreeMap<Name, Percentiles>,
    /// `self_ns` by stage, in kernel order.
    pub stages: Vec<StagePercentiles>,
}

/// What tracing cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Time of this process on CPUs, user and system.
    pub cpu_ns: u64,
    /// Its largest resident size.
    pub max_rss_bytes: u64,
    /// Reading BTF, loading and attaching.
    pub attach_ns: u64,
    /// Detaching.
    pub detach_ns: u64,
}

/// A distribution of durations; within 0.1 %.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// Half are at or below.
    pub p50_ns: u64,
    /// 90 % are at or below.
    pub p90_ns: u64,
    /// 99 % are at or below.
    pub p99_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

/// A stage's distribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePercentiles {
    /// The stage.
    pub name: Name,
    /// Its `self_ns`.
    #[serde(flatten)]
    pub self_ns: Percentiles,
}
