//! The stage table: the one list of everything fork-trace knows of a fork, in kernel order.
//!
//! A row says what the stage is, where the kernel does it, which flag makes it share instead of
//! copy, and between which two marks the tracepoint source can bound it. The plan, the decoder,
//! every output and `docs/STAGES.md` are made from it. It knows nothing of how marks are taken.

use crate::flags::{CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM};

/// Whose time a stage takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller, in its C library, around the system call.
    Libc,
    /// The caller, in the kernel.
    Parent,
    /// The child.
    Child,
}

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $mark:ident = $name:literal,)*) => {
        /// A point in time that a source can take, in kernel order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Mark { $($(#[doc = $doc])* $mark,)* }

        impl Mark {
            /// Every mark, in order.
            pub const ALL: &[Self] = &[$(Self::$mark,)*];

            /// The name used in output: the tracepoint's, with where it fired after `@`, or the
            /// field's.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$mark => $name,)* }
            }
        }
    };
}

marks! {
    /// `raw_syscalls:sys_enter`, after ptrace and seccomp let the call pass.
    /// KERNEL: kernel/entry/common.c `syscall_trace_enter`.
    SysEnter = "sys_enter",
    /// The `task_struct` was allocated. As all allocations it is marked once the object exists, a
    /// few hundred nanoseconds into its stage.
    /// KERNEL: kernel/fork.c `dup_task_struct`.
    TaskAlloc = "kmem_cache_alloc@copy_process#1",
    /// The credentials were allocated. KERNEL: kernel/cred.c `prepare_creds`.
    CredAlloc = "kmem_cache_alloc@prepare_creds",
    /// The first deadline timer of the child is set up (mode `REL|HARD`).
    /// KERNEL: kernel/sched/core.c `__sched_fork`.
    SchedForkTimer = "hrtimer_setup",
    /// The table of files was allocated. KERNEL: fs/file.c `dup_fd`.
    FilesAlloc = "kmem_cache_alloc@dup_fd",
    /// KERNEL: `fs/fs_struct.c` `copy_fs_struct`.
    FsAlloc = "kmem_cache_alloc@copy_fs_struct",
    /// The table of handlers was allocated. KERNEL: kernel/fork.c `copy_sighand`.
    SighandAlloc = "kmem_cache_alloc@copy_process#2",
    /// The `signal_struct` was allocated. KERNEL: kernel/fork.c `copy_signal`.
    SignalAlloc = "kmem_cache_alloc@copy_process#3",
    /// The `mm_struct` was allocated. KERNEL: kernel/fork.c `dup_mm`.
    MmAlloc = "kmem_cache_alloc@copy_process#4",
    /// The parent's `mmap_lock` is wanted. KERNEL: kernel/fork.c `dup_mmap`.
    MmapLockStart = "mmap_lock_start_locking",
    /// The parent's `mmap_lock` is held.
    MmapLockTaken = "mmap_lock_acquire_returned",
    /// The child's `mmap_lock` is released: every mapping was copied.
    ChildMmapReleased = "mmap_lock_released@child",
    /// The parent's `mmap_lock` is released.
    ParentMmapReleased = "mmap_lock_released",
    /// The child's FPU state is written. KERNEL: arch/x86/kernel/fpu/core.c `fpu_clone`.
    FpuCopy = "x86_fpu_copy_dst",
    /// The `struct pid` was allocated. KERNEL: kernel/pid.c `alloc_pid`.
    PidAlloc = "kmem_cache_alloc@alloc_pid",
    /// The child's `task_struct.start_time`, written by `copy_process` just before it takes
    /// `tasklist_lock`. KERNEL: kernel/fork.c `copy_process`; `ktime_get_ns`, the clock of
    /// `bpf_ktime_get_ns`.
    StartTime = "task_struct.start_time",
    /// `lock:contention_begin` of a writer that spins: `tasklist_lock` is held by another.
    /// KERNEL: kernel/locking/qrwlock.c `queued_write_lock_slowpath`.
    LockContended = "contention_begin",
    /// `lock:contention_end` of the same.
    LockTaken = "contention_end",
    /// `task:task_newtask`, near the end of `copy_process`.
    TaskNewtask = "task_newtask",
    /// `sched:sched_process_fork`, in `kernel_clone` after `copy_process`.
    SchedProcessFork = "sched_process_fork",
    /// `sched:sched_wakeup_new`, in `wake_up_new_task` once the child is on a run queue.
    SchedWakeupNew = "sched_wakeup_new",
    /// `raw_syscalls:sys_exit` in the caller.
    SysExit = "sys_exit",
    /// `sched:sched_switch` to the child for the first time.
    /// KERNEL: kernel/sched/core.c `__schedule`, just before the switch.
    ChildSwitch = "sched_switch@child",
    /// `raw_syscalls:sys_exit` in the child: its first way back to user space.
    ChildSysExit = "sys_exit@child",
}

impl Mark {
    /// Marks kept in a fork record, the child's own apart: `SysEnter` up to `SysExit`.
    pub const IN_RECORD: usize = Self::SysExit as usize + 1;
}

/// Two marks that a stage lies between, and what else lies there.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The stage begins no earlier than this mark.
    pub opens: Mark,
    /// Where the stage's time is taken to end. What a stage still does after this mark is said in
    /// its row's `what`.
    pub closes: Mark,
    /// Stages outside the row's own that fall between the two marks too.
    pub includes: &'static [Stage],
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The row's stage.
    pub stage: Stage,
    /// The kernel's or C library's own name for it; stable in output.
    pub name: &'static str,
    /// The stage it is part of.
    pub parent: Option<Stage>,
    /// Whose time it takes.
    pub side: Side,
    /// Where: source file, and function where the stage's name is not one.
    pub at: &'static str,
    /// What happens, in one line.
    pub what: &'static str,
    /// The stage shares instead of copying exactly when one of these clone flags is set; 0 where
    /// no flag alone decides it.
    pub shared_by: u64,
    /// Its marks where only fork's own tracepoints are used, if any.
    pub tracepoint: Option<Bounds>,
    /// Its marks where inner tracepoints are used too; as `tracepoint` if none are given.
    pub inner: Option<Bounds>,
}

impl Row {
    /// How deep the stage is nested: 0 for a stage that is part of no other.
    #[must_use]
    pub fn depth(&self) -> usize {
        let mut depth = 0;
        let mut parent = self.parent;
        while let Some(stage) = parent {
            depth += 1;
            parent = stage.row().parent;
        }
        depth
    }
}

macro_rules! parent {
    (-) => {
        None
    };
    ($parent:ident) => {
        Some(Stage::$parent)
    };
}

macro_rules! bounds {
    () => {
        None
    };
    ($opens:ident .. $closes:ident $(+ $includes:ident)*) => {
        Some(Bounds {
            opens: Mark::$opens,
            closes: Mark::$closes,
            includes: &[$(Stage::$includes),*],
        })
    };
}

macro_rules! stages {
    ($(
        $side:ident $stage:ident $name:literal in $parent:tt, $at:literal,
        $what:literal $(, shared by $shared:expr)? $(, between [$($bounds:tt)*])?
        $(, inner [$($inner:tt)*])?;
    )*) => {
        /// A stage of a fork; the discriminant is its place in [`STAGES`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Stage { $(#[doc = concat!("`", $name, "`.")] $stage,)* }

        /// Every stage, in kernel order.
        pub const STAGES: &[Row] = &[$(Row {
            stage: Stage::$stage,
            name: $name,
            parent: parent!($parent),
            side: Side::$side,
            at: $at,
            what: $what,
            shared_by: 0 $(| $shared)?,
            tracepoint: bounds!($($($bounds)*)?),
            inner: bounds!($($($inner)*)?),
        },)*];
    };
}

stages! {
    Libc LibcFork "fork" in -, "glibc posix/fork.c",
        "the C library's wrapper, from its first instruction to its return";
    Libc RunPreforkHandlers "__run_prefork_handlers" in LibcFork, "glibc posix/register-atfork.c",
        "pthread_atfork prepare handlers, last registered first";
    Libc NssPrepare "__nss_database_fork_prepare_parent" in LibcFork, "glibc nss/nss_database.c",
        "name service state saved; only with threads";
    Libc PopenLock "_IO_proc_file_chain_lock" in LibcFork, "glibc libio/iopopen.c",
        "popen chain locked; only with threads, glibc 2.41 and later";
    Libc StdioLock "_IO_list_lock" in LibcFork, "glibc libio/genops.c",
        "list of stdio streams locked; only with threads";
    Libc MallocLock "__malloc_fork_lock_parent" in LibcFork, "glibc malloc/arena.c",
        "every malloc arena locked; only with threads";
    Libc LibcSyscall "_Fork" in LibcFork, "glibc posix/_Fork.c",
        "the system call itself as the C library makes it";
    Libc MallocUnlock "__malloc_fork_unlock_parent" in LibcFork, "glibc malloc/arena.c",
        "malloc and stdio locks released in the parent; only with threads";
    Libc RunPostforkHandlers "__run_postfork_handlers" in LibcFork, "glibc posix/register-atfork.c",
        "pthread_atfork parent handlers";

    Parent SysEnter "sys_enter" in -, "kernel/entry/common.c",
        "from the system call instruction through ptrace, seccomp and audit to the handler",
        inner [SysEnter..TaskAlloc + CopyCloneArgs + Clone3ArgsValid + FlagChecks + SignalGate];
    Parent CopyCloneArgs "copy_clone_args_from_user" in -, "kernel/fork.c",
        "clone3 only: the argument struct is copied from the caller and its sizes checked";
    Parent Clone3ArgsValid "clone3_args_valid" in -, "kernel/fork.c",
        "clone3 only: unknown flags, signal and stack arguments are refused";
    Parent KernelClone "kernel_clone" in -, "kernel/fork.c",
        "everything the system call does: copy_process, then wake the child";

    Parent CopyProcess "copy_process" in KernelClone, "kernel/fork.c",
        "the child is built, up to its place in the process tree",
        between [SysEnter..SchedProcessFork
            + SysEnter + CopyCloneArgs + Clone3ArgsValid + AddDeviceRandomness],
        inner [TaskAlloc..SchedProcessFork + AddDeviceRandomness];
    Parent FlagChecks "clone_flag_checks" in CopyProcess, "kernel/fork.c copy_process",
        "combinations of clone flags that make no sense are refused";
    Parent SignalGate "recalc_sigpending" in CopyProcess, "kernel/fork.c copy_process",
        "pending signals: the call is restarted after they are handled";
    Parent DupTaskStruct "dup_task_struct" in CopyProcess, "kernel/fork.c",
        "task_struct and kernel stack are allocated, charged and copied",
        inner [TaskAlloc..CredAlloc + CopyExecState + IdentityBits];
    Parent CopyExecState "copy_exec_state" in CopyProcess, "kernel/fork.c",
        "exec state of the task, 7.2 and later";
    Parent IdentityBits "rt_mutex_init_task" in CopyProcess, "kernel/fork.c copy_process",
        "flags of the new task, tid pointers, priority-inheritance state";
    Parent CopyCreds "copy_creds" in CopyProcess, "kernel/cred.c",
        "credentials; a new user namespace if asked for",
        inner [CredAlloc..SchedForkTimer + RlimitNproc + MaxThreads + CgroupFork];
    Parent RlimitNproc "is_rlimit_overlimit" in CopyProcess, "kernel/fork.c copy_process",
        "RLIMIT_NPROC of the user, along the chain of user namespaces";
    Parent MaxThreads "max_threads" in CopyProcess, "kernel/fork.c copy_process",
        "the host's limit on tasks, kernel.threads-max";
    Parent CgroupFork "cgroup_fork" in CopyProcess, "kernel/cgroup/cgroup.c",
        "small state: accounting, timers, lists, NUMA policy, empty cgroup link";
    Parent SchedFork "sched_fork" in CopyProcess, "kernel/sched/core.c",
        "scheduling class, priority and entity of the child",
        inner [SchedForkTimer..FilesAlloc
            + PerfEventInitTask + AuditAlloc + SecurityTaskAlloc + CopySemundo];
    Parent PerfEventInitTask "perf_event_init_task" in CopyProcess, "kernel/events/core.c",
        "inherited perf events are cloned";
    Parent AuditAlloc "audit_alloc" in CopyProcess, "kernel/auditsc.c",
        "audit context, if auditing was ever on";
    Parent SecurityTaskAlloc "security_task_alloc" in CopyProcess, "security/security.c",
        "security modules are asked, and attach their state";
    Parent CopySemundo "copy_semundo" in CopyProcess, "ipc/sem.c",
        "System V semaphore undo list", shared by CLONE_SYSVSEM;
    Parent CopyFiles "copy_files" in CopyProcess, "kernel/fork.c",
        "the table of open files", shared by CLONE_FILES, inner [FilesAlloc..FsAlloc];
    Parent CopyFs "copy_fs" in CopyProcess, "kernel/fork.c",
        "root, working directory, umask", shared by CLONE_FS, inner [FsAlloc..SighandAlloc];
    Parent CopySighand "copy_sighand" in CopyProcess, "kernel/fork.c",
        "the table of signal handlers", shared by CLONE_SIGHAND,
        inner [SighandAlloc..SignalAlloc];
    Parent CopySignal "copy_signal" in CopyProcess, "kernel/fork.c",
        "process-wide signal state, resource limits, timers", shared by CLONE_THREAD,
        inner [SignalAlloc..MmAlloc];
    Parent CopyMm "copy_mm" in CopyProcess, "kernel/fork.c",
        "the address space", shared by CLONE_VM, inner [MmAlloc..ParentMmapReleased];
    Parent MmInit "mm_init" in CopyMm, "kernel/fork.c",
        "an empty mm_struct: top page table, counters, context",
        inner [MmAlloc..MmapLockStart];
    Parent DupMmap "dup_mmap" in CopyMm, "mm/mmap.c, kernel/fork.c before 6.16",
        "every mapping of the parent is copied under its mmap_lock",
        inner [MmapLockStart..ParentMmapReleased];
    Parent MmapWriteLock "mmap_write_lock" in DupMmap, "include/linux/mmap_lock.h",
        "waits for the parent's mmap_lock",
        inner [MmapLockStart..MmapLockTaken];
    Parent CopyPageRange "copy_page_range" in DupMmap, "mm/memory.c",
        "every mapping and its page tables, write-protected for copy on write",
        inner [MmapLockTaken..ChildMmapReleased];
    Parent FlushTlbMm "flush_tlb_mm" in DupMmap, "arch/x86/mm/tlb.c",
        "CPUs of the parent forget its writable pages",
        inner [ChildMmapReleased..ParentMmapReleased];
    Parent CopyNamespaces "copy_namespaces" in CopyProcess, "kernel/nsproxy.c",
        "mount, uts, ipc, pid, cgroup, network and time namespaces: the parent's, or new ones",
        inner [ParentMmapReleased..FpuCopy + CopyIo];
    Parent CopyIo "copy_io" in CopyProcess, "block/blk-ioc.c",
        "I/O context and priority";
    Parent CopyThread "copy_thread" in CopyProcess, "arch/x86/kernel/process.c",
        "registers, FPU state, thread-local storage",
        inner [FpuCopy..PidAlloc + StackleakTaskInit];
    Parent StackleakTaskInit "stackleak_task_init" in CopyProcess, "kernel/kstack_erase.c",
        "mark of the lowest stack use, where configured";
    Parent AllocPid "alloc_pid" in CopyProcess, "kernel/pid.c",
        "a number in every pid namespace of the child",
        inner [PidAlloc..StartTime
            + PidfdPrepare + TaskFixups + CgroupCanFork + SchedCgroupFork + FutexHash];
    Parent PidfdPrepare "pidfd_prepare" in CopyProcess, "kernel/fork.c",
        "CLONE_PIDFD only: a file that stands for the child";
    Parent TaskFixups "futex_init_task" in CopyProcess, "kernel/fork.c copy_process",
        "alternate signal stack, single step, futex state, tids";
    Parent CgroupCanFork "cgroup_can_fork" in CopyProcess, "kernel/cgroup/cgroup.c",
        "cgroup controllers are asked: pids.max, cpuset";
    Parent SchedCgroupFork "sched_cgroup_fork" in CopyProcess, "kernel/sched/core.c",
        "task group and first CPU";
    Parent FutexHash "futex_hash_allocate_default" in CopyProcess, "kernel/futex/core.c",
        "a futex hash of the process's own, 6.17 and later";
    Parent TasklistLock "tasklist_lock" in CopyProcess, "kernel/fork.c copy_process",
        "waits for tasklist_lock, last checks, links into the process tree",
        between [StartTime..TaskNewtask
            + FdInstall + ProcForkConnector + SchedPostFork + CgroupPostFork + PerfEventFork];
    Parent WriteLockSlowpath "queued_write_lock_slowpath" in TasklistLock,
        "kernel/locking/qrwlock.c",
        "waits for tasklist_lock; only when another holds it",
        inner [LockContended..LockTaken];
    Parent CopySeccomp "copy_seccomp" in TasklistLock, "kernel/fork.c",
        "seccomp filters and no_new_privs of the parent";
    Parent PtraceInitTask "ptrace_init_task" in TasklistLock, "include/linux/ptrace.h",
        "the child of a traced parent is attached to the tracer";
    Parent AttachPid "attach_pid" in TasklistLock, "kernel/pid.c",
        "the child becomes visible under its pid, group and session";
    Parent FdInstall "fd_install" in CopyProcess, "fs/file.c",
        "CLONE_PIDFD only: the pidfd becomes visible";
    Parent ProcForkConnector "proc_fork_connector" in CopyProcess,
        "drivers/connector/cn_proc.c",
        "PROC_EVENT_FORK to netlink listeners";
    Parent SchedPostFork "sched_post_fork" in CopyProcess, "kernel/sched/core.c",
        "utilisation clamp and class hooks";
    Parent CgroupPostFork "cgroup_post_fork" in CopyProcess, "kernel/cgroup/cgroup.c",
        "the child joins its cgroup; frozen or killed with it";
    Parent PerfEventFork "perf_event_fork" in CopyProcess, "kernel/events/core.c",
        "PERF_RECORD_FORK to perf";
    Parent UprobeCopyProcess "uprobe_copy_process" in CopyProcess, "kernel/events/uprobes.c",
        "pending return probes are duplicated",
        between [TaskNewtask..SchedProcessFork
            + UserEventsFork + CopyOomScoreAdj + AddDeviceRandomness];
    Parent UserEventsFork "user_events_fork" in CopyProcess, "kernel/trace/trace_events_user.c",
        "user_events of the process";
    Parent CopyOomScoreAdj "copy_oom_score_adj" in CopyProcess, "kernel/fork.c",
        "CLONE_VM without THREAD or VFORK only: OOM score under a global mutex";

    Parent AddDeviceRandomness "add_device_randomness" in KernelClone, "drivers/char/random.c",
        "latent entropy is mixed into the random pool";
    Parent GetTaskPid "get_task_pid" in KernelClone, "kernel/pid.c",
        "the number to return, stored for CLONE_PARENT_SETTID";
    Parent LruGenAddMm "lru_gen_add_mm" in KernelClone, "mm/vmscan.c",
        "multi-generational LRU, 6.1 and later";
    Parent WakeUpNewTask "wake_up_new_task" in KernelClone, "kernel/sched/core.c",
        "the child is put on a run queue; its preemption check falls into sys_exit",
        between [SchedProcessFork..SchedWakeupNew + GetTaskPid + LruGenAddMm];
    Parent PtraceEventPid "ptrace_event_pid" in KernelClone, "include/linux/ptrace.h",
        "a traced parent stops and tells its tracer";
    Parent WaitForVforkDone "wait_for_vfork_done" in KernelClone, "kernel/fork.c",
        "vfork only: the parent waits until the child execs or ends; not part of total_ns";
    Parent PutPid "put_pid" in KernelClone, "kernel/pid.c",
        "the reference on the child's pid is dropped";
    Parent SysExit "sys_exit" in -, "kernel/entry/common.c",
        "the way back to user space, up to the sys_exit tracepoint",
        between [SchedWakeupNew..SysExit + PtraceEventPid + PutPid];

    Child SchedSwitch "sched_switch" in -, "kernel/sched/core.c __schedule",
        "runnable, and waiting on a run queue for its first moment on a CPU",
        between [SchedWakeupNew..ChildSwitch];
    Child RetFromFork "ret_from_fork" in -, "arch/x86/kernel/process.c",
        "from its first moment on a CPU to its first return to user space",
        between [ChildSwitch..ChildSysExit];
    Child ScheduleTail "schedule_tail" in RetFromFork, "kernel/sched/core.c",
        "the switch to the child is finished, its tid stored for CLONE_CHILD_SETTID";
}

impl Stage {
    /// The stage's row.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "enum and table come from one macro: each discriminant is a place in the table"
    )]
    pub const fn row(self) -> &'static Row {
        &STAGES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discriminant_is_the_place_in_the_table() {
        for (place, row) in STAGES.iter().enumerate() {
            assert_eq!(row.stage as usize, place, "{}", row.name);
            assert_eq!(row.stage.row().name, row.name);
        }
    }

    #[test]
    fn names_are_unique_within_a_side_and_parents_come_first() {
        for (place, row) in STAGES.iter().enumerate() {
            let twin = STAGES.iter().skip(place + 1).find(|other| other.name == row.name);
            assert!(twin.is_none(), "{} stands twice", row.name);
            if let Some(parent) = row.parent {
                assert!((parent as usize) < place, "{} comes before its parent", row.name);
                assert_eq!(parent.row().side, row.side, "{}", row.name);
            }
        }
    }

    #[test]
    fn bounds_are_ordered_and_lie_within_the_nearest_bounded_ancestor() {
        for row in STAGES {
            let Some(bounds) = row.tracepoint else {
                continue;
            };
            assert!(bounds.opens < bounds.closes, "{}", row.name);
            let mut ancestor = row.parent;
            while let Some(stage) = ancestor {
                if let Some(outer) = stage.row().tracepoint {
                    assert!(outer.opens <= bounds.opens, "{}", row.name);
                    assert!(outer.closes >= bounds.closes, "{}", row.name);
                    break;
                }
                ancestor = stage.row().parent;
            }
        }
    }
}
