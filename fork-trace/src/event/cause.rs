//! The part of the JSON contract that says why an attempt failed, with the list of kinds of causes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::values::{Kind, Name};

macro_rules! kinds {
    ($($kind:ident = $name:literal: $what:literal,)*) => {
        /// A kind of cause of a failed attempt.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum CauseKind { $(
            #[doc = concat!($what, ".")]
            #[serde(rename = $name)]
            $kind,
        )* }

        impl CauseKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it means, in one line.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$kind => $what,)* }
            }
        }
    };
}

kinds! {
    InvalidFlags = "invalid-flags": "the arguments make no sense, alone or together",
    RlimitNproc = "rlimit-nproc": "the user has as many processes as RLIMIT_NPROC allows",
    ThreadsMax = "threads-max": "the host has as many tasks as kernel.threads-max allows",
    PidMax = "pid-max": "a pid namespace has no free number below its pid_max",
    CgroupPids = "cgroup-pids": "a control group has as many tasks as its pids.max allows",
    PidNamespaceDead = "pid-namespace-dead": "the pid namespace of the child has lost its init",
    SetTid = "set-tid": "the caller asked in set_tid for an id that it cannot have",
    NamespaceLimit = "namespace-limit": "user.max_* or the depth of nesting allows no more namespaces",
    CgroupInto = "cgroup-into": "the control group that CLONE_INTO_CGROUP names cannot take the child",
    Overcommit = "overcommit": "vm.overcommit_memory does not allow a copy of the address space",
    OomKill = "oom-kill": "the out-of-memory killer ends the caller",
    CgroupMemory = "cgroup-memory": "a control group has no memory left",
    NoMemory = "no-memory": "the kernel found no memory",
    Permission = "permission": "a right is missing",
    SecurityModule = "security-module": "a security module refused",
    Deadline = "deadline": "the caller runs under SCHED_DEADLINE, which is not inherited",
    SignalPending = "signal-pending": "a signal came that ends the caller",
    SiblingExec = "sibling-exec": "another thread that shares the caller's root and working directory is inside execve",
    Seccomp = "seccomp": "a seccomp filter refused the call before the kernel began it",
    Tracer = "tracer": "a tracer took the call away from the kernel",
    RlimitNofile = "rlimit-nofile": "the caller has as many open files as RLIMIT_NOFILE allows",
    Unknown = "unknown": "none of the known reasons",
}

impl CauseKind {
    /// Whether the limits of this kind are in bytes.
    #[must_use]
    pub const fn is_in_bytes(self) -> bool {
        matches!(self, Self::CgroupMemory | Self::OomKill | Self::Overcommit)
    }
}

/// How well the evidence supports a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The evidence of the same attempt proves it: a limit was reached when the call was refused,
    /// or the kernel always refuses the arguments.
    Certain,
    /// It fits the evidence, but so may another cause.
    Likely,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The kind of the cause.
    pub kind: CauseKind,
    /// The stable name of the rule that the arguments break, which `fork-trace explain` knows;
    /// absent where the arguments alone are not the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Name>,
    /// What is wrong, in words.
    pub what: Name,
    /// The name of the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Name>,
    /// The value of the counter that the limit applies to: a number of tasks, ids, namespaces or
    /// files, or bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// The limit's value, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// How much more was asked for, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<u64>,
    /// `true` where `current`, `max`, `asked`, `held_by` or what a descriptor is open on was read when
    /// the call had failed already; absent where all of it was read while it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_afterwards: Option<bool>,
    /// The path of the control group that refused, from the root of its hierarchy, or the namespace
    /// that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How deep the namespace of `path` is nested; 0 for the initial one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// The file descriptor that the caller gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// The id that the caller asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// What holds that id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Holder>,
    /// The user whose limit it is, as an id of the initial user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The tasks that fill the limit, read just after the call had failed: those of one name and state
    /// together, most first. It is empty where they were not looked for, or where less than half of
    /// them were there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Tasks>,
    /// How many more tasks fill the limit than `holders` has room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders_more: Option<u64>,
    /// How well the evidence supports it.
    pub confidence: Confidence,
    /// What the user can do about it: one command or setting.
    pub hint: Name,
}

/// The state of tasks that have ended and were not waited for.
pub const ZOMBIE: &str = "zombie";

/// Tasks of one name and state that count against a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tasks {
    /// The name of their processes; of workers of `io_uring` and of the kernel's own tasks that of the
    /// task.
    pub comm: String,
    /// Their state, in the words of `/proc/PID/status`.
    pub state: Name,
    /// How many tasks they are, threads counted one by one.
    pub count: u64,
    /// What they are; absent for processes and their threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Their process, initial pid namespace; absent where they are of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The parent of their processes, or the process that workers of `io_uring` belong to; absent
    /// where it is not the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TasksParent>,
}

/// The parent of some tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksParent {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// What holds an id of a pid namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// What it is.
    pub what: HeldBy,
    /// The process, initial pid namespace: of a group or session, one that is in it.
    pub pid: u32,
    /// The name of its task.
    pub comm: String,
}

/// How an id is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// It is the id of a process.
    Process,
    /// It is the id of a thread.
    Thread,
    /// It is the id of a process that has ended and was not waited for.
    Zombie,
    /// No process has it any more, but it still is the id of a process group.
    ProcessGroup,
    /// No process has it any more, but it still is the id of a session.
    Session,
}

impl HeldBy {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Process => "a process",
            Self::Thread => "a thread",
            Self::Zombie => "a zombie, which its parent has not waited for",
            Self::ProcessGroup => "a process group, though no process has that id any more",
            Self::Session => "a session, though no process has that id any more",
        }
    }
}
