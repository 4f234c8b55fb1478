//! Call sites of the slab allocator: which allocation inside a fork takes which mark.
//!
//! A slab tracepoint gives the address that it was called from. Which address takes which mark
//! differs from one build of the kernel to the next. So user space learns it from forks of its own,
//! and sets it before it loads the programs that trace.

use crate::stage::{Mark, Stage};

/// Stands for the address of a call site that is not known, so that its mark cannot be taken.
pub const UNKNOWN: u64 = 0;

/// Hands every site to macro `$m` as `GLOBAL: Mark in Stage;`, in kernel order. The stage is the
/// one that fails if there is no memory.
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
        /// Every site: the symbol of its address in the object, which is a `u64`, its mark, and its
        /// stage.
        pub const SITES: &[(&str, Mark, Stage)] =
            &[$((stringify!($global), Mark::$mark, Stage::$stage)),*];
    };
}

for_each_site!(table);

/// How many sites there are.
pub const SITE_COUNT: usize = 8;
const _: () = assert!(SITES.len() == SITE_COUNT);

/// The symbol in the object of the bits of all sites, a `u64`. See [`site_bit`].
pub const SITE_BITS: &str = "SITE_BITS";

/// The bit that stands for a call site, one of 64. If the bit of an address is not among those of
/// all sites, the address is no site.
#[must_use]
#[inline(always)]
pub const fn site_bit(site: u64) -> u64 {
    1 << ((site ^ (site >> 6) ^ (site >> 12)) & 63)
}

/// The functions that make one allocation each, and the mark that it takes.
pub const ALLOCATING_FUNCTIONS: &[(&str, Mark)] = &[
    ("prepare_creds", Mark::CredAlloc),
    ("dup_fd", Mark::FilesAlloc),
    ("copy_fs_struct", Mark::FsAlloc),
    ("alloc_pid", Mark::PidAlloc),
];

/// `copy_process`, and the functions that compilers inline into it. Its allocations are told apart
/// by their order.
pub const COPY_PROCESS: &[&str] =
    &["copy_process", "dup_task_struct", "copy_sighand", "copy_signal", "copy_mm", "dup_mm"];

/// The marks of the allocations in [`COPY_PROCESS`], in order. A thread and a vfork make only the
/// first of them: [`OF_THREAD`] and [`OF_VFORK`] say how many.
pub const IN_COPY_PROCESS: [Mark; 4] =
    [Mark::TaskAlloc, Mark::SighandAlloc, Mark::SignalAlloc, Mark::MmAlloc];
/// How many of [`IN_COPY_PROCESS`] a thread makes.
pub const OF_THREAD: usize = 1;
/// How many of [`IN_COPY_PROCESS`] a vfork makes.
pub const OF_VFORK: usize = 3;

/// What the kernel side has observed while it learns: the first word of an [`Observation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ObservationKind {
    /// An allocation; the value is its call site.
    Slab = 1,
    /// A timer; the value is its mode.
    Timer = 2,
    /// The lock of an address space is wanted; the value is 1 if it is the caller's own, otherwise
    /// 0.
    MmapLock = 3,
    /// FPU state is written; the value is 0.
    Fpu = 4,
}

/// One observation inside the learning process's own fork: an [`ObservationKind`], and its value.
pub type Observation = [u64; 2];

/// How many observations of one fork are kept. If there are more, the fork teaches nothing.
pub const MOST_OBSERVATIONS: u32 = 4096;

/// The symbol of the learning process's id, a `u32`; 0 if learning is off.
pub const LEARN_TGID: &str = "LEARN_TGID";

/// The mode of the timers that `sched_fork` sets up.
///
/// KERNEL: include/linux/hrtimer.h `HRTIMER_MODE_REL_HARD`.
pub const MODE_REL_HARD: u64 = 0x9;
