//! The `summary` line: counts, percentiles, and whether they agree with the kernel's own count.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::event::values::Name;

/// The last line: counts, and whether they agree with the kernel's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Attempts shown.
    pub attempts: u64,
    /// Of these, those that made a task.
    pub succeeded: u64,
    /// Of these, those that did not, though nothing was tried instead.
    pub failed: u64,
    /// Of these, those that were refused and made anew by another call (`fell_back_to`); absent where
    /// there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fell_back: u64,
    /// Attempts shown by kind; those of unknown kind are left out.
    pub by_kind: BTreeMap<Name, u64>,
    /// Failures by kind of cause; by the errno's name where nothing is known of the cause.
    pub failures_by_cause: BTreeMap<Name, u64>,
    /// Attempts that are not shown because they were lost.
    pub lost: u64,
    /// Of these, those that are known to have made a task: this much of `lost` is part of `kernel_forks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_tasks: Option<u64>,
    /// Everything that was lost, by place, as in [`Loss::by`](crate::event::notice::Loss::by): attempts,
    /// and parts of attempts and follow-ups, which `lost` leaves out. Absent where nothing was lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost_by: BTreeMap<Name, u64>,
    /// New tasks that are not shown: another process's, or of a kind left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<u64>,
    /// Attempts that were under way when tracing began or ended, whether or not they had made a task
    /// by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<u64>,
    /// Those among them that had made a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way_tasks: Option<u64>,
    /// Growth of `processes` in /proc/stat while attached; absent when it could not be pinned to
    /// one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_forks: Option<u64>,
    /// Whether `kernel_forks` equals `succeeded` plus `lost_tasks`, `filtered` and `under_way_tasks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounted: Option<bool>,
    /// Outputs that could not be written to their end. Absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_outputs: Option<u64>,
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
    /// `dur_ns` and `self_ns` by stage, in kernel order.
    pub by_stage: Vec<StageTimes>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What tracing cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// A stage's distributions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StageTimes {
    /// The stage.
    pub name: Name,
    /// Its `dur_ns`.
    pub total: Percentiles,
    /// Its `self_ns`: without the stages within it. Absent where it is the same.
    #[serde(rename = "self", default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Percentiles>,
}
