//! The tracepoints for which the object has programs, and which of them record which mark.

use fork_trace_common::stage::Mark;

macro_rules! tracepoints {
    ($($(#[doc = $doc:literal])* $tracepoint:ident = $name:literal,)*) => {
        /// A tracepoint for which the object has a program; the program has the same name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Tracepoint { $($(#[doc = $doc])* $tracepoint,)* }

        impl Tracepoint {
            /// Every tracepoint, in the order in which they are attached.
            pub const ALL: &[Self] = &[$(Self::$tracepoint,)*];

            /// The kernel's name of the tracepoint, and the program's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$tracepoint => $name,)* }
            }
        }
    };
}

// The tracepoint of the last mark is attached first and that of the entry last. So an attempt whose
// entry is seen also meets the program of every later mark.
tracepoints! {
    /// `sched:sched_process_exit`: a process ends, and what the kernel side's maps hold of it is
    /// removed.
    SchedProcessExit = "sched_process_exit",
    /// `sched:sched_process_exec`: a child runs another program, which ends the wait of a vfork's
    /// parent.
    SchedProcessExec = "sched_process_exec",
    /// `raw_syscalls:sys_exit`.
    SysExit = "sys_exit",
    /// `sched:sched_switch`: what becomes of a child, from its first moment on a CPU to its last.
    SchedSwitch = "sched_switch",
    /// `sched:sched_wakeup_new`.
    SchedWakeupNew = "sched_wakeup_new",
    /// `sched:sched_process_fork`.
    SchedProcessFork = "sched_process_fork",
    /// `task:task_newtask`.
    TaskNewtask = "task_newtask",
    /// `lock:contention_end`, 5.19 and later.
    ContentionEnd = "contention_end",
    /// `lock:contention_begin`, 5.19 and later.
    ContentionBegin = "contention_begin",
    /// `vmscan:mm_vmscan_memcg_reclaim_begin`, with control groups of memory.
    MemcgReclaimBegin = "mm_vmscan_memcg_reclaim_begin",
    /// `vmscan:mm_vmscan_direct_reclaim_begin`.
    DirectReclaimBegin = "mm_vmscan_direct_reclaim_begin",
    /// `x86_fpu:x86_fpu_copy_dst`.
    FpuCopyDst = "x86_fpu_copy_dst",
    /// `mmap_lock:mmap_lock_released`, 5.11 and later.
    MmapLockReleased = "mmap_lock_released",
    /// `mmap_lock:mmap_lock_acquire_returned`.
    MmapLockAcquireReturned = "mmap_lock_acquire_returned",
    /// `mmap_lock:mmap_lock_start_locking`.
    MmapLockStartLocking = "mmap_lock_start_locking",
    /// `timer:hrtimer_setup`.
    HrtimerSetup = "hrtimer_setup",
    /// `timer:hrtimer_init`, the earlier name of `timer:hrtimer_setup`.
    HrtimerInit = "hrtimer_init",
    /// `kmem:kmem_cache_alloc`.
    KmemCacheAlloc = "kmem_cache_alloc",
    /// `kmem:kmem_cache_alloc_node`: before 6.1 the allocation of a `task_struct`.
    KmemCacheAllocNode = "kmem_cache_alloc_node",
    /// `raw_syscalls:sys_enter`.
    SysEnter = "sys_enter",
}

impl Tracepoint {
    /// Whether no attempt can be recorded without it.
    pub const fn needed(self) -> bool {
        // The wake-up is needed because a vfork's record ends there: were it submitted later, its
        // time would include the wait of the parent.
        matches!(
            self,
            Self::SysEnter
                | Self::SysExit
                | Self::TaskNewtask
                | Self::SchedWakeupNew
                | Self::SchedProcessExit
                | Self::SchedProcessExec
                | Self::SchedSwitch
        )
    }

    /// Whether it tells when an allocation began that had to reclaim memory: of use with the marks of
    /// allocations, which are taken when they are done.
    #[must_use]
    pub const fn reclaims(self) -> bool {
        matches!(self, Self::MemcgReclaimBegin | Self::DirectReclaimBegin)
    }

    /// Whether it is observed while the call sites of the inner marks are learned.
    #[must_use]
    pub const fn is_observed(self) -> bool {
        matches!(
            self,
            Self::KmemCacheAlloc
                | Self::KmemCacheAllocNode
                | Self::HrtimerSetup
                | Self::HrtimerInit
                | Self::MmapLockStartLocking
                | Self::FpuCopyDst
        )
    }

    /// The tracepoints that record `mark`. A kernel may have only some of them, because they were
    /// renamed or merged.
    pub fn taking(mark: Mark) -> &'static [Self] {
        match mark {
            Mark::SysEnter => &[Self::SysEnter],
            Mark::SchedForkTimer => &[Self::HrtimerSetup, Self::HrtimerInit],
            Mark::MmapLockStart => &[Self::MmapLockStartLocking],
            Mark::MmapLockTaken => &[Self::MmapLockAcquireReturned],
            Mark::ChildMmapReleased | Mark::ParentMmapReleased => &[Self::MmapLockReleased],
            Mark::FpuCopy => &[Self::FpuCopyDst],
            Mark::StartTime | Mark::TaskNewtask => &[Self::TaskNewtask],
            Mark::LockContended => &[Self::ContentionBegin],
            Mark::LockTaken => &[Self::ContentionEnd],
            Mark::SchedProcessFork => &[Self::SchedProcessFork],
            Mark::SchedWakeupNew => &[Self::SchedWakeupNew],
            Mark::ChildSwitch => &[Self::SchedSwitch],
            Mark::SysExit | Mark::ChildSysExit => &[Self::SysExit],
            Mark::TaskAlloc => &[Self::KmemCacheAlloc, Self::KmemCacheAllocNode],
            Mark::CredAlloc
            | Mark::FilesAlloc
            | Mark::FsAlloc
            | Mark::SighandAlloc
            | Mark::SignalAlloc
            | Mark::MmAlloc
            | Mark::PidAlloc => &[Self::KmemCacheAlloc],
        }
    }
}

/// The marks that have to come before `mark`: without them the kernel side does not record it,
/// because they show that the attempt has got so far.
pub const fn needs(mark: Mark) -> &'static [Mark] {
    match mark {
        Mark::MmapLockStart => &[Mark::MmAlloc],
        Mark::MmapLockTaken => &[Mark::MmAlloc, Mark::MmapLockStart],
        Mark::ChildMmapReleased | Mark::ParentMmapReleased => {
            &[Mark::MmAlloc, Mark::MmapLockStart, Mark::MmapLockTaken]
        }
        Mark::LockContended => &[Mark::PidAlloc],
        Mark::LockTaken => &[Mark::PidAlloc, Mark::LockContended],
        _ => &[],
    }
}
