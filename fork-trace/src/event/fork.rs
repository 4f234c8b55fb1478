//! The `fork` line: one attempt to make a task, whether it succeeded or not.

use std::sync::Arc;

use crate::event::{
    caller::{Ancestor, Parent},
    cause::Cause,
    libc::Libc,
    memory::Memory,
    span::{Span, worked_ns},
    stack::Frame,
    values::{Call, HexFlags, Kind, Name, Ts},
    wait::{Slow, Wait, WaitsMore},
};
use fork_trace_common::stage::Stage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands for the time in no stage that is shown, where a stage's name is expected.
pub const OTHER: &str = "other";

/// The id of an attempt: its caller's thread id, and when it began in nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn id_of(tid: u32, began_ns: u64) -> String {
    let mut id = String::with_capacity(32);
    id.push_str(itoa::Buffer::new().format(tid));
    id.push('-');
    id.push_str(itoa::Buffer::new().format(began_ns));
    id
}

/// What stands for the reason of a wait that is not known.
pub const UNKNOWN: &str = "unknown";

/// One attempt to make a task, success or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fork {
    /// Parent tid and start of the attempt (`CLOCK_MONOTONIC`): unique in one boot.
    pub id: String,
    /// When the attempt entered the kernel; of a refusal without entry, when it returned.
    pub ts: Ts,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// What it makes; absent when the flags could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Absent for tasks that the kernel makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<Call>,
    /// The call came through the 32-bit entry; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compat: Option<bool>,
    /// The flags word as the caller passed it: `clone`'s with the exit signal in its low byte,
    /// `clone3`'s `flags` field, the kernel's equivalent for `fork` and `vfork`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_flags: Option<HexFlags>,
    /// The flags set in it, kernel spelling, lowest bit first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_flags_names: Option<Vec<Name>>,
    /// Thread ids that the caller of `clone3` chose itself, one for each nested pid namespace;
    /// absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_tids: Option<u64>,
    /// Signal sent to the parent when the child ends; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<u64>,
    /// The task that called, taken in the hook.
    pub parent: Parent,
    /// The processes from which the caller descends, its parent first, 16 at most. They are looked up after the
    /// attempt and are no older than a tenth of a second; the list ends early at one that was gone by then.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub ancestors: Arc<[Ancestor]>,
    /// The caller's user-space stack, with `--stacks`: the innermost frame first. Absent where it was not
    /// taken, or was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
    /// Absent when the attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Child>,
    /// As the caller sees it; absent for tasks that the kernel makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<i64>,
    /// Error number, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_name: Option<Name>,
    /// The stage that refused it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_stage: Option<Name>,
    /// Why it failed; absent where nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What else can have refused it, or would have refused it next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_causes: Vec<Cause>,
    /// The attempt whose refusal made the C library make this one instead: both are one spawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The attempt that the C library made instead of this one, which was refused: so this is no
    /// failure of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fell_back_to: Option<String>,
    /// How often the kernel restarted the call for a signal (`ERESTARTNOINTR`); absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Entry to return in the parent, without the vfork wait; absent when the entry was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ns: Option<u64>,
    /// Entry until the caller ran in user space again: `total_ns`, the wait of a vfork, and
    /// `return_ns`. Absent while the caller is still held, and where that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_ns: Option<u64>,
    /// What kept the caller after its call returned, before it ran in user space; absent where it did
    /// not leave its CPU on that way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_ns: Option<u64>,
    /// Of `total_ns`: time not on a CPU; absent means none, unless `waits_incomplete` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_cpu_ns: Option<u64>,
    /// Where it stood still: the longest, in order; of the attempt, of a vfork's wait, and of the way
    /// back to user space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// What is not among them, of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_more: Option<WaitsMore>,
    /// `true`: records of waits were lost while it lasted, so some of its waits may be missing. Then
    /// nothing is said that a missing wait would make wrong: `held_ns`, `return_ns` and the child's
    /// `to_user_ns` are absent, and no work is named as what made it slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_incomplete: Option<bool>,
    /// `true`: records came faster than they were read, so its stages, its memory and its child's start were left
    /// out. `other_ns` is absent then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brief: Option<bool>,
    /// What took the time, where it was held for 10 ms or more and figures prove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// The stages this host can show, in kernel order, and those that shared instead of copying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Span>,
    /// The caller's memory when the call began, and what the child got of it; absent when the child shares
    /// it.
    #[serde(default, skip_serializing_if = "Memory::is_unknown")]
    pub memory: Memory,
    /// `total_ns` without the `self_ns` of all stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_ns: Option<u64>,
    /// The child's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_start: Option<ChildStart>,
    /// The C library around it, with `--libc`; absent where the caller was in no wrapper that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libc: Option<Libc>,
    /// What is odd about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<ForkWarning>,
}

impl Fork {
    /// Whether a task was made.
    #[must_use]
    pub const fn succeeded(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it failed, and nothing was made instead.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        !self.succeeded() && self.fell_back_to.is_none()
    }

    /// Under what its failure is counted.
    #[must_use]
    pub fn failure(&self) -> Name {
        failure(self.cause.as_ref(), self.errno, self.errno_name.as_ref())
    }

    /// How long it kept its caller: until the caller was back in user space; of a task that the
    /// kernel makes for itself, its total. `None` where that is not known, as long as it is held.
    #[must_use]
    pub fn took_ns(&self) -> Option<u64> {
        self.held_ns.or_else(|| self.total_ns.filter(|_| self.syscall.is_none()))
    }

    /// The time of its waits by their reasons; of its short ones only those have a reason that were told apart, and
    /// the others are [`UNKNOWN`].
    #[must_use]
    pub fn waits_ns(&self) -> Vec<(Name, u64)> {
        let named = |wait: &Wait| (wait.reason.clone(), wait.dur_ns);
        let mut waits: Vec<_> = self.waits.iter().map(named).collect();
        if let Some(more) = &self.waits_more {
            let preempted_ns = more.preempted_ns.unwrap_or_default();
            let quota_ns = more.quota_ns.unwrap_or_default();
            let rest_ns = more.dur_ns.saturating_sub(preempted_ns.saturating_add(quota_ns));
            let parts = [("preempted", preempted_ns), ("cpu-quota", quota_ns), (UNKNOWN, rest_ns)];
            waits.extend(parts.map(|(reason, ns)| (Name::Borrowed(reason), ns)));
        }
        waits.retain(|(_, ns)| *ns > 0);
        waits
    }

    /// When the child became runnable, from the start of the attempt, where the stage that wakes it has a
    /// time.
    #[must_use]
    pub fn woken_ns(&self) -> Option<u64> {
        let name = Stage::WakeUpNewTask.row().name;
        let span = self.stages.iter().find(|span| span.name == name)?;
        span.start_ns?.checked_add(span.dur_ns?)
    }

    /// The name of the stage that worked for longest, and for how long, without its waits; [`OTHER`] where more
    /// of the time is in no stage that is shown. `None` where waits may be missing: then that time may
    /// be a wait, and in another stage.
    #[must_use]
    pub fn slowest(&self) -> Option<(&str, u64)> {
        if self.waits_incomplete.or(self.brief).is_some() {
            return None;
        }
        let shares = |of: &str| -> u64 {
            let shares = self.stages.iter().filter(|span| span.of.as_deref() == Some(of));
            shares.filter_map(|span| span.dur_ns).sum()
        };
        let timed = self.stages.iter().filter_map(|span| {
            let name = span.name.as_ref();
            let own_ns = match span.is_sampled() {
                true => span.dur_ns?,
                false => worked_ns(&self.stages, span)?.saturating_sub(shares(name)),
            };
            Some((name, own_ns))
        });
        let other = self.other_ns.filter(|_| !self.stages.is_empty());
        let other = other.map(|ns| (OTHER, ns.saturating_sub(shares(OTHER))));
        other.into_iter().chain(timed).max_by_key(|(_, self_ns)| *self_ns)
    }

    /// The same, where the wait of a vfork counts as a stage: it is no part of `total_ns`.
    #[must_use]
    pub fn slowest_with_wait(&self) -> Option<(&str, u64)> {
        let total_ns = self.total_ns?;
        let in_call_ns = total_ns.saturating_add(self.return_ns.unwrap_or_default());
        let waited_ns = self.took_ns().unwrap_or(total_ns).saturating_sub(in_call_ns);
        let wait = (Stage::WaitForVforkDone.row().name, waited_ns);
        let wait = Some(wait).filter(|_| self.kind == Some(Kind::Vfork) && waited_ns > 0);
        self.slowest().into_iter().chain(wait).max_by_key(|(_, self_ns)| *self_ns)
    }

    /// The longest of the waits that took most of the time by their reason, and the time of all with
    /// that reason.
    #[must_use]
    pub fn longest_wait(&self) -> Option<(&Wait, u64)> {
        let sum = |first: &&Wait| {
            let same = self.waits.iter().filter(|wait| wait.reason == first.reason);
            let told_ns: u64 = same.map(|wait| wait.dur_ns).sum();
            told_ns + self.more_waited_ns(first)
        };
        let longest = self.waits.iter().max_by_key(|wait| (sum(wait), wait.dur_ns))?;
        Some((longest, sum(&longest)))
    }

    /// The time of further waits, not told one by one, that are sure to have the same reason.
    fn more_waited_ns(&self, of: &Wait) -> u64 {
        let more = self.waits_more.and_then(|more| match &*of.reason {
            "preempted" => more.preempted_ns,
            "cpu-quota" => more.quota_ns,
            _ => None,
        });
        more.unwrap_or_default()
    }
}

/// Under what a failure is counted: its cause, or else its error.
#[must_use]
pub fn failure(cause: Option<&Cause>, errno: Option<u32>, errno_name: Option<&Name>) -> Name {
    if let Some(cause) = cause {
        return Name::Borrowed(cause.kind.name());
    }
    let number = || errno.map(|errno| Name::Owned(format!("errno {errno}")));
    // An attempt without an error number has made no task by the time when its caller was last seen, as
    // one that was killed in the middle of it.
    let unseen = Name::Borrowed("return-not-seen");
    errno_name.cloned().or_else(number).unwrap_or(unseen)
}

/// The new task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Child {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Thread id in its own pid namespace, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Name of the task; absent where it is its parent's, as it is at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// How the child got going.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChildStart {
    /// Runnable to first on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ns: Option<u64>,
    /// Runnable to its first moment in user space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_user_ns: Option<u64>,
    /// The CPU it was first given.
    pub cpu: u32,
    /// Time it spent in `schedule_tail`, where that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_tail_ns: Option<u64>,
    /// The CPU on which the parent woke it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_cpu: Option<u32>,
    /// Where it stood still before it ran in user space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
}

/// What is odd about an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForkWarning {
    /// Stable name.
    pub code: Name,
    /// In words.
    pub text: String,
}
