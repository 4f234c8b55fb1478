//! The caller's address space as a fork began to copy it: its JSON type, and how it is made of a
//! record. Pure.

use fork_trace_common::{
    memory::{ANON, FILE, SHMEM, SWAP},
    record::{ForkRecord, bits},
    stage::Mark,
};
use serde::{Deserialize, Serialize};

/// Bytes of a page; the tool is for x86-64.
pub const PAGE_BYTES: u64 = 4096;

/// Sizes of the caller's address space when the call began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Mappings (`mm_struct.map_count`).
    pub vmas: u64,
    /// Pages of all mappings (`mm_struct.total_vm`).
    pub total_vm_pages: u64,
    /// Resident pages, of files, anonymous and shared memory together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_pages: Option<u64>,
    /// Resident anonymous pages: most of what a fork copies page table entries for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon_pages: Option<u64>,
    /// Pages in swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_pages: Option<u64>,
    /// Page tables (`mm_struct.pgtables_bytes`); absent where the kernel keeps no count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_table_bytes: Option<u64>,
    /// By how much `anon_pages` and `swap_pages` may be off, and `rss_pages` by three times as
    /// much, where CPUs or other threads hold counts back that could not be added up; absent:
    /// nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_error_pages: Option<u64>,
}

impl Memory {
    /// Of an attempt that came to copy its caller's memory.
    #[must_use]
    pub fn of(record: &ForkRecord) -> Option<Self> {
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
        Some(Self {
            vmas: sizes.vmas.into(),
            total_vm_pages: sizes.total_vm_pages,
            rss_pages: pages(&[FILE, ANON, SHMEM]),
            anon_pages: pages(&[ANON]),
            swap_pages: pages(&[SWAP]),
            page_table_bytes: Some(sizes.page_table_bytes).filter(|bytes| *bytes != u64::MAX),
            rss_error_pages: error.then(|| sizes.error_pages.into()),
        })
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
        let memory = Memory::of(&record()).unwrap();
        assert_eq!(memory.rss_pages, Some(40_210));
        assert_eq!((memory.anon_pages, memory.swap_pages), (Some(200), Some(3000)));
        assert_eq!((memory.page_table_bytes, memory.rss_error_pages), (Some(8192), None));
    }

    #[test]
    fn what_was_not_read_is_absent() {
        let mut unread = record();
        unread.bits &= !bits::RSS;
        unread.memory.error_pages = 64;
        unread.memory.page_table_bytes = u64::MAX;
        let memory = Memory::of(&unread).unwrap();
        assert_eq!((memory.rss_pages, memory.anon_pages, memory.swap_pages), (None, None, None));
        assert_eq!((memory.page_table_bytes, memory.rss_error_pages), (None, None));
        unread.bits |= bits::RSS;
        assert_eq!(Memory::of(&unread).unwrap().rss_error_pages, Some(64));
        unread.bits = bits::MEMORY;
        assert_eq!(Memory::of(&unread), None, "refused before anything was copied");
        unread.marks[Mark::MmAlloc as usize] = 5;
        assert!(Memory::of(&unread).is_some(), "failed while it copied");
    }
}
