//! Inner tracepoints: those that fire at known places inside a fork, one program each.
//!
//! Most of them fire far more often elsewhere. So each program tells those runs from ours in a few
//! instructions, before it looks anything up: by the call site, by the mode of a timer, or by
//! whether the caller's process is forking at all.

use aya_ebpf::{
    EbpfContext as _, Global,
    cty::c_void,
    helpers::{bpf_probe_read_kernel, generated::bpf_get_stack},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use fork_trace_common::{
    call_site::{MODE_REL_HARD, ObservationKind, SITES, UNKNOWN, site_bit},
    stage::Mark,
};

use crate::{attempt::marks, kernel::task::Task, learn};

macro_rules! sites {
    ($($site:ident: $mark:ident in $stage:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            static $site: Global<u64> = Global::new(UNKNOWN);
        )*

        /// The mark of a call site. A site that is not known is 0, and no call comes from there.
        #[inline(always)]
        fn mark_of(site: u64) -> Option<Mark> {
            if site_bit(site) & SITE_BITS.load() == 0 {
                return None;
            }
            $(
                if site == $site.load() {
                    return Some(Mark::$mark);
                }
            )*
            None
        }
    };
}

fork_trace_common::for_each_site!(sites);

/// The place of a mark's call site in the table of call sites.
#[inline(always)]
const fn place_of(mark: Mark) -> usize {
    const fn is(one: Mark, other: Mark) -> bool {
        one as u32 == other as u32
    }
    let mut place = 0;
    let mut rest = SITES;
    while let [(_, other, _), later @ ..] = rest {
        if is(*other, mark) {
            return place;
        }
        place += 1;
        rest = later;
    }
    place
}

/// The [`site_bit`] of every site, so that one test tells most calls from ours.
#[unsafe(no_mangle)]
static SITE_BITS: Global<u64> = Global::new(0);

/// The kernel has allocated an object, or could not.
#[inline(always)]
fn slab(ctx: &BtfTracePointContext) {
    let site = ctx.arg(0);
    if learn::on() {
        learn::observe(ObservationKind::Slab, site);
    } else if let Some(mark) = mark_of(site) {
        // VERIFIER: up to 6.12 a program may not load an argument that points to `const void`.
        let object = ctx.as_ptr().wrapping_byte_add(size_of::<u64>()).cast::<u64>();
        // SAFETY: the helper checks the address; the arguments are words.
        let object = unsafe { bpf_probe_read_kernel(object) };
        marks::allocated(mark, object != Ok(0));
    }
}

/// `kmem_cache_alloc(unsigned long call_site, const void *ptr, ...)`. It fires after an object was
/// allocated, or could not be.
#[btf_tracepoint(function = "kmem_cache_alloc")]
pub(crate) fn kmem_cache_alloc(ctx: BtfTracePointContext) -> i32 {
    slab(&ctx);
    0
}

/// `kmem_cache_alloc_node(unsigned long call_site, const void *ptr, ...)`. Before 6.1 it fires for
/// a `task_struct`.
#[btf_tracepoint(function = "kmem_cache_alloc_node")]
pub(crate) fn kmem_cache_alloc_node(ctx: BtfTracePointContext) -> i32 {
    slab(&ctx);
    0
}

/// Frames of the kernel's stack that are looked at for a call site. From the tracepoint up to
/// `copy_process` there are some fifteen.
const FRAMES: usize = 32;
/// Bytes of as many return addresses.
const FRAMES_BYTES: u32 = 32 * 8;
const _: () = assert!(FRAMES_BYTES as usize == size_of::<[u64; FRAMES]>());

/// The kernel begins to reclaim memory for the calling thread. For which of the allocations that have
/// a mark it does so, if for any, the return addresses on the stack tell: a call site is one.
#[inline(always)]
fn reclaim(ctx: &BtfTracePointContext) {
    if !marks::is_under_way() {
        return;
    }
    let mut frames = [0_u64; FRAMES];
    // SAFETY: the helper writes no more than the array has.
    let read = unsafe { bpf_get_stack(ctx.as_ptr(), frames.as_mut_ptr().cast(), FRAMES_BYTES, 0) };
    if read < 0 {
        return;
    }
    for site in &frames {
        if let Some(mark) = mark_of(*site) {
            marks::reclaim_begins(place_of(mark));
            return;
        }
    }
}

/// `mm_vmscan_memcg_reclaim_begin(int order, gfp_t gfp_flags)`: a control group has no memory left.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub(crate) fn mm_vmscan_memcg_reclaim_begin(ctx: BtfTracePointContext) -> i32 {
    reclaim(&ctx);
    0
}

/// `mm_vmscan_direct_reclaim_begin(int order, gfp_t gfp_flags)`: the host has no memory left.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub(crate) fn mm_vmscan_direct_reclaim_begin(ctx: BtfTracePointContext) -> i32 {
    reclaim(&ctx);
    0
}

/// The kernel sets up a timer.
#[inline(always)]
fn timer(mode: u64) {
    if learn::on() {
        learn::observe(ObservationKind::Timer, mode);
    } else if mode == MODE_REL_HARD {
        marks::sched_fork();
    }
}

/// `hrtimer_setup(struct hrtimer *hrtimer, clockid_t clockid, enum hrtimer_mode mode)`.
#[btf_tracepoint(function = "hrtimer_setup")]
pub(crate) fn hrtimer_setup(ctx: BtfTracePointContext) -> i32 {
    timer(u64::from(ctx.arg::<u32>(2)));
    0
}

/// `hrtimer_init`: the name of `hrtimer_setup` before 6.15 or so, with the same arguments.
#[btf_tracepoint(function = "hrtimer_init")]
pub(crate) fn hrtimer_init(ctx: BtfTracePointContext) -> i32 {
    timer(u64::from(ctx.arg::<u32>(2)));
    0
}

/// `mmap_lock_start_locking(struct mm_struct *mm, ...)`.
#[btf_tracepoint(function = "mmap_lock_start_locking")]
pub(crate) fn mmap_lock_start_locking(ctx: BtfTracePointContext) -> i32 {
    let mm: *const c_void = ctx.arg(0);
    if learn::on() {
        learn::observe(ObservationKind::MmapLock, u64::from(Task::current().has_mm(mm)));
    } else if Task::process_forks() {
        marks::mmap_lock(mm, Mark::MmapLockStart, Mark::MmAlloc);
    }
    0
}

/// `mmap_lock_acquire_returned(struct mm_struct *mm, ...)`.
#[btf_tracepoint(function = "mmap_lock_acquire_returned")]
pub(crate) fn mmap_lock_acquire_returned(ctx: BtfTracePointContext) -> i32 {
    if Task::process_forks() {
        marks::mmap_lock(ctx.arg(0), Mark::MmapLockTaken, Mark::MmapLockStart);
    }
    0
}

/// `mmap_lock_released(struct mm_struct *mm, ...)`.
#[btf_tracepoint(function = "mmap_lock_released")]
pub(crate) fn mmap_lock_released(ctx: BtfTracePointContext) -> i32 {
    if Task::process_forks() {
        marks::mmap_unlock(ctx.arg(0));
    }
    0
}

/// `x86_fpu_copy_dst(struct fpu *fpu)`. Only a fork does this.
#[btf_tracepoint(function = "x86_fpu_copy_dst")]
pub(crate) fn x86_fpu_copy_dst(_ctx: BtfTracePointContext) -> i32 {
    if learn::on() {
        learn::observe(ObservationKind::Fpu, 0);
    } else {
        marks::mark(Mark::FpuCopy);
    }
    0
}

/// `contention_begin(void *lock, unsigned int flags)`.
#[btf_tracepoint(function = "contention_begin")]
pub(crate) fn contention_begin(ctx: BtfTracePointContext) -> i32 {
    // KERNEL: include/trace/events/lock.h: LCB_F_SPIN | LCB_F_WRITE stands for a writer of a
    // rwlock_t.
    const SPINNING_WRITER: u32 = 1 | 1 << 2;
    if ctx.arg::<u32>(1) == SPINNING_WRITER {
        marks::lock_contended();
    }
    0
}

/// `contention_end(void *lock, int ret)`.
#[btf_tracepoint(function = "contention_end")]
pub(crate) fn contention_end(_ctx: BtfTracePointContext) -> i32 {
    marks::lock_taken();
    0
}
