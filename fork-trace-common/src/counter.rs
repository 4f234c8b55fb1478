//! The counters of the kernel side: every way in which an attempt, or a part of it, is not shown.
//!
//! Each new task of the host is counted at `task_newtask` in exactly one of `Seen`, `FilteredKind`,
//! `FilteredTask` and `Unentered`. So their sum grows as `processes` in `/proc/stat` does, which is
//! the kernel's own count.
//! KERNEL: kernel/fork.c `copy_process` counts `total_forks`.

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A counter: its place in the kernel side's array of counters, which each CPU has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])* $name,)* }

        impl Counter {
            /// How many counters there are.
            pub const COUNT: u32 = {
                let mut count = 0;
                $(
                    _ = Self::$name;
                    count += 1;
                )*
                count
            };
        }
    };
}

counters! {
    /// New tasks whose attempt has a record.
    Seen,
    /// New tasks of a kind that is not wanted; idle tasks are among them.
    FilteredKind,
    /// New tasks whose caller is not wanted.
    FilteredTask,
    /// New tasks whose attempt got no record, because the map of attempts was full.
    Unentered,
    /// Attempts that got no record when they began, because the map of attempts was full.
    InFlightFull,
    /// Records of successful attempts that were lost because the ring was full, but for what is kept for those
    /// that fail.
    RingFullForks,
    /// Records of failed attempts that were lost because the ring was full.
    RingFullFailures,
    /// Successful attempts that were told in brief, because the ring was three quarters full.
    Brief,
    /// Function times of attempts that were lost because the ring or their map was full.
    FunctionTimesLost,
    /// Records of a child's start that were lost because the ring was three quarters full.
    RingFullStarts,
    /// Children whose first moment on a CPU is not known, because the map for it was full.
    OnCpuFull,
    /// Child processes that are not followed, because the map of followed processes was full.
    FollowFull,
    /// Failed attempts whose evidence was lost because the ring was full.
    RingFullRefusals,
    /// Successful attempts that had a record, and whose outcome was not wanted. Each is counted in
    /// `Seen` too.
    FilteredOutcome,
    /// Follow-ups that were lost because the ring was full.
    RingFullFollowUps,
    /// Children that are not followed up, because the map of children was full.
    BornFull,
    /// Vforks whose parent's wait is not measured, because the map of waits was full.
    WaitsFull,
    /// Programs of callers that are not described, because the ring was full.
    RingFullPrograms,
    /// Times off the CPU that are not known because the map for them was full.
    OffCpuFull,
    /// Records of times off the CPU lost because the ring was full.
    RingFullOffCpu,
    /// Times off the CPU whose end is not known: the task ran again without having been seen to come back.
    OffCpuMissed,
    /// Samples of kernel stacks lost because the ring was half full or full.
    SamplesLost,
    /// Runs of wrappers of the C library that are not known, because the map for them was full.
    LibcFull,
    /// Records of runs of wrappers that were lost because the ring was full.
    RingFullLibc,
    /// Stacks of callers lost because the ring was half full or full.
    StacksLost,
}
