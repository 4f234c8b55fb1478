//! The points in time that can be taken in a fork, and the order in which a fork passes them. A
//! point is the mark of a tracepoint, or the entry or the return of a function.

use crate::function::Function;

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $mark:ident = $name:literal,)*) => {
        /// A point in time that a tracepoint marks, in the order in which a fork passes them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Mark { $($(#[doc = $doc])* $mark,)* }

        impl Mark {
            /// Every mark, in order.
            pub const ALL: &[Self] = &[$(Self::$mark,)*];

            /// The name used in output: that of the tracepoint, followed by `@` and where it fired
            /// if that has to be said, or that of a field.
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
    /// The `task_struct` was allocated. As with all allocations, the mark is taken once the object
    /// exists, which is a few hundred nanoseconds after its stage begins.
    /// KERNEL: kernel/fork.c `dup_task_struct`.
    TaskAlloc = "kmem_cache_alloc@copy_process#1",
    /// The credentials were allocated. KERNEL: kernel/cred.c `prepare_creds`.
    CredAlloc = "kmem_cache_alloc@prepare_creds",
    /// The first deadline timer of the child is set up (mode `REL|HARD`).
    /// KERNEL: kernel/sched/core.c `__sched_fork`.
    SchedForkTimer = "hrtimer_setup",
    /// The table of files was allocated. KERNEL: fs/file.c `dup_fd`.
    FilesAlloc = "kmem_cache_alloc@dup_fd",
    /// The root and working directory were allocated. KERNEL: `fs/fs_struct.c` `copy_fs_struct`.
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
    /// The child's `mmap_lock` is released, because every mapping was copied.
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
    /// `lock:contention_begin` of a writer that spins, because another holds `tasklist_lock`.
    /// KERNEL: kernel/locking/qrwlock.c `queued_write_lock_slowpath`.
    LockContended = "contention_begin",
    /// `lock:contention_end` of the same writer, which has the lock now.
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
    /// `raw_syscalls:sys_exit` in the child, on its first return to user space.
    ChildSysExit = "sys_exit@child",
}

impl Mark {
    /// How many marks a fork record keeps: `SysEnter` up to `SysExit`, which are all but the
    /// child's own.
    pub const IN_RECORD: usize = Self::SysExit as usize + 1;

    /// The place of a mark among the marks of a fork record, which begin with the last: a record that is cut
    /// off behind them still says when the attempt ended. The child's marks have a place that is not there.
    #[must_use]
    #[inline(always)]
    pub const fn place(self) -> usize {
        (Self::SysExit as usize).wrapping_sub(self as usize)
    }
}

/// A point in time: a mark, or the entry or return of a function that can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The mark of a tracepoint.
    Mark(Mark),
    /// The first entry of a function in an attempt.
    Enter(Function),
    /// The return of a function; if it runs many times, the last one.
    Leave(Function),
}

macro_rules! point {
    (enter $function:ident) => {
        Point::Enter(Function::$function)
    };
    (leave $function:ident) => {
        Point::Leave(Function::$function)
    };
    ($mark:ident) => {
        Point::Mark(Mark::$mark)
    };
}

pub(crate) use point;

macro_rules! order {
    ($(($($point:ident)+))*) => {
        /// Every point that the caller passes, in the order of 6.12.
        pub const ORDER: &[Point] = &[$(point!($($point)+)),*];
    };
}

order! {
    (SysEnter) (enter CopyCloneArgs) (leave CopyCloneArgs) (enter KernelClone) (enter CopyProcess)
    (enter RecalcSigpending) (leave RecalcSigpending) (enter TskForkGetNode) (leave TskForkGetNode)
    (TaskAlloc) (enter DupUserCpusPtr) (leave DupUserCpusPtr)
    (enter TaskExecStateCopy) (leave TaskExecStateCopy)
    (enter CopyCreds) (CredAlloc) (leave CopyCreds) (enter IsRlimitOverlimit) (leave IsRlimitOverlimit)
    (enter AcctClearIntegrals) (leave AcctClearIntegrals)
    (enter SchedFork) (SchedForkTimer) (leave SchedFork)
    (enter PerfEventInitTask) (leave PerfEventInitTask) (enter AuditAlloc) (leave AuditAlloc)
    (enter SecurityTaskAlloc) (leave SecurityTaskAlloc) (enter CopySemundo) (leave CopySemundo)
    (enter DupFd) (FilesAlloc) (leave DupFd) (enter CopyFsStruct) (FsAlloc) (leave CopyFsStruct)
    (SighandAlloc) (SignalAlloc) (enter PosixCputimersGroupInit) (leave PosixCputimersGroupInit)
    (MmAlloc) (enter MmInit) (leave MmInit) (enter UprobeStartDupMmap) (leave UprobeStartDupMmap)
    (enter DupMmap) (MmapLockStart) (MmapLockTaken) (enter UprobeDupMmap) (leave UprobeDupMmap)
    (enter VmAreaDup) (leave VmAreaDup) (enter AnonVmaFork) (leave AnonVmaFork)
    (enter CopyPageRange) (leave CopyPageRange)
    (ChildMmapReleased) (enter FlushTlbMmRange) (leave FlushTlbMmRange) (ParentMmapReleased)
    (leave DupMmap) (enter UprobeEndDupMmap) (leave UprobeEndDupMmap)
    (enter CopyNamespaces) (enter CreateNewNamespaces) (leave CreateNewNamespaces)
    (leave CopyNamespaces) (enter CopyThread) (FpuCopy) (leave CopyThread)
    (enter AllocPid) (PidAlloc) (leave AllocPid)
    (enter UserDisableSingleStep) (leave UserDisableSingleStep)
    (enter CgroupCanFork) (leave CgroupCanFork) (enter SchedCgroupFork) (leave SchedCgroupFork)
    (enter FutexHash) (leave FutexHash) (StartTime) (LockContended) (LockTaken)
    (enter GetSeccompFilter) (leave GetSeccompFilter) (enter AttachPid) (leave AttachPid)
    (enter ProcForkConnector) (leave ProcForkConnector) (enter SchedPostFork) (leave SchedPostFork)
    (enter CgroupPostFork) (leave CgroupPostFork) (enter PerfEventFork) (leave PerfEventFork)
    (TaskNewtask) (enter UprobeCopyProcess) (leave UprobeCopyProcess)
    (enter CgroupCancelFork) (leave CgroupCancelFork) (enter FreePid) (leave FreePid)
    (enter ExitThread) (leave ExitThread) (enter ExitNamespaces) (leave ExitNamespaces)
    (enter Mmput) (leave Mmput) (enter CleanupSighand) (leave CleanupSighand)
    (enter ExitFs) (leave ExitFs) (enter ExitFiles) (leave ExitFiles) (enter ExitSem) (leave ExitSem)
    (enter SecurityTaskFree) (leave SecurityTaskFree)
    (enter PerfEventFreeTask) (leave PerfEventFreeTask)
    (enter SchedCancelFork) (leave SchedCancelFork) (enter ExitCreds) (leave ExitCreds)
    (enter PutTaskStack) (leave PutTaskStack) (leave CopyProcess)
    (enter AddDeviceRandomness) (leave AddDeviceRandomness) (SchedProcessFork)
    (enter GetTaskPid) (leave GetTaskPid) (enter LruGenAddMm) (leave LruGenAddMm)
    (enter WakeUpNewTask) (SchedWakeupNew) (leave WakeUpNewTask) (enter PutPid) (leave PutPid)
    (leave KernelClone) (SysExit)
}

impl core::fmt::Display for Point {
    /// Writes a mark's name, or `enter` or `leave` followed by the function's name in the table.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Mark(mark) => f.write_str(mark.name()),
            Self::Enter(function) => write!(f, "enter {}", function.row().id),
            Self::Leave(function) => write!(f, "leave {}", function.row().id),
        }
    }
}

impl Point {
    /// The function whose entry or return it is; `None` for a mark.
    #[must_use]
    pub fn function(self) -> Option<Function> {
        match self {
            Self::Mark(_) => None,
            Self::Enter(function) | Self::Leave(function) => Some(function),
        }
    }

    /// Its place in [`ORDER`]. The child's marks come after those of the caller.
    #[must_use]
    pub fn rank(self) -> usize {
        ORDER.iter().position(|point| *point == self).unwrap_or_else(|| match self {
            Self::Mark(mark) => ORDER.len() + mark as usize,
            _ => usize::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::function::FUNCTIONS;

    #[test]
    fn each_point_has_one_place_in_the_order_and_marks_keep_theirs() {
        for (place, point) in ORDER.iter().enumerate() {
            assert_eq!(point.rank(), place, "{point:?} stands twice");
        }
        let ranks: Vec<_> = Mark::ALL.iter().map(|mark| Point::Mark(*mark).rank()).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
        for row in FUNCTIONS.iter().filter(|row| row.function != Function::ScheduleTail) {
            assert!(
                Point::Enter(row.function).rank() < Point::Leave(row.function).rank(),
                "{}",
                row.id
            );
        }
    }
}
