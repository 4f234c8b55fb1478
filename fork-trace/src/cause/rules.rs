//! Every combination of arguments that the kernel refuses, in the order in which the kernel checks
//! them. The reason of a failed attempt is the first rule that gives the error number that the
//! caller got and whose condition holds.
//!
//! KERNEL: kernel/fork.c `copy_clone_args_from_user`, `clone3_args_valid`, `kernel_clone`,
//! `copy_process`; kernel/nsproxy.c `copy_namespaces`; arch/*/kernel/process*.c; kernel/pid.c
//! `alloc_pid`. The order was read from the sources of 5.10 to 7.3.

use fork_trace_common::{
    arch::ARCH,
    flags::{
        CLONE_AUTOREAP, CLONE_CLEAR_SIGHAND, CLONE_DETACHED, CLONE_EMPTY_MNTNS, CLONE_FS,
        CLONE_INTO_CGROUP, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID,
        CLONE_NEWTIME, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_NNP, CLONE_PARENT, CLONE_PARENT_SETTID,
        CLONE_PIDFD, CLONE_PIDFD_AUTOKILL, CLONE_SETTLS, CLONE_SIGHAND, CLONE_SYSVSEM,
        CLONE_THREAD, CLONE_VM, CSIGNAL,
    },
    refusal::{arg, known},
    stage::Stage,
};
use nix::errno::Errno;

use crate::{
    cause::{
        case::{CAP_SYS_ADMIN, Case},
        finding::Details,
        named,
    },
    event::cause::CauseKind,
};

/// One combination of arguments that the kernel refuses.
#[derive(Debug)]
pub(super) struct Rule {
    /// The rule's name in output; it does not change between versions of fork-trace.
    pub(super) name: &'static str,
    /// The error that the caller gets.
    pub(super) errno: Errno,
    /// What kind of cause it is.
    pub(super) kind: CauseKind,
    /// The stage in which the kernel checks it.
    pub(super) stage: Stage,
    /// Whether it concerns `clone3` only.
    pub(super) clone3_only: bool,
    /// What is wrong, in words.
    pub(super) what: &'static str,
    /// What the user can do about it.
    pub(super) hint: &'static str,
    /// Whether the condition holds for a case; `None` where the evidence does not say.
    pub(super) when: fn(&Case<'_>) -> Option<bool>,
    /// What the arguments name, for the cause to tell.
    pub(super) details: fn(&Case<'_>) -> Details,
}

/// The size of a page, and the most bytes that `clone3`'s struct may have.
const PAGE: u64 = 4096;
/// The size of the first version of `clone3`'s struct, in bytes.
/// KERNEL: include/uapi/linux/sched.h `CLONE_ARGS_SIZE_VER0`.
const FIRST_SIZE: u64 = 64;
/// The size of its present version, in bytes.
/// KERNEL: include/uapi/linux/sched.h `CLONE_ARGS_SIZE_VER2`.
const SIZE: u64 = 88;
/// KERNEL: `include/linux/pid_namespace.h` `MAX_PID_NS_LEVEL`.
const MOST_TIDS: u64 = 32;
/// KERNEL: `_NSIG` of each machine, in its asm/signal.h.
const LAST_SIGNAL: u64 = 64;
/// The flags that make a namespace which needs `CAP_SYS_ADMIN`.
const PRIVILEGED: u64 = CLONE_NEWTIME
    | CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_EMPTY_MNTNS;
/// A rule with the common values, which the methods below change: an invalid combination of flags,
/// which `copy_process` refuses whatever the system call.
const fn rule(
    name: &'static str,
    when: fn(&Case<'_>) -> Option<bool>,
    what: &'static str,
    hint: &'static str,
) -> Rule {
    Rule {
        name,
        errno: Errno::EINVAL,
        kind: CauseKind::InvalidFlags,
        stage: Stage::FlagChecks,
        clone3_only: false,
        what,
        hint,
        when,
        details: |_| Details::default(),
    }
}

impl Rule {
    const fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    const fn errno(self, errno: Errno) -> Self {
        Self { errno, ..self }
    }

    const fn kind(self, kind: CauseKind) -> Self {
        Self { kind, ..self }
    }

    /// The cause tells what the arguments name.
    const fn naming(self, details: fn(&Case<'_>) -> Details) -> Self {
        Self { details, ..self }
    }

    /// The kernel checks it while it copies `clone3`'s struct.
    const fn copying(self) -> Self {
        Self { clone3_only: true, ..self }.at(Stage::CopyCloneArgs)
    }

    /// The kernel checks it in `clone3_args_valid`.
    const fn validating(self) -> Self {
        Self { clone3_only: true, ..self }.at(Stage::Clone3ArgsValid)
    }

    /// Whether the rule holds for `case`; `None` where the evidence does not say.
    pub(super) fn holds(&self, case: &Case<'_>) -> Option<bool> {
        if self.clone3_only && !case.clone3() {
            return Some(false);
        }
        (self.when)(case)
    }
}

/// The hint of the rules about the whole of `clone3`'s struct.
const STRUCT: &str = "pass a whole, zeroed struct clone_args of 88 bytes and its size";

/// Every rule, in the kernel's order.
pub(super) static RULES: &[Rule] = &[
    rule(
        "struct-larger-than-page",
        |c| Some(c.size()? > PAGE),
        "a struct clone_args larger than a page",
        STRUCT,
    )
    .copying()
    .errno(Errno::E2BIG),
    rule(
        "struct-too-small",
        |c| Some(c.size()? < FIRST_SIZE),
        "a struct clone_args smaller than its first version, 64 bytes",
        STRUCT,
    )
    .copying(),
    rule(
        "struct-tail-unreadable",
        |c| c.tail_unreadable(),
        "a struct clone_args that ends in memory that cannot be read",
        STRUCT,
    )
    .copying()
    .errno(Errno::EFAULT),
    rule(
        "struct-tail-not-zero",
        |c| c.tail_not_zero(),
        "a struct clone_args with fields that this kernel does not know",
        "leave the fields after the first 88 bytes zero, or run a newer kernel",
    )
    .copying()
    .errno(Errno::E2BIG),
    rule(
        "struct-unreadable",
        |c| c.unreadable(),
        "a struct clone_args that cannot be read",
        STRUCT,
    )
    .copying()
    .errno(Errno::EFAULT),
    rule(
        "set-tid-too-many",
        |c| Some(c.word(arg::SET_TID_SIZE)? > MOST_TIDS),
        "set_tid_size above 32",
        "give one id for each nested pid namespace",
    )
    .copying(),
    rule(
        "set-tid-null",
        |c| Some(c.word(arg::SET_TID)? == 0 && c.word(arg::SET_TID_SIZE)? > 0),
        "set_tid_size without set_tid",
        "set both set_tid and set_tid_size, or neither",
    )
    .copying(),
    rule(
        "set-tid-without-size",
        |c| Some(c.word(arg::SET_TID)? != 0 && c.word(arg::SET_TID_SIZE)? == 0),
        "set_tid without set_tid_size",
        "set both set_tid and set_tid_size, or neither",
    )
    .copying(),
    rule(
        "exit-signal-too-large",
        |c| Some(c.word(arg::EXIT_SIGNAL)? > CSIGNAL),
        "an exit_signal above 255",
        "use a signal from 1 to 64, or 0 for none",
    )
    .copying(),
    rule(
        "exit-signal-unknown",
        |c| {
            Some(
                !c.features.late_signal_check.unwrap_or(false)
                    && c.word(arg::EXIT_SIGNAL)? > LAST_SIGNAL,
            )
        },
        "an exit_signal above 64",
        "use a signal from 1 to 64, or 0 for none",
    )
    .copying(),
    rule(
        "into-cgroup-no-fd",
        |c| {
            Some(
                c.any(CLONE_INTO_CGROUP)?
                    && (c.word(arg::CGROUP)? > i32::MAX.unsigned_abs().into() || c.size()? < SIZE),
            )
        },
        "CLONE_INTO_CGROUP without a file descriptor in cgroup",
        "open the control group's directory and put the descriptor into cgroup",
    )
    .copying(),
    rule(
        "set-tid-unreadable",
        |c| c.set_tid_unreadable(),
        "a set_tid that cannot be read",
        "let set_tid point to set_tid_size ids of 4 bytes",
    )
    .copying()
    .errno(Errno::EFAULT),
    rule(
        "unknown-flags",
        |c| c.any(c.features.unknown_flags?),
        "flags that this kernel does not know",
        "leave them out, or run a newer kernel",
    )
    .validating(),
    rule(
        "detached-in-clone3",
        |c| c.any(CLONE_DETACHED),
        "CLONE_DETACHED in clone3",
        "leave it out: it has no effect since Linux 2.6",
    )
    .validating(),
    rule(
        "signal-in-flags",
        |c| c.any(CSIGNAL & !CLONE_NEWTIME),
        "an exit signal in the flags of clone3",
        "put the signal into exit_signal",
    )
    .validating(),
    rule(
        "newtime-in-clone3",
        |c| Some(c.any(CLONE_NEWTIME)? && !c.features.newtime?),
        "CLONE_NEWTIME, which clone3 of this kernel refuses",
        "unshare(CLONE_NEWTIME) before the fork",
    )
    .validating(),
    rule(
        "sighand-and-clear-sighand",
        |c| c.all(CLONE_SIGHAND | CLONE_CLEAR_SIGHAND),
        "CLONE_SIGHAND with CLONE_CLEAR_SIGHAND",
        "choose one: share the handlers, or reset them",
    )
    .validating(),
    rule(
        "exit-signal-of-thread-or-sibling",
        |c| Some(c.any(CLONE_THREAD | CLONE_PARENT)? && c.word(arg::EXIT_SIGNAL)? != 0),
        "CLONE_THREAD or CLONE_PARENT with an exit_signal",
        "leave exit_signal 0: a thread has none, a sibling has the caller's",
    )
    .validating(),
    rule(
        "stack-size-without-stack",
        |c| Some(c.word(arg::STACK)? == 0 && c.word(arg::STACK_SIZE)? > 0),
        "stack_size without stack",
        "set both stack and stack_size, or neither",
    )
    .validating(),
    rule(
        "stack-without-size",
        |c| Some(c.word(arg::STACK)? != 0 && c.word(arg::STACK_SIZE)? == 0),
        "stack without stack_size",
        "set both stack (its lowest byte) and stack_size, or neither",
    )
    .validating(),
    rule(
        "stack-outside",
        |c| outside(c.word(arg::STACK)?, c.word(arg::STACK_SIZE)?),
        "a stack outside of the user's addresses",
        "let stack be the lowest byte of the stack and stack_size its size",
    )
    .validating(),
    rule(
        "pidfd-is-parent-tid",
        |c| {
            Some(
                c.all(CLONE_PIDFD | CLONE_PARENT_SETTID)?
                    && c.word(arg::PIDFD)? == c.word(arg::PARENT_TID)?,
            )
        },
        "CLONE_PIDFD and CLONE_PARENT_SETTID with one pointer",
        "use clone3, which has a pointer for each",
    )
    .at(Stage::KernelClone),
    rule(
        "exit-signal-unknown-late",
        |c| Some(c.features.late_signal_check? && c.word(arg::EXIT_SIGNAL)? > LAST_SIGNAL),
        "an exit signal above 64",
        "use a signal from 1 to 64, or 0 for none",
    )
    .at(Stage::KernelClone),
    rule(
        "newns-and-fs",
        |c| Some(c.any(CLONE_NEWNS | CLONE_EMPTY_MNTNS)? && c.any(CLONE_FS)?),
        "CLONE_NEWNS with CLONE_FS",
        "leave CLONE_FS out: root and working directory lie in a mount namespace",
    ),
    rule(
        "newuser-and-fs",
        |c| c.all(CLONE_NEWUSER | CLONE_FS),
        "CLONE_NEWUSER with CLONE_FS",
        "leave CLONE_FS out",
    ),
    rule(
        "userns-sysctl",
        |c| {
            Some(
                c.any(CLONE_NEWUSER)?
                    && c.after.no_unprivileged_userns?
                    && !c.capable_in_init(CAP_SYS_ADMIN)?,
            )
        },
        "CLONE_NEWUSER by an ordinary user, which kernel.unprivileged_userns_clone forbids",
        "sysctl kernel.unprivileged_userns_clone=1",
    )
    .errno(Errno::EPERM)
    .kind(CauseKind::Permission),
    rule(
        "thread-without-sighand",
        |c| c.without(CLONE_THREAD, CLONE_SIGHAND),
        "CLONE_THREAD without CLONE_SIGHAND",
        "add CLONE_SIGHAND and CLONE_VM: threads share handlers and memory",
    ),
    rule(
        "sighand-without-vm",
        |c| c.without(CLONE_SIGHAND, CLONE_VM),
        "CLONE_SIGHAND without CLONE_VM",
        "add CLONE_VM: handlers lie in memory, which has to be shared too",
    ),
    rule(
        "parent-of-init",
        |c| Some(c.any(CLONE_PARENT)? && c.init()?),
        "CLONE_PARENT by the first process of a pid namespace",
        "leave CLONE_PARENT out: init has no siblings",
    ),
    rule(
        "thread-and-new-namespace",
        |c| Some(c.any(CLONE_THREAD)? && c.any(CLONE_NEWUSER | CLONE_NEWPID)?),
        "CLONE_THREAD with CLONE_NEWUSER or CLONE_NEWPID",
        "make a process instead: threads share these namespaces",
    ),
    rule(
        "thread-into-other-pid-namespace",
        |c| Some(c.any(CLONE_THREAD)? && c.other_pid_ns()?),
        "CLONE_THREAD after unshare(CLONE_NEWPID) or setns",
        "make the threads before that, or in a child",
    ),
    rule(
        "vm-into-other-time-namespace",
        |c| if c.any(CLONE_THREAD | CLONE_VM)? && c.other_time_ns()? { None } else { Some(false) },
        "CLONE_THREAD or CLONE_VM after unshare(CLONE_NEWTIME), before Linux 6.6",
        "make the threads before that, or fork first",
    ),
    rule(
        "pidfd-and-detached",
        |c| c.all(CLONE_PIDFD | CLONE_DETACHED),
        "CLONE_PIDFD with CLONE_DETACHED",
        "leave CLONE_DETACHED out: it has no effect",
    ),
    rule(
        "pidfd-and-thread",
        |c| {
            if c.all(CLONE_PIDFD | CLONE_THREAD)? {
                c.features.no_thread_pidfd
            } else {
                Some(false)
            }
        },
        "CLONE_PIDFD with CLONE_THREAD, before Linux 6.9",
        "make a process instead of a thread, or run a newer kernel",
    ),
    rule(
        "autoreap-and-thread",
        |c| c.all(CLONE_AUTOREAP | CLONE_THREAD),
        "CLONE_AUTOREAP with CLONE_THREAD",
        "make a process instead of a thread",
    ),
    rule(
        "autoreap-and-parent",
        |c| c.all(CLONE_AUTOREAP | CLONE_PARENT),
        "CLONE_AUTOREAP with CLONE_PARENT",
        "leave one of them out",
    ),
    rule(
        "autoreap-and-exit-signal",
        |c| Some(c.any(CLONE_AUTOREAP)? && c.word(arg::EXIT_SIGNAL)? != 0),
        "CLONE_AUTOREAP with an exit_signal",
        "leave exit_signal 0: nobody waits for the child",
    ),
    rule(
        "nnp-and-thread",
        |c| c.all(CLONE_NNP | CLONE_THREAD),
        "CLONE_NNP with CLONE_THREAD",
        "make a process instead of a thread, or prctl(PR_SET_NO_NEW_PRIVS) in the thread",
    ),
    rule(
        "autokill-without-pidfd",
        |c| c.without(CLONE_PIDFD_AUTOKILL, CLONE_PIDFD),
        "CLONE_PIDFD_AUTOKILL without CLONE_PIDFD",
        "add CLONE_PIDFD",
    ),
    rule(
        "autokill-without-autoreap",
        |c| c.without(CLONE_PIDFD_AUTOKILL, CLONE_AUTOREAP),
        "CLONE_PIDFD_AUTOKILL without CLONE_AUTOREAP",
        "add CLONE_AUTOREAP",
    ),
    rule(
        "autokill-and-thread",
        |c| c.all(CLONE_PIDFD_AUTOKILL | CLONE_THREAD),
        "CLONE_PIDFD_AUTOKILL with CLONE_THREAD",
        "make a process instead of a thread",
    ),
    rule(
        "autokill-without-nnp",
        |c| Some(c.without(CLONE_PIDFD_AUTOKILL, CLONE_NNP)? && !c.capable(CAP_SYS_ADMIN)?),
        "CLONE_PIDFD_AUTOKILL without CLONE_NNP or CAP_SYS_ADMIN",
        "add CLONE_NNP",
    )
    .errno(Errno::EPERM)
    .kind(CauseKind::Permission),
    rule(
        "newuser-in-chroot",
        |c| Some(c.any(CLONE_NEWUSER)? && c.chrooted()?),
        "CLONE_NEWUSER in a chroot",
        "leave the chroot, or enter it by pivot_root in a mount namespace of its own",
    )
    .at(Stage::CopyCreds)
    .errno(Errno::EPERM)
    .kind(CauseKind::Permission),
    rule(
        "newuser-unmapped-ids",
        |c| Some(c.any(CLONE_NEWUSER)? && c.unmapped()?),
        "CLONE_NEWUSER by a caller whose user or group id is not mapped in its user namespace",
        "write uid_map and gid_map of that namespace before",
    )
    .at(Stage::CopyCreds)
    .errno(Errno::EPERM)
    .kind(CauseKind::Permission),
    rule(
        "namespace-without-admin",
        |c| Some(c.without(PRIVILEGED, CLONE_NEWUSER)? && !c.capable(CAP_SYS_ADMIN)?),
        "a new namespace without CAP_SYS_ADMIN",
        "add CLONE_NEWUSER, or give the program CAP_SYS_ADMIN",
    )
    .at(Stage::CopyNamespaces)
    .errno(Errno::EPERM)
    .kind(CauseKind::Permission),
    rule(
        "newipc-and-sysvsem",
        |c| c.all(CLONE_NEWIPC | CLONE_SYSVSEM),
        "CLONE_NEWIPC with CLONE_SYSVSEM",
        "leave CLONE_SYSVSEM out: semaphores lie in an IPC namespace",
    )
    .at(Stage::CopyNamespaces),
    rule(
        "newpid-into-other-pid-namespace",
        |c| Some(c.any(CLONE_NEWPID)? && c.other_pid_ns()?),
        "CLONE_NEWPID after unshare(CLONE_NEWPID) or setns",
        "fork first: the child can make the next one",
    )
    .at(Stage::CopyNamespaces),
    rule(
        "tls-outside",
        |c| {
            if c.compat() || !ARCH.checks_tls {
                Some(false)
            } else {
                Some(c.any(CLONE_SETTLS)? && outside(c.word(arg::TLS)?, 0)?)
            }
        },
        "CLONE_SETTLS with an address outside of the user's",
        "give the address of the thread's own storage",
    )
    .at(Stage::CopyThread)
    .errno(Errno::EPERM),
    rule(
        "tls-descriptor",
        |c| {
            let checked = ARCH.checks_tls && c.compat() && c.any(CLONE_SETTLS)?;
            if checked { None } else { Some(false) }
        },
        "CLONE_SETTLS with a bad struct user_desc",
        "check the descriptor that tls points to",
    )
    .at(Stage::CopyThread),
    rule(
        "set-tid-too-deep",
        |c| Some(c.word(arg::SET_TID_SIZE)? > c.child_pid_level()? + 1),
        "more ids in set_tid than the child's pid namespace has levels",
        "give one id for each nested pid namespace, or fewer",
    )
    .at(Stage::AllocPid)
    .kind(CauseKind::SetTid),
    rule(
        "set-tid-out-of-range",
        out_of_range,
        "an id in set_tid below 1 or not below pid_max",
        "choose ids from 1 to kernel.pid_max less 1",
    )
    .at(Stage::AllocPid)
    .kind(CauseKind::SetTid),
    rule(
        "set-tid-first-not-1",
        |c| Some(c.any(CLONE_NEWPID)? && c.word(arg::SET_TID_SIZE)? > 0 && c.first_tid()? != 1),
        "an id other than 1 for the first process of a pid namespace",
        "ask for 1, or let the kernel choose",
    )
    .at(Stage::AllocPid)
    .kind(CauseKind::SetTid),
    rule(
        "set-tid-not-permitted",
        |c| if c.word(arg::SET_TID_SIZE)? == 0 { Some(false) } else { c.may_not_set_tid() },
        "set_tid without CAP_CHECKPOINT_RESTORE over the pid namespace",
        "give the program CAP_CHECKPOINT_RESTORE",
    )
    .at(Stage::AllocPid)
    .errno(Errno::EPERM)
    .kind(CauseKind::SetTid),
    rule(
        "set-tid-taken",
        |c| Some(c.word(arg::SET_TID_SIZE)? > 0),
        "an id in set_tid that is in use",
        "choose another id, or let the kernel choose",
    )
    .at(Stage::AllocPid)
    .errno(Errno::EEXIST)
    .kind(CauseKind::SetTid)
    .naming(named::id),
    rule(
        "pidfd-unwritable",
        // A caller that is being killed does not wait for its memory.
        |c| if c.any(CLONE_PIDFD)? && c.killed()? { None } else { c.any(CLONE_PIDFD) },
        "CLONE_PIDFD with a pointer that cannot be written to",
        "let pidfd point to an int",
    )
    .at(Stage::PidfdPrepare)
    .errno(Errno::EFAULT),
    rule(
        "into-cgroup-bad-fd",
        |c| c.names_group(),
        "CLONE_INTO_CGROUP with a descriptor that is no directory of the cgroup2 hierarchy",
        "open the group's directory below the cgroup2 mount",
    )
    .at(Stage::CgroupCanFork)
    .errno(Errno::EBADF)
    .kind(CauseKind::CgroupInto)
    .naming(named::no_group),
    rule(
        "into-cgroup-not-permitted",
        |c| c.names_group(),
        "CLONE_INTO_CGROUP without write permission for cgroup.procs of the group and the \
        common ancestor",
        "chown the subtree to the user, or delegate it (Delegate=yes)",
    )
    .at(Stage::CgroupCanFork)
    .errno(Errno::EACCES)
    .kind(CauseKind::CgroupInto)
    .naming(named::group),
    rule(
        "into-cgroup-removed",
        |c| c.names_group(),
        "CLONE_INTO_CGROUP into a group that is removed, or outside of the cgroup namespace",
        "make the group anew and open it again",
    )
    .at(Stage::CgroupCanFork)
    .errno(Errno::ENOENT)
    .kind(CauseKind::CgroupInto)
    .naming(named::group),
    rule(
        "into-cgroup-dying",
        |c| c.names_group(),
        "CLONE_INTO_CGROUP into a group that is being removed",
        "make the group anew and open it again",
    )
    .at(Stage::CgroupCanFork)
    .errno(Errno::ENODEV)
    .kind(CauseKind::CgroupInto)
    .naming(named::group),
    rule(
        "into-cgroup-has-controllers",
        |c| c.names_group(),
        "CLONE_INTO_CGROUP into a group that gives controllers to its children",
        "choose a group below it, or empty its cgroup.subtree_control",
    )
    .at(Stage::CgroupCanFork)
    .errno(Errno::EBUSY)
    .kind(CauseKind::CgroupInto)
    .naming(named::group),
    rule(
        "into-cgroup-domain",
        |c| c.names_group(),
        "CLONE_INTO_CGROUP into an invalid domain, or with a thread into another domain",
        "look at cgroup.type of the group and those above it",
    )
    .at(Stage::CgroupCanFork)
    .errno(Errno::EOPNOTSUPP)
    .kind(CauseKind::CgroupInto)
    .naming(named::group),
];

/// Whether `size` bytes from `start` on lie outside of the addresses that a program may use. `None`
/// for addresses that some hosts refuse and others do not: that depends on the levels of the page
/// tables and on the release.
fn outside(start: u64, size: u64) -> Option<bool> {
    let end = start.checked_add(size);
    match end {
        None => Some(true),
        Some(end) if end < ARCH.user_end.0 => Some(false),
        Some(end) if end >= ARCH.kernel_half || (size == 0 && start >= ARCH.user_end.1) => {
            Some(true)
        }
        Some(_) => None,
    }
}

/// Whether an id in `set_tid` is out of range. The array has up to 32 ids, of which the evidence
/// holds the first; `None` where that one is in range and others follow.
fn out_of_range(case: &Case<'_>) -> Option<bool> {
    let count = case.word(arg::SET_TID_SIZE)?;
    if count == 0 {
        return Some(false);
    }
    let first = case.first_tid()?;
    let own_max = case.with(known::PID_MAX).filter(|refusal| refusal.pid_ns.place == 0);
    let max = own_max.map(|refusal| refusal.pid_ns.max).or(case.after.pid_max);
    if first == 0 || first > i32::MAX.unsigned_abs() || u64::from(first) >= max? {
        return Some(true);
    }
    if count == 1 { Some(false) } else { None }
}
