//! The size of a task's address space.

use aya_ebpf::Global;
use fork_trace_common::memory::{MOST_CPUS, MemoryCounts, RSS};

use super::{
    ABSENT, MM_MAP_COUNT, MM_PGTABLES_BYTES, MM_RSS_COUNT, MM_RSS_STAT, MM_TOTAL_VM,
    PERCPU_COUNTER_COUNT, PERCPU_COUNTER_COUNTERS, PERCPU_COUNTER_SIZE, Ptr, TASK_MM,
    TASK_RSS_COUNT, TASK_RSS_STAT, Task,
};

/// Address of the kernel's array of per-CPU offsets; 0: not known.
#[unsafe(no_mangle)]
static PER_CPU_OFFSETS: Global<u64> = Global::new(0);
/// How many CPUs there may be.
#[unsafe(no_mangle)]
static CPUS: Global<u32> = Global::new(0);

impl Task {
    /// Fills `memory` with the sizes of the task's address space; returns whether they were read,
    /// and whether resident pages were.
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

/// Each place in `rss_stat`.
const KINDS: core::ops::Range<u32> = 0..4;
const _: () = assert!(RSS == 4);

/// Before 6.2: one counter each; every thread keeps up to 64 pages for itself.
///
/// KERNEL: mm/memory.c `sync_mm_rss`, `TASK_RSS_EVENTS_THRESH`.
#[inline(always)]
fn plain(mm: Ptr, task: Ptr, threads: u32, memory: &mut MemoryCounts) -> Option<()> {
    const KEPT_PAGES: u32 = 64;
    // VERIFIER: by helper: 6.1 knows no pointer into an array of `atomic_long_t`.
    for (kind, pages) in KINDS.zip(&mut memory.rss_pages) {
        let shared = offset(MM_RSS_STAT.load(), MM_RSS_COUNT.load() + kind * 8);
        let shared = mm.read_by_helper::<i64>(shared)?;
        let own = offset(TASK_RSS_STAT.load(), TASK_RSS_COUNT.load() + kind * 4);
        let own = if own == ABSENT { None } else { task.read_by_helper::<i32>(own) };
        *pages = shared + i64::from(own.unwrap_or_default());
        if own.is_none() {
            memory.error_pages = KEPT_PAGES;
        }
    }
    memory.error_pages += threads.saturating_sub(1).saturating_mul(KEPT_PAGES);
    Some(())
}

/// From 6.2 on: a counter each, and for every CPU what it has not yet added to it.
///
/// KERNEL: `lib/percpu_counter.c` `__percpu_counter_sum`; a CPU adds its part once that reaches
/// `percpu_counter_batch`. From 6.6 on the parts of all four lie side by side.
#[inline(always)]
fn per_cpu(mm: Ptr, memory: &mut MemoryCounts) -> Option<()> {
    let size = PERCPU_COUNTER_SIZE.load();
    let count = offset(MM_RSS_STAT.load(), PERCPU_COUNTER_COUNT.load());
    for (kind, pages) in KINDS.zip(&mut memory.rss_pages) {
        *pages = mm.read::<i64>(count + kind * size)?;
    }
    let parts = offset(MM_RSS_STAT.load(), PERCPU_COUNTER_COUNTERS.load());
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

/// An offset within a field; absent where the field is.
#[inline(always)]
fn offset(field: u32, within: u32) -> u32 {
    if field == ABSENT { ABSENT } else { field + within }
}
