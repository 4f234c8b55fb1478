//! What fork-trace says: a [`Fork`] per attempt, and the notices around it, as typed values that
//! serde reads and writes. This is the JSON contract, version [`SCHEMA_VERSION`].
//!
//! Integers stay integers; durations are nanoseconds and end in `_ns`; a value that is not known
//! is absent. It knows nothing of BPF, records or `/proc`. Fields keep the order of the contract.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::{
    cause::kind::{Cause, CauseKind, Confidence},
    filters::Filters,
    follow_up::{Exec, Exit, ReleasedBy, VforkDone},
    identity::{Container, Ptrace},
    memory::Memory,
};

/// Raised when a field, its meaning or its unit changes; added fields do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// A name: borrowed from a table when live, owned when read back.
pub type Name = Cow<'static, str>;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first line: who traces what, and what can be seen.
    Start(Box<Start>),
    /// One attempt to make a task.
    Fork(Box<Fork>),
    /// The parent of a vfork goes on.
    VforkDone(VforkDone),
    /// A child runs another program.
    Exec(Exec),
    /// A child process ended.
    Exit(Exit),
    /// Records were lost.
    Loss(Loss),
    /// Something the user should know.
    Warning(Warning),
    /// The last line.
    Summary(Box<Summary>),
}

/// A moment of the realtime clock; RFC 3339 UTC with nine digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ts(pub Timestamp);

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.0)
    }
}

impl FromStr for Ts {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Ts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

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

/// ProbeKind well a stage's time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// From its own entry to its own return.
    Exact,
    /// Between two named marks, in which other things fall too.
    Bounded,
    /// Not at all.
    Missing,
}

/// What marks a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Fork's own tracepoints, or those that fire inside it.
    Tracepoint,
    /// Functions, by BTF trampoline.
    Fentry,
    /// Functions, by breakpoint.
    Kprobe,
    /// Follows from the call's flags.
    Derived,
}

impl Source {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Derived => "derived",
        }
    }
}

/// What can be seen of one stage on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The stage.
    pub name: Name,
    /// ProbeKind well.
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

/// What an attempt makes.
///
/// The descriptions are the help's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Processes
    Process,
    /// Processes for which the caller waits: vfork, `posix_spawn`
    Vfork,
    /// Threads
    Thread,
    /// Kernel threads
    Kthread,
    /// Threads of `io_uring`
    IoWorker,
    /// Other tasks that the kernel makes: helper programs, workers of vhost
    Other,
}

impl Kind {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Vfork => "vfork",
            Self::Thread => "thread",
            Self::Kthread => "kthread",
            Self::IoWorker => "io-worker",
            Self::Other => "other",
        }
    }
}

/// The system call of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// `fork(2)`.
    Fork,
    /// `vfork(2)`.
    Vfork,
    /// `clone(2)`.
    Clone,
    /// `clone3(2)`.
    Clone3,
}

impl Call {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Vfork => "vfork",
            Self::Clone => "clone",
            Self::Clone3 => "clone3",
        }
    }
}

/// One attempt to make a task, success or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// ProbeKind often the kernel restarted the call for a signal (`ERESTARTNOINTR`); absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Entry to return in the parent, without the vfork wait; absent when the entry was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ns: Option<u64>,
    /// The stages this host can show, in kernel order, and those that shared instead of copying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Span>,
    /// What was built for the child; absent when it shares its parent's address space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
    /// The caller's memory when the call began; absent when the child shares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// `total_ns` without the `self_ns` of all stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_ns: Option<u64>,
    /// The child's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_start: Option<ChildStart>,
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

    /// The stage with the largest time of its own, and that time.
    #[must_use]
    pub fn slowest(&self) -> Option<(&Span, u64)> {
        let timed = self.stages.iter().filter_map(|span| Some((span, span.self_ns?)));
        timed.max_by_key(|(_, self_ns)| *self_ns)
    }
}

/// A flags word, written as `"0x1200011"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HexFlags(pub u64);

impl fmt::Display for HexFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for HexFlags {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").context("a flags word begins with 0x")?;
        let word = u64::from_str_radix(digits, 16);
        word.map(Self).with_context(|| format!("{text} is no flags word"))
    }
}

impl Serialize for HexFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The calling task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Process id of its parent.
    pub ppid: u32,
    /// Name of the task.
    pub comm: String,
    /// The program it runs, from `/proc/PID/exe` shortly after; absent when it was gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Threads of its process when it called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// When its process was made, `CLOCK_MONOTONIC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// Id of its cgroup in the unified hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Path of that cgroup; where there is no unified hierarchy or the process stands at its root,
    /// the path in the older hierarchies that lies deepest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Process id in its own pid namespace, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// The container it runs in, where the cgroup's path tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Process id of the child's parent, where `CLONE_PARENT` makes it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_parent_pid: Option<u32>,
    /// Who traces the calling task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ptrace: Option<Ptrace>,
}

/// The new task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Thread id in its own pid namespace, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Name of the task: its parent's at first.
    pub comm: String,
}

/// What became of a stage in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Done.
    Done,
    /// Shared with the parent instead of copied, because of a clone flag.
    Shared,
    /// The attempt failed in it, or in a stage that falls between its marks; its time includes the
    /// undoing of what was done.
    Failed,
    /// Normally seen on this host, but a mark is absent in this attempt: its time falls into the
    /// stage before.
    Missing,
}

/// One stage of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The stage.
    pub name: Name,
    /// From the start of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// ProbeKind long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dur_ns: Option<u64>,
    /// Without the stages within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_ns: Option<u64>,
    /// ProbeKind often its function ran, where `dur_ns` is the sum of many runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// What became of it.
    pub status: Status,
    /// ProbeKind well it is known.
    pub precision: Precision,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The mark that ended it, where that is not the one in the `start` line: the attempt did not
    /// pass that one, because it shares what comes next, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Name>,
}

/// What a fork built for the child's own address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Mappings copied (`mm_struct.map_count` of the child).
    pub vmas: u64,
    /// Page tables built (`mm_struct.pgtables_bytes` of the child).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_table_bytes: Option<u64>,
}

/// ProbeKind the child got going.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStart {
    /// Runnable to first on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ns: Option<u64>,
    /// Runnable to its first return to user space.
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
}

/// What is odd about an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkWarning {
    /// Stable name.
    pub code: Name,
    /// In words.
    pub text: String,
}

/// Records that were lost since the last such line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Attempts whose record was lost.
    pub records: u64,
    /// Where: `ring_full`, `in_flight_full`, and losses of follow-up records.
    pub by: BTreeMap<Name, u64>,
    /// The loss happened after this moment, `CLOCK_MONOTONIC`.
    pub since_mono_ns: u64,
}

/// Something the user should know that is not an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable name.
    pub code: Name,
    /// In words.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Id of the fork it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}

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
    /// ProbeKind many.
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
