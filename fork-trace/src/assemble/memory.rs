//! The caller's memory and what the child got of it, from the record of the attempt.

use fork_trace_common::{
    memory::{ANON, FILE, MemoryCounts, SHMEM, SWAP},
    record::{ForkRecord, bits},
    stage::Mark,
};

use crate::event::memory::Memory;

/// What is known of the caller's memory, of an attempt that came to copy it, and of the child's.
#[must_use]
pub fn memory(record: &ForkRecord) -> Memory {
    let copying = record.mark_ns(Mark::MmAlloc) != 0;
    let known = record.has(bits::MEMORY) && (copying || record.has(bits::CHILD));
    let sizes = |known: bool, counts, resident| known.then_some(Sizes { counts, resident });
    let caller = sizes(known, &record.memory, record.has(bits::RSS));
    let copied = sizes(record.has(bits::COPIED), &record.copied, record.has(bits::COPIED_RSS));
    Memory {
        vmas: caller.map(|of| of.counts.vmas.into()),
        total_vm_pages: caller.map(|of| of.counts.total_vm_pages),
        rss_pages: caller.and_then(|of| of.pages(&RESIDENT)),
        anon_pages: caller.and_then(|of| of.pages(&[ANON])),
        swap_pages: caller.and_then(|of| of.pages(&[SWAP])),
        page_table_bytes: caller.and_then(Sizes::page_table_bytes),
        rss_error_pages: caller.and_then(Sizes::error_pages),
        copied_vmas: copied.map(|of| of.counts.vmas.into()),
        copied_page_table_bytes: copied.and_then(Sizes::page_table_bytes),
        copied_rss_pages: copied.and_then(|of| of.pages(&RESIDENT)),
        copied_anon_pages: copied.and_then(|of| of.pages(&[ANON])),
        copied_swap_pages: copied.and_then(|of| of.pages(&[SWAP])),
        copied_rss_error_pages: copied.and_then(Sizes::error_pages),
    }
}

/// The kinds of resident pages.
const RESIDENT: [usize; 3] = [FILE, ANON, SHMEM];

/// The sizes of an address space, as far as they were read.
#[derive(Clone, Copy)]
struct Sizes<'a> {
    counts: &'a MemoryCounts,
    /// Whether the counts of pages were read.
    resident: bool,
}

impl Sizes<'_> {
    /// Pages of these kinds together.
    fn pages(self, kinds: &[usize]) -> Option<u64> {
        let known = kinds.iter().filter_map(|kind| self.counts.rss_pages.get(*kind));
        let sum: i64 = known.copied().fold(0, i64::saturating_add);
        self.resident.then(|| u64::try_from(sum).unwrap_or(0))
    }

    /// Bytes of page tables, where the kernel counts them.
    fn page_table_bytes(self) -> Option<u64> {
        Some(self.counts.page_table_bytes).filter(|bytes| *bytes != u64::MAX)
    }

    /// By how much the counts of pages may be off, if at all.
    fn error_pages(self) -> Option<u64> {
        let error = self.resident && self.counts.error_pages > 0;
        error.then(|| self.counts.error_pages.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ForkRecord {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::MEMORY | bits::RSS | bits::CHILD;
        record.memory.rss_pages = [10, 200, 3000, 40_000];
        record.memory.vmas = 7;
        record.memory.total_vm_pages = 99_999;
        record.memory.page_table_bytes = 8192;
        record
    }

    #[test]
    fn resident_is_all_but_swap() {
        let found = memory(&record());
        assert_eq!(found.rss_pages, Some(40_210));
        assert_eq!((found.anon_pages, found.swap_pages), (Some(200), Some(3000)));
        assert_eq!((found.page_table_bytes, found.rss_error_pages), (Some(8192), None));
    }

    #[test]
    fn what_was_not_read_is_absent() {
        let mut unread = record();
        unread.bits &= !bits::RSS;
        unread.memory.error_pages = 64;
        unread.memory.page_table_bytes = u64::MAX;
        let found = memory(&unread);
        assert_eq!((found.rss_pages, found.anon_pages, found.swap_pages), (None, None, None));
        assert_eq!((found.page_table_bytes, found.rss_error_pages), (None, None));
        unread.bits |= bits::RSS;
        assert_eq!(memory(&unread).rss_error_pages, Some(64));
        unread.bits = bits::MEMORY;
        assert!(memory(&unread).is_unknown(), "refused before anything was copied");
        unread.marks[Mark::MmAlloc.place()] = 5;
        assert!(memory(&unread).vmas.is_some(), "failed while it copied");
    }
}
