//! The memory bill in words: what there was to copy, how much of it was copied and why not the rest,
//! what the copying cost, and what drove its time.

use fork_trace_common::stage::Stage;

use crate::event::{
    fork::Fork,
    memory::{Memory, PAGE_BYTES},
    span::Span,
    units::{count, duration, size},
};

const GIB: u64 = 1 << 30;

/// Below this size a price per GiB says more of the fixed costs than of the memory, and what was not
/// copied does not matter.
pub(crate) const LEAST_BYTES: u64 = 64 << 20;

/// What mostly drives the time of a large process.
const PAGES: &str = "pages";

/// The bill of a fork, if its memory is known:
/// `copy_mm 81 ms, 24.1 GiB resident, 1,234 mappings, 48 MiB page tables, 3.3 ms/GiB, mostly for its
/// pages`.
pub(crate) fn words(fork: &Fork) -> Option<String> {
    let memory = &fork.memory;
    let mappings = memory.vmas?;
    let mut words = Vec::new();
    words.extend(time(&fork.stages));
    let about = if memory.rss_error_pages.is_some() { "~" } else { "" };
    let resident = known(memory.rss_pages, memory.rss_error_pages);
    words.extend(resident.map(|pages| format!("{about}{} resident", size(bytes(pages)))));
    words.extend(part(memory, fork.parent.threads));
    let swap = memory.swap_pages.filter(|pages| *pages > 0);
    words.extend(swap.map(|pages| format!("{about}{} in swap", size(bytes(pages)))));
    words.push(format!("{} mappings", count(mappings)));
    words.extend(memory.page_table_bytes.map(|bytes| format!("{} page tables", size(bytes))));
    let ns = copying_ns(&fork.stages).filter(|_| memory.copied_vmas.is_some());
    let driver = ns.and_then(|ns| driver(ns, memory, &fork.stages));
    // Where mappings or page tables drove it, a price of pages would be of something else.
    let of_pages = ns.filter(|_| driver.is_none_or(|driver| driver == PAGES));
    words.extend(of_pages.and_then(|ns| price(ns, memory)));
    words.extend(driver.map(|driver| format!("mostly for its {driver}")));
    Some(words.join(", "))
}

/// Resident pages, if the count says anything: it is more than what it may be off.
pub(crate) fn known(rss_pages: Option<u64>, rss_error_pages: Option<u64>) -> Option<u64> {
    let error = rss_error_pages.unwrap_or(0).saturating_mul(3);
    rss_pages.filter(|pages| *pages > error)
}

fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_BYTES)
}

/// How long a stage worked: without its time off the CPU.
fn dur_ns(stages: &[Span], stage: Stage) -> Option<u64> {
    let is = |span: &&Span| !span.is_sampled() && span.name == stage.row().name;
    let span = stages.iter().find(is)?;
    span.dur_ns?.checked_sub(span.off_cpu_ns.unwrap_or_default())
}

/// How long making the address space took, and how much of that was no copying.
fn time(stages: &[Span]) -> Option<String> {
    let whole_ns = dur_ns(stages, Stage::CopyMm)?;
    let lock_ns = dur_ns(stages, Stage::MmapWriteLock)
        .filter(|lock_ns| lock_ns.saturating_mul(20) >= whole_ns);
    let lock = lock_ns.map(|ns| format!(" ({} of it for mmap_lock)", duration(ns)));
    Some(format!("copy_mm {}{}", duration(whole_ns), lock.unwrap_or_default()))
}

/// How long the copying itself took: without the wait for the caller's `mmap_lock`.
fn copying_ns(stages: &[Span]) -> Option<u64> {
    let copying = dur_ns(stages, Stage::DupMmap).or_else(|| dur_ns(stages, Stage::CopyMm))?;
    Some(copying.saturating_sub(dur_ns(stages, Stage::MmapWriteLock).unwrap_or(0)))
}

/// How much of what was resident was copied, where that is not nearly all, and why not the rest.
///
/// KERNEL: mm/memory.c `vma_needs_copy`: a mapping without `anon_vma`, which is one that is shared or
/// that was never written to, is not copied. mm/mmap.c `dup_mmap`: one with `VM_DONTCOPY`
/// (`MADV_DONTFORK`) is left out, and of one with `VM_WIPEONFORK` the child gets none of the pages.
/// Each mapping with anonymous pages has an `anon_vma`.
fn part(memory: &Memory, threads: Option<u32>) -> Option<String> {
    let (resident, anon) = (memory.rss_pages?, memory.anon_pages?);
    let (copied_pages, copied_anon) = (memory.copied_rss_pages?, memory.copied_anon_pages?);
    let errors = [memory.rss_error_pages, memory.copied_rss_error_pages];
    let error =
        errors.iter().flatten().fold(0_u64, |sum, one| sum.saturating_add(*one)).saturating_mul(3);
    let rest = resident.checked_sub(copied_pages)?;
    // A twentieth is not worth a word, and the counts have to tell the difference.
    if bytes(resident) < LEAST_BYTES || rest.saturating_mul(20) < resident || rest <= error {
        return None;
    }
    let left_anon = anon.saturating_sub(copied_anon);
    let left_shared = rest.saturating_sub(left_anon);
    let counts = |pages: u64| pages > error && pages.saturating_mul(10) >= rest;
    let mut reasons = Vec::new();
    if counts(left_shared) {
        reasons.push("shared");
    }
    // Another thread may have freed it meanwhile.
    if counts(left_anon) && threads == Some(1) {
        let left_out = memory.copied_vmas < memory.vmas;
        reasons.push(if left_out { "MADV_DONTFORK" } else { "MADV_WIPEONFORK" });
    }
    let nearly_none = copied_pages.saturating_mul(100) < resident;
    let how_much = if nearly_none { "nothing".to_owned() } else { size(bytes(copied_pages)) };
    let reasons = match reasons.join(" and ") {
        reasons if reasons.is_empty() => reasons,
        reasons if nearly_none => format!(": {reasons}"),
        reasons => format!(" (the rest: {reasons})"),
    };
    Some(format!("{how_much} of it copied{reasons}"))
}

/// The pages whose entries were copied, in memory and in swap.
fn copied_pages(memory: &Memory) -> Option<u64> {
    Some(memory.copied_rss_pages?.saturating_add(memory.copied_swap_pages?))
}

/// The price of a GiB that was copied.
fn price(ns: u64, memory: &Memory) -> Option<String> {
    let copied = bytes(copied_pages(memory)?);
    if copied < LEAST_BYTES {
        return None;
    }
    Some(per_gib(ns, copied))
}

/// What a GiB costs, where so many bytes took so long: `3.3 ms/GiB`.
pub(crate) fn per_gib(ns: u64, bytes: u64) -> String {
    let per_gib = u128::from(ns) * u128::from(GIB) / u128::from(bytes.max(1));
    format!("{}/GiB", duration(u64::try_from(per_gib).unwrap_or(u64::MAX)))
}

/// What drove the time of copying, where figures show it: `pages`, `mappings` or `page tables`.
///
/// A page costs an entry of a page table, some nanoseconds; a page table a page of the kernel's own,
/// and a mapping a few objects, both a microsecond or so. So one of them drove the time for certain
/// only where it is many times as frequent as the others. With transparent huge pages one entry
/// stands for 512 pages: where a page took less than `LEAST_PAGE_NS`, pages were not copied one by
/// one, and nothing is said.
fn driver(ns: u64, memory: &Memory, stages: &[Span]) -> Option<&'static str> {
    /// A copy of a page table's entry takes longer than this.
    const LEAST_PAGE_NS: u64 = 4;
    /// Fewer mappings and page tables than this are what every process has.
    const LEAST: u64 = 1_000;
    let of_mappings = [Stage::VmAreaDup, Stage::AnonVmaFork].map(|stage| dur_ns(stages, stage));
    let measured = of_mappings.iter().flatten().fold(0_u64, |sum, ns| sum.saturating_add(*ns));
    if measured.saturating_mul(2) > ns {
        return Some("mappings");
    }
    let pages = copied_pages(memory)?;
    let (mappings, tables) = (memory.copied_vmas?, memory.copied_page_table_bytes? / PAGE_BYTES);
    if mappings >= LEAST && mappings >= tables && mappings.saturating_mul(2) >= pages {
        return Some("mappings");
    }
    if tables >= LEAST && tables >= mappings.saturating_mul(4) && tables.saturating_mul(8) >= pages
    {
        return Some("page tables");
    }
    let dense = pages >= tables.saturating_mul(128) && pages >= mappings.saturating_mul(1_000);
    let one_by_one = ns >= pages.saturating_mul(LEAST_PAGE_NS);
    (dense && one_by_one && bytes(pages) >= LEAST_BYTES).then_some(PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        span::{Precision, Status},
        values::Name,
    };

    const GIB_PAGES: u64 = 1 << 18;

    fn span(stage: Stage, dur_ns: u64) -> Span {
        Span {
            name: Name::Borrowed(stage.row().name),
            start_ns: Some(0),
            dur_ns: Some(dur_ns),
            self_ns: Some(0),
            off_cpu_ns: None,
            runs: None,
            status: Status::Done,
            precision: Precision::Bounded,
            source: None,
            as_covered: false,
            until: None,
            includes_undo: None,
            tracer_ns: None,
            samples: None,
            of: None,
        }
    }

    /// A fork of 24 GiB of private memory, all of it copied.
    fn fork() -> Fork {
        let json = r#"{"id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1,
            "parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0,"threads":1},
            "memory":{"vmas":1234,"total_vm_pages":7000000,"rss_pages":6291456,
                "anon_pages":6291456,"swap_pages":0,"page_table_bytes":50331648,
                "copied_vmas":1234,"copied_page_table_bytes":50331648,
                "copied_rss_pages":6291456,"copied_anon_pages":6291456,"copied_swap_pages":0}}"#;
        let fork: Fork = serde_json::from_str(json).unwrap();
        let stages = vec![span(Stage::CopyMm, 81_000_000), span(Stage::DupMmap, 80_000_000)];
        Fork { stages, ..fork }
    }

    fn change(of: impl FnOnce(&mut Memory)) -> String {
        let mut fork = fork();
        of(&mut fork.memory);
        words(&fork).unwrap()
    }

    #[test]
    fn a_bill_has_a_price_where_there_is_much() {
        assert_eq!(
            words(&fork()).unwrap(),
            "copy_mm 81.0 ms, 24.0 GiB resident, 1,234 mappings, 48.0 MiB page tables, \
             3.33 ms/GiB, mostly for its pages"
        );
        let small = change(|memory| {
            memory.rss_pages = Some(100);
            memory.rss_error_pages = Some(20);
            memory.page_table_bytes = None;
            memory.copied_rss_pages = Some(90);
            memory.copied_page_table_bytes = Some(8192);
        });
        let unread = change(|memory| {
            (memory.rss_pages, memory.rss_error_pages) = (Some(0), Some(64));
            memory.copied_rss_pages = Some(0);
        });
        assert!(!unread.contains("resident"), "nothing is known of it: {unread}");
        assert_eq!(
            small,
            "copy_mm 81.0 ms, ~400 KiB resident, 1,234 mappings, mostly for its mappings"
        );
    }

    #[test]
    fn time_for_the_lock_is_no_price_of_memory() {
        let mut fork = fork();
        fork.stages.push(span(Stage::MmapWriteLock, 40_000_000));
        let words = words(&fork).unwrap();
        assert!(words.starts_with("copy_mm 81.0 ms (40.0 ms of it for mmap_lock), "), "{words}");
        assert!(words.contains(", 1.67 ms/GiB"), "{words}");
    }

    #[test]
    fn what_is_not_copied_is_told_with_its_reason() {
        let none = |memory: &mut Memory| {
            (memory.copied_rss_pages, memory.copied_anon_pages) = (Some(20), Some(20));
            memory.copied_page_table_bytes = Some(40_960);
        };
        let shared = change(|memory| {
            none(memory);
            memory.anon_pages = Some(20);
        });
        assert!(shared.contains("24.0 GiB resident, nothing of it copied: shared, "), "{shared}");
        assert!(!shared.contains("/GiB"), "{shared}");
        let left_out = change(|memory| {
            none(memory);
            memory.copied_vmas = Some(1233);
        });
        assert!(left_out.contains(", nothing of it copied: MADV_DONTFORK, "), "{left_out}");
        let wiped = change(none);
        assert!(wiped.contains(", nothing of it copied: MADV_WIPEONFORK, "), "{wiped}");
        let half = change(|memory| {
            memory.anon_pages = Some(12 * GIB_PAGES);
            (memory.copied_rss_pages, memory.copied_anon_pages) =
                (memory.anon_pages, memory.anon_pages);
        });
        assert!(half.contains(", 12.0 GiB of it copied (the rest: shared), "), "{half}");
        assert!(half.contains(", 6.67 ms/GiB, "), "of what was copied: {half}");
        let mut threads = fork();
        threads.parent.threads = Some(2);
        none(&mut threads.memory);
        let threads = words(&threads).unwrap();
        assert!(threads.contains(", nothing of it copied, "), "it may be freed: {threads}");
        let unknown = change(|memory| {
            memory.rss_error_pages = Some(3 * 24 * GIB_PAGES);
            none(memory);
        });
        assert!(!unknown.contains("copied"), "the counts may be that wrong: {unknown}");
    }

    #[test]
    fn what_drove_the_time_is_what_there_is_most_of() {
        let driven = |pages: u64, mappings: u64, tables: u64, ns: u64| {
            let mut fork = fork();
            fork.stages = vec![span(Stage::CopyMm, ns)];
            let memory = &mut fork.memory;
            (memory.copied_rss_pages, memory.copied_vmas) = (Some(pages), Some(mappings));
            memory.copied_page_table_bytes = Some(tables * PAGE_BYTES);
            let words = words(&fork).unwrap();
            words.split_once("mostly for its ").map(|(_, driver)| driver.to_owned())
        };
        assert_eq!(driven(262_146, 23, 522, 105_000_000).as_deref(), Some("pages"));
        assert_eq!(driven(30_016, 30_020, 68, 95_000_000).as_deref(), Some("mappings"));
        assert_eq!(driven(0, 30_022, 10, 27_000_000).as_deref(), Some("mappings"));
        assert_eq!(driven(8_192, 23, 8_218, 45_000_000).as_deref(), Some("page tables"));
        assert_eq!(driven(262_146, 24, 523, 500_000), None, "huge pages, perhaps");
        assert_eq!(driven(300_000, 3_000, 5_000, 9_000_000), None, "some of each");
        assert_eq!(driven(60, 23, 10, 90_000), None, "a small process");
    }
}
