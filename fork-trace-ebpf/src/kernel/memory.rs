//! The size of a task's address space.

use aya_ebpf::Global;
use fork_trace_common::{
    memory::{MOST_CPUS, MemoryCounts, RSS},
    settings::ABSENT,
};

use super::{
    offsets::{
        MM_MAP_COUNT, MM_PGTABLES_BYTES, MM_RSS_COUNT, MM_RSS_STAT, MM_TOTAL_VM,
        PERCPU_COUNTER_COUNT, PERCPU_COUNTER_COUNTERS, PERCPU_COUNTER_SIZE, TASK_MM,
        TASK_RSS_COUNT, TASK_RSS_STAT, inside,
    },
    pointer::{Ptr, field},
    task::Task,
};

/// The address of the kernel's array of per-CPU offsets (`__per_cpu_offset`); 0 if it is not known.
#[unsafe(no_mangle)]
static PER_CPU_OFFSETS: Global<u64> = Global::new(0);
/// How many CPUs the host may have.
#[unsafe(no_mangle)]
static CPUS: Global<u32> = Global::new(0);

impl Task {
    /// Fills `memory` with the sizes of the task's address space. Returns whether resident pages
    /// were read too, and `None` if nothing was.
    #[inline(always)]
    pub(crate) fn memory(self, threads: u32, memory: &mut MemoryCounts) -> Option<bool> {
        let mm = self.0.follow(TASK_MM.load())?;
        memory.total_vm_pages = field!(mm, MM_TOTAL_VM: u64)?;
        memory.vmas = field!(mm, MM_MAP_COUNT: u32)?;
        memory.page_table_bytes = field!(mm, MM_PGTABLES_BYTES: u64).unwrap_or(u64::MAX);
        let read = if MM_RSS_COUNT.load() == ABSENT {
            per_cpu(mm, memory)
        } else {
            plain(mm, self.0, threads, memory)
        };
        Some(read.is_some())
    }
}

/// The places of the counters in `rss_stat`.
const KINDS: core::ops::Range<u32> = 0..4;
const _: () = assert!(RSS == 4);

/// Reads resident pages as kernels before 6.2 keep them: one counter for each kind, to which every
/// thread adds only now and then. Until then it keeps up to 64 pages in counters of its own, and
/// those of other threads are the error.
///
/// KERNEL: mm/memory.c `sync_mm_rss`, `TASK_RSS_EVENTS_THRESH`.
#[inline(always)]
fn plain(mm: Ptr, task: Ptr, threads: u32, memory: &mut MemoryCounts) -> Option<()> {
    const KEPT_PAGES: u32 = 64;
    // VERIFIER: these are read by a helper, because 6.1 knows no pointer into an array of
    // `atomic_long_t`.
    for (kind, pages) in KINDS.zip(&mut memory.rss_pages) {
        let shared = inside(MM_RSS_STAT.load(), MM_RSS_COUNT.load() + kind * 8);
        let shared = mm.read_by_helper::<i64>(shared)?;
        let own = inside(TASK_RSS_STAT.load(), TASK_RSS_COUNT.load() + kind * 4);
        let own = if own == ABSENT { None } else { task.read_by_helper::<i32>(own) };
        *pages = shared + i64::from(own.unwrap_or_default());
        if own.is_none() {
            memory.error_pages = KEPT_PAGES;
        }
    }
    memory.error_pages += threads.saturating_sub(1).saturating_mul(KEPT_PAGES);
    Some(())
}

/// Reads resident pages as kernels from 6.2 on keep them: one counter for each kind, and for every
/// CPU a part that it has not yet added to the counter. If the parts cannot be added up, they are
/// the error.
///
/// KERNEL: `lib/percpu_counter.c` `__percpu_counter_sum`. A CPU adds its part once that reaches
/// `percpu_counter_batch`. From 6.6 on the parts of all four counters lie side by side.
#[inline(always)]
fn per_cpu(mm: Ptr, memory: &mut MemoryCounts) -> Option<()> {
    let size = PERCPU_COUNTER_SIZE.load();
    let count = inside(MM_RSS_STAT.load(), PERCPU_COUNTER_COUNT.load());
    for (kind, pages) in KINDS.zip(&mut memory.rss_pages) {
        *pages = mm.read::<i64>(count + kind * size)?;
    }
    let parts = inside(MM_RSS_STAT.load(), PERCPU_COUNTER_COUNTERS.load());
    let first = mm.read::<u64>(parts)?;
    let last = mm.read::<u64>(parts + (KINDS.end - 1) * size)?;
    let cpus = CPUS.load();
    let together = last.wrapping_sub(first) == (RSS as u64 - 1) * 4;
    if PER_CPU_OFFSETS.load() == 0 || cpus > MOST_CPUS || !together {
        let batch = if cpus > 16 { cpus * 2 } else { 32 };
        memory.error_pages = cpus * batch;
        return Some(());
    }
    for cpu in 0..MOST_CPUS {
        if cpu >= cpus {
            break;
        }
        let area = Ptr::at(PER_CPU_OFFSETS.load() + u64::from(cpu) * 8).read_by_helper::<u64>(0)?;
        let parts = Ptr::at(first.wrapping_add(area)).read_by_helper::<[i32; RSS]>(0)?;
        for (sum, part) in memory.rss_pages.iter_mut().zip(parts) {
            *sum += i64::from(part);
        }
    }
    Some(())
}
