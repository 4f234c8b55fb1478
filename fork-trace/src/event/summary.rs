//! The `summary` line: counts, percentiles, and whether they agree with the kernel's own count.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

use crate::event::{
    caller::Task,
    values::{Kind, Name},
    wait::Slow,
};

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
    /// How long was traced: from the `start` line until no further attempt was followed. Of a recording
    /// that was cut off, until its last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traced_ns: Option<u64>,
    /// What tracing cost.
    #[serde(rename = "self", default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
    /// Runs of programs that the kernel skipped, by tracepoint or function: a program does not run
    /// while it is under way on the same CPU, and a probed return not if there was no room for it.
    /// Absent where none was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missed_runs: BTreeMap<Name, u64>,
    /// `held_ns` by kind, of attempts that made a task.
    pub totals: BTreeMap<Name, Percentiles>,
    /// `dur_ns`, `self_ns` and `off_cpu_ns` by stage, in kernel order.
    pub by_stage: Vec<StageTimes>,
    /// The attempts shown, in groups. Absent where none were asked for (`--summary`), as are `slowest`
    /// and `failed_by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups>,
    /// The ten attempts that held their callers longest, the longest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowest: Vec<SlowAttempt>,
    /// Who failed, by what `failures_by_cause` counts: the five that failed most, the most first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed_by: BTreeMap<Name, Vec<FailedBy>>,
    /// Threads that were made while tracing and had not ended when it ended, by process, and with `--stacks` by the
    /// stack that made them: the twenty with the most, those first. Only of a live trace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads_left: Vec<ThreadsLeft>,
    /// Threads of which that is not known, because too many were there at once. Absent where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub threads_not_followed: u64,
}

/// Threads that have not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadsLeft {
    /// The process.
    pub pid: u32,
    /// The name of the task that made the first of them.
    pub comm: String,
    /// Its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Arc<str>>,
    /// The stack that made them, in one line, as in `groups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<Arc<str>>,
    /// How many were made.
    pub made: u64,
    /// How many of these were left.
    pub left: u64,
}

/// By what attempts are put into groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The kind of task that is made.
    Kind,
    /// The caller's name.
    Comm,
    /// The program that the caller runs.
    Exe,
    /// The caller's control group.
    Cgroup,
    /// The caller's systemd unit.
    Unit,
    /// The caller's user.
    Uid,
    /// Why an attempt failed; those that did not are in no group.
    Cause,
    /// The caller's user-space stack.
    Stack,
}

impl By {
    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Comm => "comm",
            Self::Exe => "exe",
            Self::Cgroup => "cgroup",
            Self::Unit => "unit",
            Self::Uid => "uid",
            Self::Cause => "cause",
            Self::Stack => "stack",
        }
    }
}

/// The attempts shown, in groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Groups {
    /// By what.
    pub by: By,
    /// The groups whose attempts held their callers longest all together, these first; 32 at most.
    pub rows: Vec<Group>,
    /// The attempts of all other groups; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Group>,
    /// How many other groups these are; absent where there are none, and where there were too many to
    /// count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_groups: Option<u64>,
}

/// A group of attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// What they have in common: a kind, a name, a path, a user's id, a cause or a stack. Absent where that is not
    /// known of them, and of the other groups together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// The name of the user, where the group is a user's and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// How many attempts.
    pub count: u64,
    /// Of these, those that failed; absent where none did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Their `held_ns`, those that failed included; absent where it is known of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Percentiles>,
    /// `true`: there were so many groups that earlier attempts of this one may be counted in `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<bool>,
}

/// One of the attempts that held their callers longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlowAttempt {
    /// Its `id`.
    pub fork_id: String,
    /// The task that called.
    pub parent: Task,
    /// What it made, or would have made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// How long it held its caller.
    pub held_ns: u64,
    /// The error, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_name: Option<Name>,
    /// What took the time, as its own line says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// Where its line does not: the stage with the largest time of its own, or `other`; absent where no
    /// stage can be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Name>,
    /// That time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_ns: Option<u64>,
}

/// Callers of one name, and how often their attempts failed for one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedBy {
    /// The name of the callers.
    pub comm: String,
    /// How many failures.
    pub count: u64,
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
    /// All together; absent where that is more than a number can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum_ns: Option<u64>,
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
    /// Its `off_cpu_ns`, of those attempts that waited in it; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_cpu: Option<Percentiles>,
}
