//! The caller's memory and what the child got of it, from the record of the attempt.

use fork_trace_common::{
    memory::{ANON, FILE, MemoryCounts, SHMEM, SWAP},
    record::{ForkRecord, bits},
    stage::Mark,
};

use crate::event::memory::{AddressSpace, Copied, Memory};

/// What is known of both.
#[must_use]
pub fn memory(record: &ForkRecord) -> Memory {
    Memory { caller: caller(record), copied: copied(record) }
}

/// The caller's memory, for an attempt that came to copy it.
fn caller(record: &ForkRecord) -> Option<AddressSpace> {
    let copying = record.marks.get(Mark::MmAlloc as usize).is_some_and(|at| *at != 0);
    if !record.has(bits::MEMORY) || !(copying || record.has(bits::CHILD)) {
        return None;
    }
    let counts = &record.memory;
    let sizes = Sizes { counts, resident: record.has(bits::RSS) };
    Some(AddressSpace {
        vmas: counts.vmas.into(),
        total_vm_pages: counts.total_vm_pages,
        rss_pages: sizes.pages(&RESIDENT),
        anon_pages: sizes.pages(&[ANON]),
        swap_pages: sizes.pages(&[SWAP]),
        page_table_bytes: sizes.page_table_bytes(),
        rss_error_pages: sizes.error_pages(),
    })
}

/// What was built for the child.
fn copied(record: &ForkRecord) -> Option<Copied> {
    let counts = &record.copied;
    let sizes = Sizes { counts, resident: record.has(bits::COPIED_RSS) };
    record.has(bits::COPIED).then(|| Copied {
        vmas: counts.vmas.into(),
        page_table_bytes: sizes.page_table_bytes(),
        rss_pages: sizes.pages(&RESIDENT),
        anon_pages: sizes.pages(&[ANON]),
        swap_pages: sizes.pages(&[SWAP]),
        rss_error_pages: sizes.error_pages(),
    })
}

/// The kinds of resident pages.
const RESIDENT: [usize; 3] = [FILE, ANON, SHMEM];

/// The sizes of an address space, as far as they were read.
struct Sizes<'a> {
    counts: &'a MemoryCounts,
    /// Whether the counts of pages were read.
    resident: bool,
}

impl Sizes<'_> {
    /// Pages of these kinds together.
    fn pages(&self, kinds: &[usize]) -> Option<u64> {
        let known = kinds.iter().filter_map(|kind| self.counts.rss_pages.get(*kind));
        let sum: i64 = known.copied().fold(0, i64::saturating_add);
        self.resident.then(|| u64::try_from(sum).unwrap_or(0))
    }

    /// Bytes of page tables, where the kernel counts them.
    fn page_table_bytes(&self) -> Option<u64> {
        Some(self.counts.page_table_bytes).filter(|bytes| *bytes != u64::MAX)
    }

    /// By how much the counts of pages may be off, if at all.
    fn error_pages(&self) -> Option<u64> {
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
        let found = caller(&record()).unwrap();
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
        let found = caller(&unread).unwrap();
        assert_eq!((found.rss_pages, found.anon_pages, found.swap_pages), (None, None, None));
        assert_eq!((found.page_table_bytes, found.rss_error_pages), (None, None));
        unread.bits |= bits::RSS;
        assert_eq!(caller(&unread).unwrap().rss_error_pages, Some(64));
        unread.bits = bits::MEMORY;
        assert_eq!(caller(&unread), None, "refused before anything was copied");
        unread.marks[Mark::MmAlloc as usize] = 5;
        assert!(caller(&unread).is_some(), "failed while it copied");
    }
}
