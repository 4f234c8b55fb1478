//! The task that called: the `parent` of a line.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::values::Name;

/// The calling task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parent {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Process id of its parent.
    pub ppid: u32,
    /// Name of the task.
    pub comm: String,
    /// The program it runs: the path of its file, taken in the hook at the process's first attempt and
    /// after each exec. Where that was not read, as of a path of very many or very long names, from
    /// `/proc/PID/exe` shortly after; absent when it was gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Arc<str>>,
    /// Its arguments, from its own memory at the same moment; absent where they could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Arc<[String]>>,
    /// The arguments are longer than what is kept of them: the last one shown is cut; absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_truncated: Option<bool>,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
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
    pub cgroup: Option<Arc<str>>,
    /// The systemd unit that the path of that cgroup names; a slice only where it names no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Arc<str>>,
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

/// A process from which a caller descends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// Its process id, in the initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: Arc<str>,
}

/// A task by its ids and its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// Process id, initial pid namespace.
    pub pid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Its name.
    pub comm: String,
}

/// The container a process runs in, as its cgroup path tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Its id; a machine's name for `systemd-nspawn`.
    pub id: String,
    /// What runs it: `docker`, `podman`, `containerd`, `cri-o`, `systemd-nspawn`, `lxc`, or
    /// `kubernetes` where the path names a pod and no more.
    pub runtime: Name,
}

/// The tracer of the calling task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ptrace {
    /// Its process id, initial pid namespace.
    pub tracer_pid: u32,
    /// The stop with which it is told of this attempt's child, if it asked for it: `fork`, `vfork`
    /// or `clone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Name>,
}
