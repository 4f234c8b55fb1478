//! The caller's memory, from its record.

use fork_trace_common::{
    memory::{ANON, FILE, SHMEM, SWAP},
    record::{ForkRecord, bits},
    stage::Mark,
};

use crate::event::memory::Memory;

/// The caller's memory, for an attempt that came to copy it.
#[must_use]
pub fn memory(record: &ForkRecord) -> Option<Memory> {
    let copying = record.marks.get(Mark::MmAlloc as usize).is_some_and(|at| *at != 0);
    if !record.has(bits::MEMORY) || !(copying || record.has(bits::CHILD)) {
        return None;
    }
    let sizes = &record.memory;
    let pages = |kinds: &[usize]| {
        let known = kinds.iter().filter_map(|kind| sizes.rss_pages.get(*kind));
        let sum: i64 = known.copied().fold(0, i64::saturating_add);
        record.has(bits::RSS).then(|| u64::try_from(sum).unwrap_or(0))
    };
    let error = record.has(bits::RSS) && sizes.error_pages > 0;
    Some(Memory {
        vmas: sizes.vmas.into(),
        total_vm_pages: sizes.total_vm_pages,
        rss_pages: pages(&[FILE, ANON, SHMEM]),
        anon_pages: pages(&[ANON]),
        swap_pages: pages(&[SWAP]),
        page_table_bytes: Some(sizes.page_table_bytes).filter(|bytes| *bytes != u64::MAX),
        rss_error_pages: error.then(|| sizes.error_pages.into()),
    })
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
        let found = memory(&record()).unwrap();
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
        let found = memory(&unread).unwrap();
        assert_eq!((found.rss_pages, found.anon_pages, found.swap_pages), (None, None, None));
        assert_eq!((found.page_table_bytes, found.rss_error_pages), (None, None));
        unread.bits |= bits::RSS;
        assert_eq!(memory(&unread).unwrap().rss_error_pages, Some(64));
        unread.bits = bits::MEMORY;
        assert_eq!(memory(&unread), None, "refused before anything was copied");
        unread.marks[Mark::MmAlloc as usize] = 5;
        assert!(memory(&unread).is_some(), "failed while it copied");
    }
}
