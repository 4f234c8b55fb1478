//! Every way in which an attempt is not shown, counted in the kernel.
//!
//! Each new task of the host is counted in exactly one of `Seen`, `FilteredKind`,
//! `FilteredTask` and `Unentered` at `task_newtask`, so their sum grows with the kernel's own
//! `processes` counter (/proc/stat; KERNEL: `total_forks` in kernel/fork.c `copy_process`).

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Index into the kernel side's per-CPU counter array.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])* $name,)* }

        impl Counter {
            /// How many there are.
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
    /// New tasks whose attempt has a record in flight.
    Seen,
    /// New tasks of a kind that is not wanted, and idle tasks.
    FilteredKind,
    /// New tasks of a caller that is not wanted.
    FilteredTask,
    /// New tasks not tracked because the in-flight map was full.
    Unentered,
    /// Attempts not tracked because the in-flight map was full.
    InFlightFull,
    /// Records of successful attempts lost because the ring was full.
    RingFullForks,
    /// Records of failed attempts lost because the ring was full.
    RingFullFailures,
    /// Function times of attempts lost because the ring or their map was full.
    FunctionTimesLost,
    /// Child-start records lost because the ring was full.
    RingFullStarts,
    /// Children whose first moment on a CPU is not known because the map for it was full.
    OnCpuFull,
    /// Child processes not followed because the map of followed processes was full.
    FollowFull,
    /// Failed attempts whose evidence was lost because the ring was full.
    RingFullRefusals,
    /// Successful attempts that were recorded and then not wanted for their outcome; each is among
    /// `Seen` too.
    FilteredOutcome,
    /// Follow-up records lost because the ring was full.
    RingFullFollowUps,
    /// Children with no follow-up because the map of children was full.
    BornFull,
    /// Vforks whose parent's wait is not measured because the map of waits was full.
    WaitsFull,
    /// Times off the CPU that are not known because the map for them was full.
    OffCpuFull,
    /// Records of times off the CPU lost because the ring was full.
    RingFullOffCpu,
}
