//! The stage table: the one list of everything that fork-trace knows of a fork, in kernel order.
//!
//! A row says what the stage is, where the kernel does it, which flag makes it share instead of
//! copy, and which function is the stage. If that function cannot be probed, the row also says
//! between which points in time the stage lies. The plan, the decoder, every output and
//! `docs/STAGES.md` are made from the table. How points are taken is not its concern.

pub use crate::point::{Mark, ORDER, Point};
use crate::{
    flags::{CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM},
    function::Function,
    point::point,
};

/// Whose time a stage takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller, in its C library, around the system call.
    Libc,
    /// The caller, in the kernel.
    Parent,
    /// The caller, in the kernel after the attempt: not part of its total.
    Wait,
    /// The child.
    Child,
    /// The child, in its C library, before it returns from `fork`.
    ChildLibc,
}

/// Two points that a stage lies between, and which other stages lie between them too.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The stage begins no earlier than this point.
    pub opens: Point,
    /// The point at which the stage is taken to end. If it still does something after that, its
    /// row's `what` says so.
    pub closes: Point,
    /// The stages that lie between the two points too, and are not part of this one.
    pub includes: &'static [Stage],
}

/// When an attempt has a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// Always, unless the flag that makes it share is set.
    Always,
    /// At times. If it is absent, there is nothing to report.
    AtTimes,
    /// Only when an attempt fails, to undo what was done.
    OnFailure,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The row's stage.
    pub stage: Stage,
    /// The name that the kernel or the C library has for it. In output it never changes.
    pub name: &'static str,
    /// The stage that it is part of; `None` if it is part of no other.
    pub parent: Option<Stage>,
    /// Whose time it takes.
    pub side: Side,
    /// Where it is: the source file, and the function if the stage's name is not that of one.
    pub at: &'static str,
    /// What happens, in one line.
    pub what: &'static str,
    /// The clone flags that make the stage share instead of copy, if any of them is set. 0 means
    /// that no flag alone decides it.
    pub shared_by: u64,
    /// When an attempt has it.
    pub occurs: Occurs,
    /// The function that is the stage, if there is one.
    pub function: Option<Function>,
    /// The bounds that it may have where functions are probed, the narrowest first.
    pub gaps: &'static [Bounds],
    /// Its bounds where inner tracepoints are used, if they can bound it.
    pub inner: Option<Bounds>,
    /// More bounds where functions are probed, for use if inner tracepoints cannot bound it.
    pub coarse: &'static [Bounds],
    /// Its bounds where only fork's own tracepoints are used, if those can bound it.
    pub tracepoint: Option<Bounds>,
}

impl Row {
    /// The row of the stage with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        STAGES.iter().find(|row| row.name == name)
    }

    /// How deep the stage is nested; 0 for a stage that is part of no other.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.stage.around().count()
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
    ($($opens:ident)+ .. $($closes:ident)+ ; $($includes:ident)*) => {
        Bounds {
            opens: point!($($opens)+),
            closes: point!($($closes)+),
            includes: &[$(Stage::$includes),*],
        }
    };
}

macro_rules! first {
    () => {
        None
    };
    ($first:expr) => {
        Some($first)
    };
}

macro_rules! occurs {
    () => {
        Occurs::Always
    };
    ($occurs:ident) => {
        Occurs::$occurs
    };
}

macro_rules! stages {
    ($(
        $side:ident $stage:ident $name:literal in $parent:tt, $at:literal,
        $what:literal $(, shared by $shared:expr)? $(, occurs $occurs:ident)? $(, function $function:ident)?
        $(, gap [$($go:ident)+ .. $($gc:ident)+ $(+ $gi:ident)*])*
        $(, inner [$($io:ident)+ .. $($ic:ident)+ $(+ $ii:ident)*])?
        $(, coarse [$($co:ident)+ .. $($cc:ident)+ $(+ $ci:ident)*])*
        $(, between [$($to:ident)+ .. $($tc:ident)+ $(+ $ti:ident)*])?;
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
            occurs: occurs!($($occurs)?),
            function: first!($(Function::$function)?),
            gaps: &[$(bounds!($($go)+ .. $($gc)+ ; $($gi)*)),*],
            inner: first!($(bounds!($($io)+ .. $($ic)+ ; $($ii)*))?),
            coarse: &[$(bounds!($($co)+ .. $($cc)+ ; $($ci)*)),*],
            tracepoint: first!($(bounds!($($to)+ .. $($tc)+ ; $($ti)*))?),
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
    Libc LibcSyscall "_Fork" in LibcFork, "glibc sysdeps/nptl/_Fork.c",
        "the system call itself as the C library makes it";
    Libc MallocUnlock "__malloc_fork_unlock_parent" in LibcFork, "glibc malloc/arena.c",
        "malloc arenas unlocked in the parent; only with threads";
    Libc StdioUnlock "_IO_list_unlock" in LibcFork, "glibc libio/genops.c",
        "list of stdio streams unlocked in the parent; only with threads";
    Libc RunPostforkHandlers "__run_postfork_handlers" in LibcFork, "glibc posix/register-atfork.c",
        "pthread_atfork parent handlers";

    Parent SysEnter "sys_enter" in -, "kernel/entry/common.c",
        "from the sys_enter tracepoint, which fires once ptrace and seccomp let the call pass, \
         through audit to the handler",
        gap [SysEnter..enter KernelClone],
        inner [SysEnter..TaskAlloc + CopyCloneArgs + Clone3ArgsValid + FlagChecks + SignalGate];
    Parent CopyCloneArgs "copy_clone_args_from_user" in SysEnter, "kernel/fork.c",
        "clone3 only: the argument struct is copied from the caller and its sizes checked",
        occurs AtTimes, function CopyCloneArgs;
    Parent Clone3ArgsValid "clone3_args_valid" in SysEnter, "kernel/fork.c",
        "clone3 only: unknown flags, signal and stack arguments are refused", occurs AtTimes,
        gap [leave CopyCloneArgs..enter KernelClone];
    Parent KernelClone "kernel_clone" in -, "kernel/fork.c",
        "everything the system call does: copy_process, then wake the child", function KernelClone,
        gap [enter KernelClone..leave WakeUpNewTask];

    Parent CopyProcess "copy_process" in KernelClone, "kernel/fork.c",
        "the child is built, up to its place in the process tree", function CopyProcess,
        inner [TaskAlloc..SchedProcessFork + AddDeviceRandomness],
        between [SysEnter..SchedProcessFork
            + SysEnter + CopyCloneArgs + Clone3ArgsValid + AddDeviceRandomness];
    Parent FlagChecks "clone_flag_checks" in CopyProcess, "kernel/fork.c copy_process",
        "combinations of clone flags that make no sense are refused",
        gap [enter CopyProcess..enter RecalcSigpending],
        gap [enter CopyProcess..enter TskForkGetNode + SignalGate];
    Parent SignalGate "recalc_sigpending" in CopyProcess, "kernel/fork.c copy_process",
        "pending signals: the call is restarted after they are handled", function RecalcSigpending;
    Parent DupTaskStruct "dup_task_struct" in CopyProcess, "kernel/fork.c",
        "task_struct and kernel stack are allocated, charged and copied",
        gap [enter TskForkGetNode..leave DupUserCpusPtr],
        gap [enter TskForkGetNode..enter CopyCreds + CopyExecState + IdentityBits + RlimitNproc],
        inner [TaskAlloc..CredAlloc + CopyExecState + IdentityBits];
    Parent CopyExecState "copy_exec_state" in CopyProcess, "kernel/fork.c",
        "exec state of the task, 7.2 and later", function TaskExecStateCopy;
    Parent IdentityBits "rt_mutex_init_task" in CopyProcess, "kernel/fork.c copy_process",
        "flags of the new task, tid pointers, priority-inheritance state",
        gap [leave TaskExecStateCopy..enter CopyCreds],
        gap [leave DupUserCpusPtr..enter CopyCreds];
    Parent CopyCreds "copy_creds" in CopyProcess, "kernel/cred.c",
        "credentials; a new user namespace if asked for", function CopyCreds,
        inner [CredAlloc..SchedForkTimer + RlimitNproc + MaxThreads + CgroupFork];
    Parent RlimitNproc "is_rlimit_overlimit" in CopyProcess, "kernel/fork.c copy_process",
        "RLIMIT_NPROC of the user, along the chain of user namespaces", function IsRlimitOverlimit;
    Parent MaxThreads "max_threads" in CopyProcess, "kernel/fork.c copy_process",
        "the host's limit on tasks, kernel.threads-max",
        gap [leave IsRlimitOverlimit..enter AcctClearIntegrals],
        gap [leave CopyCreds..enter AcctClearIntegrals];
    Parent CgroupFork "cgroup_fork" in CopyProcess, "kernel/cgroup/cgroup.c",
        "small state: accounting, timers, lists, NUMA policy, empty cgroup link",
        gap [enter AcctClearIntegrals..enter SchedFork];
    Parent SchedFork "sched_fork" in CopyProcess, "kernel/sched/core.c",
        "scheduling class, priority and entity of the child", function SchedFork,
        inner [SchedForkTimer..FilesAlloc
            + PerfEventInitTask + AuditAlloc + SecurityTaskAlloc + CopySemundo];
    Parent PerfEventInitTask "perf_event_init_task" in CopyProcess, "kernel/events/core.c",
        "inherited perf events are cloned", function PerfEventInitTask;
    Parent AuditAlloc "audit_alloc" in CopyProcess, "kernel/auditsc.c",
        "audit context, if auditing was ever on", function AuditAlloc;
    Parent SecurityTaskAlloc "security_task_alloc" in CopyProcess, "security/security.c",
        "security modules are asked, and attach their state", function SecurityTaskAlloc;
    Parent CopySemundo "copy_semundo" in CopyProcess, "ipc/sem.c",
        "System V semaphore undo list", shared by CLONE_SYSVSEM, function CopySemundo;
    Parent CopyFiles "copy_files" in CopyProcess, "kernel/fork.c",
        "the table of open files", shared by CLONE_FILES, function DupFd, inner [FilesAlloc..FsAlloc];
    Parent CopyFs "copy_fs" in CopyProcess, "kernel/fork.c",
        "root, working directory, umask", shared by CLONE_FS, function CopyFsStruct,
        inner [FsAlloc..SighandAlloc];
    Parent CopySighand "copy_sighand" in CopyProcess, "kernel/fork.c",
        "the table of signal handlers", shared by CLONE_SIGHAND,
        inner [SighandAlloc..SignalAlloc],
        coarse [leave CopyFsStruct..enter PosixCputimersGroupInit + CopySignal];
    Parent CopySignal "copy_signal" in CopyProcess, "kernel/fork.c",
        "process-wide signal state, resource limits, timers", shared by CLONE_THREAD,
        inner [SignalAlloc..MmAlloc], coarse [enter PosixCputimersGroupInit..enter MmInit];
    Parent CopyMm "copy_mm" in CopyProcess, "kernel/fork.c",
        "the address space", shared by CLONE_VM, gap [MmAlloc..enter CopyNamespaces],
        gap [enter MmInit..enter CopyNamespaces], inner [MmAlloc..ParentMmapReleased];
    Parent MmInit "mm_init" in CopyMm, "kernel/fork.c",
        "an empty mm_struct: top page table, counters, context", function MmInit,
        inner [MmAlloc..MmapLockStart];
    Parent DupMmap "dup_mmap" in CopyMm, "mm/mmap.c, kernel/fork.c before 6.16",
        "every mapping of the parent is copied under its mmap_lock", function DupMmap,
        gap [enter UprobeStartDupMmap..leave UprobeEndDupMmap],
        inner [MmapLockStart..ParentMmapReleased];
    Parent MmapWriteLock "mmap_write_lock" in DupMmap, "include/linux/mmap_lock.h",
        "waits for the parent's mmap_lock",
        inner [MmapLockStart..MmapLockTaken],
        coarse [enter DupMmap..enter UprobeDupMmap],
        coarse [leave UprobeStartDupMmap..enter UprobeDupMmap];
    Parent CopyPageRange "copy_page_range" in DupMmap, "mm/memory.c",
        "the page tables of each mapping that has an anon_vma, which a shared one or one that was \
         never written to has not; write-protected for copy on write",
        function CopyPageRange, inner [MmapLockTaken..ChildMmapReleased + VmAreaDup + AnonVmaFork];
    Parent PteAlloc "__pte_alloc" in CopyPageRange, "mm/memory.c",
        "page tables for the child are allocated and cleared, of every level", occurs AtTimes;
    Parent VmAreaDup "vm_area_dup" in DupMmap, "mm/vma_init.c, kernel/fork.c before 6.15",
        "every mapping's own structure, all runs together", function VmAreaDup;
    Parent AnonVmaFork "anon_vma_fork" in DupMmap, "mm/rmap.c",
        "reverse mapping of each mapping with anonymous pages, all runs together",
        function AnonVmaFork;
    Parent FlushTlbMm "flush_tlb_mm" in DupMmap, "arch/x86/mm/tlb.c",
        "CPUs of the parent forget its writable pages", function FlushTlbMmRange,
        inner [ChildMmapReleased..ParentMmapReleased];
    Parent CopyNamespaces "copy_namespaces" in CopyProcess, "kernel/nsproxy.c",
        "mount, uts, ipc, pid, cgroup, network and time namespaces: the parent's, or new ones",
        function CopyNamespaces, inner [ParentMmapReleased..FpuCopy + CopyIo];
    Parent CreateNewNamespaces "create_new_namespaces" in CopyNamespaces, "kernel/nsproxy.c",
        "with CLONE_NEW* flags: the new namespaces", occurs AtTimes, function CreateNewNamespaces;
    Parent CopyIo "copy_io" in CopyProcess, "block/blk-ioc.c",
        "I/O context and priority", gap [leave CopyNamespaces..enter CopyThread];
    Parent CopyThread "copy_thread" in CopyProcess, "arch/*/kernel/process.c",
        "registers, FPU state, thread-local storage", function CopyThread,
        inner [FpuCopy..PidAlloc + StackleakTaskInit];
    Parent StackleakTaskInit "stackleak_task_init" in CopyProcess, "kernel/kstack_erase.c",
        "mark of the lowest stack use, where configured", gap [leave CopyThread..enter AllocPid];
    Parent AllocPid "alloc_pid" in CopyProcess, "kernel/pid.c",
        "a number in every pid namespace of the child", function AllocPid, inner [PidAlloc..StartTime
            + PidfdPrepare + TaskFixups + CgroupCanFork + SchedCgroupFork + FutexHash];
    Parent PidfdPrepare "pidfd_prepare" in CopyProcess, "kernel/fork.c",
        "plug and pidfd: with CLONE_PIDFD a file that stands for the child",
        gap [leave AllocPid..enter UserDisableSingleStep];
    Parent TaskFixups "futex_init_task" in CopyProcess, "kernel/fork.c copy_process",
        "alternate signal stack, single step, futex state, tids",
        gap [enter UserDisableSingleStep..enter CgroupCanFork];
    Parent CgroupCanFork "cgroup_can_fork" in CopyProcess, "kernel/cgroup/cgroup.c",
        "cgroup controllers are asked: pids.max, cpuset", function CgroupCanFork;
    Parent SchedCgroupFork "sched_cgroup_fork" in CopyProcess, "kernel/sched/core.c",
        "task group and first CPU", function SchedCgroupFork;
    Parent FutexHash "futex_hash_allocate_default" in CopyProcess, "kernel/futex/core.c",
        "a futex hash of the process's own, 6.17 and later", occurs AtTimes, function FutexHash;
    Parent TasklistLock "tasklist_lock" in CopyProcess, "kernel/fork.c copy_process",
        "waits for tasklist_lock, last checks, links into the process tree",
        gap [StartTime..leave AttachPid], between [StartTime..TaskNewtask
            + FdInstall + ProcForkConnector + SchedPostFork + CgroupPostFork + PerfEventFork];
    Parent WriteLockSlowpath "queued_write_lock_slowpath" in TasklistLock,
        "kernel/locking/qrwlock.c",
        "waits for tasklist_lock; only when another holds it", occurs AtTimes,
        inner [LockContended..LockTaken];
    Parent CopySeccomp "copy_seccomp" in TasklistLock, "kernel/fork.c",
        "seccomp filters and no_new_privs of the parent", function GetSeccompFilter;
    Parent PtraceInitTask "ptrace_init_task" in TasklistLock, "include/linux/ptrace.h",
        "the child of a traced parent is attached to the tracer",
        gap [leave GetSeccompFilter..enter AttachPid];
    Parent AttachPid "attach_pid" in TasklistLock, "kernel/pid.c",
        "the child becomes visible under its pid, group and session", function AttachPid;
    Parent FdInstall "fd_install" in CopyProcess, "fs/file.c",
        "tasklist_lock is released; with CLONE_PIDFD the pidfd becomes visible",
        gap [leave AttachPid..enter ProcForkConnector];
    Parent ProcForkConnector "proc_fork_connector" in CopyProcess,
        "drivers/connector/cn_proc.c",
        "PROC_EVENT_FORK to netlink listeners", function ProcForkConnector;
    Parent SchedPostFork "sched_post_fork" in CopyProcess, "kernel/sched/core.c",
        "utilisation clamp and class hooks", function SchedPostFork;
    Parent CgroupPostFork "cgroup_post_fork" in CopyProcess, "kernel/cgroup/cgroup.c",
        "the child joins its cgroup; frozen or killed with it", function CgroupPostFork;
    Parent PerfEventFork "perf_event_fork" in CopyProcess, "kernel/events/core.c",
        "PERF_RECORD_FORK to perf", function PerfEventFork;
    Parent UprobeCopyProcess "uprobe_copy_process" in CopyProcess, "kernel/events/uprobes.c",
        "pending return probes are duplicated", function UprobeCopyProcess,
        between [TaskNewtask..SchedProcessFork
            + UserEventsFork + CopyOomScoreAdj + AddDeviceRandomness];
    Parent UserEventsFork "user_events_fork" in CopyProcess, "kernel/trace/trace_events_user.c",
        "user_events of the process";
    Parent CopyOomScoreAdj "copy_oom_score_adj" in CopyProcess, "kernel/fork.c",
        "CLONE_VM without THREAD or VFORK only: OOM score under a global mutex",
        gap [leave UprobeCopyProcess..leave CopyProcess + UserEventsFork];
    Parent TryToFreePages "try_to_free_pages" in CopyProcess, "mm/vmscan.c, mm/compaction.c",
        "in whichever stage an allocation finds too little memory: pages are reclaimed or moved \
         first", occurs AtTimes;
    Parent BadForkCleanup "bad_fork_cleanup" in CopyProcess, "kernel/fork.c copy_process",
        "on failure: what was made is undone, from the failure to the return of copy_process, or \
         where that is not probed to the return of the call", occurs OnFailure,
        gap [enter TskForkGetNode..leave CopyProcess], inner [TaskAlloc..SysExit];
    Parent CgroupCancelFork "cgroup_cancel_fork" in BadForkCleanup, "kernel/cgroup/cgroup.c",
        "on failure: what cgroup_can_fork charged is given back", occurs OnFailure,
        function CgroupCancelFork;
    Parent FreePid "free_pid" in BadForkCleanup, "kernel/pid.c",
        "on failure: the number is given back", occurs OnFailure, function FreePid;
    Parent ExitThread "exit_thread" in BadForkCleanup, "arch/*/kernel/process.c",
        "on failure: what copy_thread made is undone", occurs OnFailure, function ExitThread;
    Parent ExitNamespaces "exit_task_namespaces" in BadForkCleanup, "kernel/nsproxy.c",
        "on failure: namespaces are let go of; exit_nsproxy_namespaces from 6.19 on",
        occurs OnFailure, function ExitNamespaces;
    Parent Mmput "mmput" in BadForkCleanup, "kernel/fork.c",
        "on failure: the address space is torn down", occurs OnFailure, function Mmput;
    Parent CleanupSighand "__cleanup_sighand" in BadForkCleanup, "kernel/fork.c",
        "on failure: the table of handlers is let go of", occurs OnFailure, function CleanupSighand;
    Parent ExitFs "exit_fs" in BadForkCleanup, "fs/fs_struct.c",
        "on failure: root and working directory are let go of", occurs OnFailure, function ExitFs;
    Parent ExitFiles "exit_files" in BadForkCleanup, "fs/file.c",
        "on failure: files are let go of", occurs OnFailure, function ExitFiles;
    Parent ExitSem "exit_sem" in BadForkCleanup, "ipc/sem.c",
        "on failure: the semaphore undo list is let go of", occurs OnFailure, function ExitSem;
    Parent SecurityTaskFree "security_task_free" in BadForkCleanup, "security/security.c",
        "on failure: the state of security modules is freed", occurs OnFailure,
        function SecurityTaskFree;
    Parent PerfEventFreeTask "perf_event_free_task" in BadForkCleanup, "kernel/events/core.c",
        "on failure: inherited perf events are freed", occurs OnFailure, function PerfEventFreeTask;
    Parent SchedCancelFork "sched_cancel_fork" in BadForkCleanup, "kernel/sched/core.c",
        "on failure: the scheduling class is told, 6.12 and later", occurs OnFailure,
        function SchedCancelFork;
    Parent ExitCreds "exit_creds" in BadForkCleanup, "kernel/cred.c",
        "on failure: credentials are let go of", occurs OnFailure, function ExitCreds;
    Parent PutTaskStack "put_task_stack" in BadForkCleanup, "kernel/fork.c",
        "on failure: the kernel stack is let go of", occurs OnFailure, function PutTaskStack;

    Parent AddDeviceRandomness "add_device_randomness" in KernelClone, "drivers/char/random.c",
        "latent entropy is mixed into the random pool", function AddDeviceRandomness;
    Parent GetTaskPid "get_task_pid" in KernelClone, "kernel/pid.c",
        "the number to return, stored for CLONE_PARENT_SETTID", function GetTaskPid;
    Parent LruGenAddMm "lru_gen_add_mm" in KernelClone, "mm/vmscan.c",
        "multi-generational LRU, 6.1 and later", occurs AtTimes, function LruGenAddMm;
    Parent WakeUpNewTask "wake_up_new_task" in KernelClone, "kernel/sched/core.c",
        "the child is put on a run queue; its preemption check falls into sys_exit",
        function WakeUpNewTask,
        between [SchedProcessFork..SchedWakeupNew + GetTaskPid + LruGenAddMm];
    Parent PtraceEventPid "ptrace_event_pid" in KernelClone, "include/linux/ptrace.h",
        "a traced parent stops and tells its tracer", gap [leave WakeUpNewTask..enter PutPid];
    Wait WaitForVforkDone "wait_for_vfork_done" in -, "kernel/fork.c",
        "vfork only: the caller waits until the child execs or ends; told apart from the attempt",
        between [SchedWakeupNew..SysExit];
    Parent PutPid "put_pid" in KernelClone, "kernel/pid.c",
        "the reference on the child's pid is dropped", function PutPid;
    Parent SysExit "sys_exit" in -, "kernel/entry/common.c",
        "the way back to user space, up to the sys_exit tracepoint",
        gap [leave KernelClone..SysExit],
        gap [leave PutPid..SysExit],
        gap [leave WakeUpNewTask..SysExit + PtraceEventPid + PutPid],
        between [SchedWakeupNew..SysExit + PtraceEventPid + PutPid];

    Child SchedSwitch "sched_switch" in -, "kernel/sched/core.c __schedule",
        "runnable, and waiting on a run queue for its first moment on a CPU",
        between [SchedWakeupNew..ChildSwitch];
    Child RetFromFork "ret_from_fork" in -, "arch/*/kernel/process.c",
        "from its first moment on a CPU to its first return to user space",
        between [ChildSwitch..ChildSysExit];
    Child ScheduleTail "schedule_tail" in RetFromFork, "kernel/sched/core.c",
        "the switch to the child is finished, its tid stored for CLONE_CHILD_SETTID",
        function ScheduleTail;

    ChildLibc ChildFork "fork_child" in -, "glibc posix/fork.c",
        "the C library in the child, from its first instruction to its return from fork";
    ChildLibc ChildSetup "fork_system_setup" in ChildFork, "glibc sysdeps/nptl/fork.h",
        "ids, robust list and thread state of the only thread; inlined into _Fork and fork";
    ChildLibc ChildMallocUnlock "__malloc_fork_unlock_child" in ChildFork, "glibc malloc/arena.c",
        "malloc arenas made anew in the child; only with threads";
    ChildLibc ChildStdioReset "_IO_list_resetlock" in ChildFork, "glibc libio/genops.c",
        "list of stdio streams unlocked in the child; only with threads";
    ChildLibc ChildNss "__nss_database_fork_subprocess" in ChildFork, "glibc nss/nss_database.c",
        "name service state set back in the child; only with threads";
    ChildLibc ChildLoaderReset "fork_system_setup_after_fork" in ChildFork,
        "glibc sysdeps/nptl/fork.h",
        "locks of the loader, timers and message queues made anew; inlined into fork";
    ChildLibc ChildReclaimStacks "reclaim_stacks" in ChildFork, "glibc posix/fork.c",
        "stacks of threads that the child does not have are given up; inlined into fork";
    ChildLibc ChildHandlers "atfork_run_child" in ChildFork, "glibc posix/register-atfork.c",
        "pthread_atfork child handlers, first registered first";
}

impl Stage {
    /// The stage's row in the table.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "enum and table come from one macro: each discriminant is a place in the table"
    )]
    pub const fn row(self) -> &'static Row {
        &STAGES[self as usize]
    }

    /// The stages that it is part of, from the innermost outwards.
    pub fn around(self) -> impl Iterator<Item = Self> {
        core::iter::successors(self.row().parent, |outer| outer.row().parent)
    }

    /// Whether it is part of `outer`, at any depth.
    #[must_use]
    pub fn is_within(self, outer: Self) -> bool {
        self.around().any(|stage| stage == outer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::FUNCTIONS;

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

    /// Every way in which a row is bounded.
    fn ways(row: &Row) -> impl Iterator<Item = Bounds> {
        let function = row.function.map(|function| Bounds {
            opens: Point::Enter(function),
            closes: Point::Leave(function),
            includes: &[],
        });
        let own = function.into_iter().chain(row.inner).chain(row.tracepoint);
        own.chain(row.gaps.iter().copied()).chain(row.coarse.iter().copied())
    }

    #[test]
    fn bounds_are_ordered_and_lie_within_the_nearest_bounded_ancestor() {
        for row in STAGES {
            for bounds in ways(row).filter(|_| row.function != Some(Function::ScheduleTail)) {
                assert!(bounds.opens.rank() < bounds.closes.rank(), "{}: {bounds:?}", row.name);
            }
            let Some(bounds) = row.tracepoint else {
                continue;
            };
            let mut ancestor = row.parent;
            while let Some(stage) = ancestor {
                if let Some(outer) = stage.row().tracepoint {
                    assert!(outer.opens.rank() <= bounds.opens.rank(), "{}", row.name);
                    assert!(outer.closes.rank() >= bounds.closes.rank(), "{}", row.name);
                    break;
                }
                ancestor = stage.row().parent;
            }
        }
    }

    #[test]
    fn each_function_is_needed_by_a_stage() {
        for row in FUNCTIONS {
            let needed = |way: Bounds| {
                [way.opens.function(), way.closes.function()].contains(&Some(row.function))
            };
            assert!(STAGES.iter().any(|stage| ways(stage).any(needed)), "{}", row.id);
        }
    }
}
