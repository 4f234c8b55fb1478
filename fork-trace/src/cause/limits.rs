//! Every reason for a refusal that does not lie in the arguments alone: limits, rights and memory.
//! Each row has a function that looks at the evidence and says how well it supports the reason.

use fork_trace_common::{
    flags::{CLONE_INTO_CGROUP, CLONE_NEWUSER},
    stage::Stage,
};
use nix::errno::Errno;

use crate::{
    cause::{
        case::Case,
        look::{
            Details, Finding, cgroup_memory, cgroup_pids, deadline, maybe, namespace_limit, nproc,
            open_files, overcommit, pid_max, pid_namespace_dead, seccomp, threads_max,
        },
    },
    event::cause::CauseKind,
};

/// One reason.
#[derive(Debug)]
pub(super) struct Limit {
    /// What kind of cause it is.
    pub(super) kind: CauseKind,
    /// The error that the caller gets; `None` where it may be any.
    pub(super) errno: Option<Errno>,
    /// The stage that refuses; `None` where it may be any.
    pub(super) stage: Option<Stage>,
    /// What is wrong, in words.
    pub(super) what: &'static str,
    /// Where a reader finds the values that decide, for the documentation.
    pub(super) read: &'static str,
    /// What the user can do about it.
    pub(super) hint: &'static str,
    /// Says what the evidence of a case shows of this reason.
    pub(super) look: fn(&Case<'_>) -> Finding,
}

/// Every such reason; those of one error number stand in the kernel's order.
pub(super) static LIMITS: &[Limit] = &[
    Limit {
        kind: CauseKind::Seccomp,
        errno: None,
        stage: Some(Stage::SysEnter),
        what: "refused by seccomp before the call began",
        read: "Seccomp: in /proc/PID/status; a return without an entry",
        hint: "allow the call in the seccomp profile (Docker: --security-opt seccomp=PROFILE)",
        look: seccomp,
    },
    Limit {
        kind: CauseKind::RlimitNproc,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::RlimitNproc),
        what: "RLIMIT_NPROC",
        read: "processes of the user, threads included, against ulimit -u, in the user namespace \
            and each one around it",
        hint: "raise it with ulimit -u, in /etc/security/limits.conf or with LimitNPROC=",
        look: nproc,
    },
    Limit {
        kind: CauseKind::ThreadsMax,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::MaxThreads),
        what: "kernel.threads-max",
        read: "tasks in /proc/loadavg against /proc/sys/kernel/threads-max",
        hint: "sysctl kernel.threads-max=N, with N above its present value",
        look: threads_max,
    },
    Limit {
        kind: CauseKind::Deadline,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::SchedFork),
        what: "a caller under SCHED_DEADLINE, which is not inherited",
        read: "the caller's scheduling policy (chrt -p PID)",
        hint: "set SCHED_FLAG_RESET_ON_FORK with the policy (chrt -R -d)",
        look: deadline,
    },
    Limit {
        kind: CauseKind::PidMax,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::AllocPid),
        what: "kernel.pid_max",
        read: "ids in use against kernel.pid_max, in the pid namespace and each one around it; \
            before 6.14 there is one limit for all",
        hint: "sysctl kernel.pid_max=N, with N above its present value, in that pid namespace",
        look: pid_max,
    },
    Limit {
        kind: CauseKind::CgroupPids,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::CgroupCanFork),
        what: "pids.max",
        read: "pids.current against pids.max of the control group and each above it; pids.events",
        hint: "raise pids.max of that control group",
        look: cgroup_pids,
    },
    Limit {
        kind: CauseKind::NamespaceLimit,
        errno: Some(Errno::ENOSPC),
        stage: Some(Stage::CopyCreds),
        what: "too many user namespaces",
        read: "user.max_user_namespaces in the user namespace and each one around it; at most 33 \
            may be nested",
        hint: "sysctl user.max_user_namespaces=N, with N above its present value, in that user \
            namespace",
        look: |case| namespace_limit(case, true),
    },
    Limit {
        kind: CauseKind::NamespaceLimit,
        errno: Some(Errno::ENOSPC),
        stage: Some(Stage::CopyNamespaces),
        what: "too many namespaces",
        read: "user.max_{mnt,uts,ipc,pid,cgroup,net,time}_namespaces in the user namespace and \
            each one around it; at most 32 pid namespaces may be nested",
        hint: "sysctl user.max_..._namespaces=N, with N above its present value, in that user \
            namespace",
        look: |case| namespace_limit(case, false),
    },
    Limit {
        kind: CauseKind::CgroupInto,
        errno: Some(Errno::ENOSPC),
        stage: Some(Stage::CgroupCanFork),
        what: "CLONE_INTO_CGROUP into a cpuset without CPUs",
        read: "cpuset.cpus.effective of the group",
        hint: "give the group CPUs in cpuset.cpus",
        look: |case| maybe(case.any(CLONE_INTO_CGROUP)),
    },
    Limit {
        kind: CauseKind::PidNamespaceDead,
        errno: Some(Errno::ENOMEM),
        stage: Some(Stage::AllocPid),
        what: "the pid namespace of the caller's children has lost its first process",
        read: "PIDNS_ADDING in pid_namespace.pid_allocated",
        hint: "make a new one: unshare(CLONE_NEWPID) works once for each process; keep its first \
            child alive",
        look: pid_namespace_dead,
    },
    Limit {
        kind: CauseKind::CgroupMemory,
        errno: Some(Errno::ENOMEM),
        stage: None,
        what: "memory.max",
        read: "memory.current against memory.max of the control group and each above it \
            (memory.limit_in_bytes in version 1); memory.events",
        hint: "raise memory.max of that control group",
        look: cgroup_memory,
    },
    Limit {
        kind: CauseKind::Overcommit,
        errno: Some(Errno::ENOMEM),
        stage: Some(Stage::DupMmap),
        what: "vm.overcommit_memory",
        read: "vm.overcommit_memory; Committed_AS against CommitLimit in /proc/meminfo, and the \
            caller's private writable memory",
        hint: "sysctl vm.overcommit_memory=1, raise vm.overcommit_ratio, or use posix_spawn, \
            which copies nothing",
        look: overcommit,
    },
    Limit {
        kind: CauseKind::NoMemory,
        errno: Some(Errno::ENOMEM),
        stage: None,
        what: "the kernel found no memory",
        read: "/proc/meminfo, dmesg",
        hint: "free memory, or use vfork or posix_spawn, which copy no address space",
        look: |_| Finding::Fallback(Details::default()),
    },
    Limit {
        kind: CauseKind::RlimitNofile,
        errno: Some(Errno::EMFILE),
        stage: Some(Stage::PidfdPrepare),
        what: "RLIMIT_NOFILE",
        read: "open files against ulimit -n, for CLONE_PIDFD",
        hint: "raise it with ulimit -n or LimitNOFILE=, or close files",
        look: open_files,
    },
    Limit {
        kind: CauseKind::SignalPending,
        errno: Some(Errno::EINTR),
        stage: None,
        what: "a fatal signal: the caller ends without seeing the error",
        read: "only the error number; a signal with a handler restarts the call instead, which the \
            field restarts counts",
        hint: "find out who killed it: perf trace -e 'signal:*', or the OOM killer in dmesg",
        look: |_| Finding::Yes(Details::default()),
    },
    Limit {
        kind: CauseKind::Permission,
        errno: Some(Errno::EPERM),
        stage: Some(Stage::CopyCreds),
        what: "CLONE_NEWUSER in a chroot, or by a user whose ids are not mapped",
        read: "/proc/PID/root; /proc/PID/uid_map and gid_map",
        hint: "leave the chroot (pivot_root instead), or map the ids first",
        look: |case| maybe(case.any(CLONE_NEWUSER)),
    },
    Limit {
        kind: CauseKind::SecurityModule,
        errno: Some(Errno::EPERM),
        stage: Some(Stage::SecurityTaskAlloc),
        what: "a security module refused",
        read: "/sys/kernel/security/lsm; the audit log",
        hint: "ausearch -m AVC -ts recent, or journalctl -k -g audit",
        look: |_| Finding::Fallback(Details::default()),
    },
    Limit {
        kind: CauseKind::SecurityModule,
        errno: Some(Errno::EACCES),
        stage: Some(Stage::SecurityTaskAlloc),
        what: "a security module refused",
        read: "/sys/kernel/security/lsm; the audit log",
        hint: "ausearch -m AVC -ts recent, or journalctl -k -g audit",
        look: |_| Finding::Maybe(Details::default()),
    },
];
