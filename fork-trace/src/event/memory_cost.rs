//! The memory bill in words: what there was to copy, and what a GiB of it cost.

use fork_trace_common::stage::Stage;

use crate::event::{
    memory::{Memory, PAGE_BYTES},
    span::Span,
    units::{count, duration, size},
};

const GIB: u64 = 1 << 30;

/// Below this size a price per GiB says more of the fixed costs than of the memory.
const LEAST_BYTES: u64 = 64 << 20;

/// A GiB copied in less than this was not copied page by page: 262,144 entries of a page table take
/// longer, 512 of huge pages do not.
const HUGE_NS: u64 = 300_000;

/// How long copying the address space took, if that was seen.
pub(crate) fn copy_ns(stages: &[Span]) -> Option<u64> {
    let span = stages.iter().find(|span| span.name == Stage::CopyMm.row().name)?;
    span.dur_ns
}

/// `copy_mm 81 ms, 24.1 GiB resident, 48 MiB page tables, 3.3 ms/GiB`.
pub(crate) fn words(memory: &Memory, copy_ns: Option<u64>) -> String {
    let mut words = Vec::new();
    let about = if memory.rss_error_pages.is_some() { "~" } else { "" };
    words.extend(copy_ns.map(|ns| format!("copy_mm {}", duration(ns))));
    let bytes = memory.rss_pages.map(|pages| pages.saturating_mul(PAGE_BYTES));
    words.extend(bytes.map(|bytes| format!("{about}{} resident", size(bytes))));
    let swap = memory.swap_pages.filter(|pages| *pages > 0);
    words.extend(swap.map(|pages| format!("{about}{} in swap", size(pages * PAGE_BYTES))));
    words.push(format!("{} mappings", count(memory.vmas)));
    words.extend(memory.page_table_bytes.map(|bytes| format!("{} page tables", size(bytes))));
    let big = bytes.filter(|bytes| *bytes >= LEAST_BYTES);
    if let (Some(ns), Some(bytes)) = (copy_ns, big) {
        let per_gib = u128::from(ns) * u128::from(GIB) / u128::from(bytes);
        let per_gib = u64::try_from(per_gib).unwrap_or(u64::MAX);
        let huge = if per_gib < HUGE_NS { ", as with transparent huge pages" } else { "" };
        words.push(format!("{}/GiB{huge}", duration(per_gib)));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_has_a_price_where_there_is_much() {
        let mut memory = Memory {
            vmas: 1234,
            total_vm_pages: 7_000_000,
            rss_pages: Some(24 << 18),
            anon_pages: Some(24 << 18),
            swap_pages: Some(0),
            page_table_bytes: Some(48 << 20),
            rss_error_pages: None,
        };
        assert_eq!(
            words(&memory, Some(81_000_000)),
            "copy_mm 81.0 ms, 24.0 GiB resident, 1,234 mappings, 48.0 MiB page tables, 3.38 ms/GiB"
        );
        memory.swap_pages = Some(256);
        memory.rss_error_pages = Some(64);
        assert_eq!(
            words(&memory, Some(1_200_000)),
            "copy_mm 1.20 ms, ~24.0 GiB resident, ~1.00 MiB in swap, 1,234 mappings, \
             48.0 MiB page tables, 50.0 us/GiB, as with transparent huge pages"
        );
        memory.rss_pages = Some(100);
        memory.page_table_bytes = None;
        memory.swap_pages = None;
        assert_eq!(words(&memory, None), "~400 KiB resident, 1,234 mappings");
    }
}
