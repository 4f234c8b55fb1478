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
        ending::{interrupted, killed, killed_while_copying, oom_kill},
        finding::{Details, Finding},
        look::{
            cgroup_pids, deadline, maybe, namespace_limit, nproc, open_files, pid_max,
            pid_namespace_dead, seccomp, sibling_exec, threads_max, tracer,
        },
        memory::{cgroup_memory, overcommit},
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

/// What is said in more than one row.
const KILLED: &str = "find out who ended it: perf trace -e 'signal:*', or the end of its log";
const OOM: &str = "the out-of-memory killer ends the caller: the host has no memory left";
const OOM_READ: &str = "signal->oom_mm while the call was refused; the control group with the least \
    memory left, and how often the caller's own was out of memory";
const OOM_HINT: &str = "dmesg tells what the out-of-memory killer saw; free memory, or add swap";
const AUDIT: &str = "ausearch -m AVC -ts recent, or journalctl -k -g audit";

/// Where neither a chroot nor unmapped ids explain it.
fn user_namespace_forbidden(case: &Case<'_>) -> Finding {
    match case.any(CLONE_NEWUSER) {
        Some(false) => Finding::No,
        _ => Finding::Fallback(Details::default()),
    }
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
        kind: CauseKind::Tracer,
        errno: None,
        stage: Some(Stage::SysEnter),
        what: "taken away by a tracer before the call began",
        read: "TracerPid: in /proc/PID/status; a call with the number -1 whose number was another as \
            the tracer stopped its caller",
        hint: "ask the tracer, as strace --inject or a sandbox is",
        look: tracer,
    },
    Limit {
        kind: CauseKind::RlimitNproc,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::RlimitNproc),
        what: "RLIMIT_NPROC",
        read: "processes of the user, threads included, against ulimit -u; then, in each user \
            namespace outwards, those of the user who made the inner one against the limit that \
            stood then",
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
        kind: CauseKind::SiblingExec,
        errno: Some(Errno::EAGAIN),
        stage: Some(Stage::CopyFs),
        what: "another thread that shares root and working directory is inside execve",
        read: "fs->in_exec while the call was refused, for CLONE_FS",
        hint: "try again once that exec is over; a program that executes from one thread had better \
            not make threads from another meanwhile",
        look: sibling_exec,
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
        kind: CauseKind::SignalPending,
        errno: Some(Errno::ENOMEM),
        stage: Some(Stage::DupMmap),
        what: "a fatal signal during the copy of the address space, which ends with ENOMEM",
        read: "SIGKILL among the caller's pending signals, and signal->group_exit_code, while the \
            call was refused",
        hint: KILLED,
        look: killed_while_copying,
    },
    Limit {
        kind: CauseKind::OomKill,
        errno: Some(Errno::ENOMEM),
        stage: None,
        what: OOM,
        read: OOM_READ,
        hint: OOM_HINT,
        look: oom_kill,
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
        kind: CauseKind::SignalPending,
        errno: Some(Errno::EFAULT),
        stage: None,
        what: "a fatal signal while the caller's memory was read: a page that was not there was not waited for",
        read: "SIGKILL among the caller's pending signals while the call was refused",
        hint: KILLED,
        look: killed,
    },
    Limit {
        kind: CauseKind::SignalPending,
        errno: Some(Errno::ENOMEM),
        stage: None,
        what: "a fatal signal: a caller that is being killed is refused memory",
        read: "SIGKILL among the caller's pending signals while the call was refused",
        hint: KILLED,
        look: killed,
    },
    Limit {
        kind: CauseKind::Overcommit,
        errno: Some(Errno::ENOMEM),
        stage: Some(Stage::DupMmap),
        what: "vm.overcommit_memory",
        read: "vm.overcommit_memory; for 0 the caller's largest private writable mapping against \
            MemTotal and SwapTotal; for 2 all of them and Committed_AS against CommitLimit",
        hint: "use posix_spawn or vfork, which copy nothing, or set vm.overcommit_memory=1",
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
        kind: CauseKind::OomKill,
        errno: Some(Errno::EINTR),
        stage: None,
        what: OOM,
        read: OOM_READ,
        hint: OOM_HINT,
        look: oom_kill,
    },
    Limit {
        kind: CauseKind::SignalPending,
        errno: Some(Errno::EINTR),
        stage: None,
        what: "a fatal signal: the caller ends without seeing the error",
        read: "SIGKILL among the caller's pending signals, and signal->group_exit_code, while the \
            call was refused; a signal that is handled restarts the call (restarts)",
        hint: KILLED,
        look: interrupted,
    },
    Limit {
        kind: CauseKind::SecurityModule,
        errno: Some(Errno::EPERM),
        stage: Some(Stage::CopyCreds),
        what: "a security module forbids a user namespace",
        read: "/sys/kernel/security/lsm; the audit log",
        hint: AUDIT,
        look: user_namespace_forbidden,
    },
    Limit {
        kind: CauseKind::SecurityModule,
        errno: Some(Errno::EACCES),
        stage: Some(Stage::CopyCreds),
        what: "a security module forbids a user namespace",
        read: "/sys/kernel/security/lsm; the audit log",
        hint: AUDIT,
        look: |case| maybe(case.any(CLONE_NEWUSER)),
    },
    Limit {
        kind: CauseKind::SecurityModule,
        errno: Some(Errno::EPERM),
        stage: Some(Stage::SecurityTaskAlloc),
        what: "a security module refused",
        read: "/sys/kernel/security/lsm; the audit log",
        hint: AUDIT,
        look: |_| Finding::Fallback(Details::default()),
    },
    Limit {
        kind: CauseKind::SecurityModule,
        errno: Some(Errno::EACCES),
        stage: Some(Stage::SecurityTaskAlloc),
        what: "a security module refused",
        read: "/sys/kernel/security/lsm; the audit log",
        hint: AUDIT,
        look: |_| Finding::Maybe(Details::default()),
    },
];
