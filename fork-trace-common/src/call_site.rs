//! Slab call sites: which allocation inside a fork takes which mark.
//!
//! A slab tracepoint tells the address it was called from. Which address is which mark differs
//! from build to build, so userspace learns it from forks of its own and sets it before load.

use crate::stage::{Mark, Stage};

/// An address that is no call site: the mark cannot be taken.
pub const UNKNOWN: u64 = 0;

/// Hands every site to macro `$m` as `GLOBAL: Mark in Stage;`, in kernel order: the
/// stage is the one that fails if there is no memory.
#[macro_export]
macro_rules! for_each_site {
    ($m:ident) => {
        $m! {
            SITE_TASK: TaskAlloc in DupTaskStruct;
            SITE_CRED: CredAlloc in CopyCreds;
            SITE_FILES: FilesAlloc in CopyFiles;
            SITE_FS: FsAlloc in CopyFs;
            SITE_SIGHAND: SighandAlloc in CopySighand;
            SITE_SIGNAL: SignalAlloc in CopySignal;
            SITE_MM: MmAlloc in CopyMm;
            SITE_PID: PidAlloc in AllocPid;
        }
    };
}

macro_rules! table {
    ($($global:ident: $mark:ident in $stage:ident;)*) => {
        /// Every site: the symbol of its address in the object, a `u64`, its mark and its stage.
        pub const SITES: &[(&str, Mark, Stage)] =
            &[$((stringify!($global), Mark::$mark, Stage::$stage)),*];
    };
}

for_each_site!(table);

/// How many sites there are.
pub const SITE_COUNT: usize = 8;
const _: () = assert!(SITES.len() == SITE_COUNT);

/// Symbol of the bits of all sites in the object, a `u64`.
pub const SITE_BITS: &str = "SITE_BITS";

/// One of 64 bits for a call site.
#[must_use]
#[inline(always)]
pub const fn site_bit(site: u64) -> u64 {
    1 << ((site ^ (site >> 6) ^ (site >> 12)) & 63)
}

/// Functions whose single allocation is a mark.
pub const ALLOCATING_FUNCTIONS: &[(&str, Mark)] = &[
    ("prepare_creds", Mark::CredAlloc),
    ("dup_fd", Mark::FilesAlloc),
    ("copy_fs_struct", Mark::FsAlloc),
    ("alloc_pid", Mark::PidAlloc),
];

/// `copy_process` and what compilers inline into it: its allocations are told apart by order.
pub const COPY_PROCESS: &[&str] =
    &["copy_process", "dup_task_struct", "copy_sighand", "copy_signal", "copy_mm", "dup_mm"];

/// The marks of allocations in [`COPY_PROCESS`], in order, and how many of the first a thread and
/// a vfork make too.
pub const IN_COPY_PROCESS: [Mark; 4] =
    [Mark::TaskAlloc, Mark::SighandAlloc, Mark::SignalAlloc, Mark::MmAlloc];
/// A thread makes the first.
pub const OF_THREAD: usize = 1;
/// A vfork makes the first three.
pub const OF_VFORK: usize = 3;

/// What the kernel side writes down while it learns; first word of a [`Observation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ObservationKind {
    /// An allocation: `value` is its call site.
    Slab = 1,
    /// A timer: `value` is its mode.
    Timer = 2,
    /// A lock of an address space is wanted: `value` is 1 for the caller's own.
    MmapLock = 3,
    /// FPU state is written.
    Fpu = 4,
}

/// One event of the learning process's own fork, as kind and value.
pub type Observation = [u64; 2];

/// Events that are kept of one fork; more make it useless.
pub const MOST_OBSERVATIONS: u32 = 4096;

/// Symbol of the learning process's tgid, a `u32`; 0: no learning.
pub const LEARN_TGID: &str = "LEARN_TGID";

/// The mode of `sched_fork`'s timers.
/// KERNEL: include/linux/hrtimer.h `HRTIMER_MODE_REL_HARD`.
pub const MODE_REL_HARD: u64 = 0x9;
