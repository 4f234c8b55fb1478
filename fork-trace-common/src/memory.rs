//! The caller's address space as a fork begins to copy it: the bytes of a record's memory part.

/// Sizes of an address space, in the kernel's own units. Filled where the record says so.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct MemoryCounts {
    /// `mm_struct.total_vm`.
    pub total_vm_pages: u64,
    /// `mm_struct.rss_stat`, by [`FILE`] to [`SHMEM`]. Sums of counters that change meanwhile may
    /// fall below 0.
    pub rss_pages: [i64; RSS],
    /// `mm_struct.pgtables_bytes`; `u64::MAX` where the kernel keeps no count.
    pub page_table_bytes: u64,
    /// `mm_struct.map_count`.
    pub vmas: u32,
    /// By how much each of `rss_pages` may be off: counts that were not added up.
    pub error_pages: u32,
}

/// Counters of resident and swapped pages.
/// KERNEL: `include/linux/mm_types_task.h`, the same order in every release since 5.10.
pub const RSS: usize = 4;
/// Resident pages of files.
pub const FILE: usize = 0;
/// Resident anonymous pages.
pub const ANON: usize = 1;
/// Swapped pages.
pub const SWAP: usize = 2;
/// Resident shared memory.
pub const SHMEM: usize = 3;

/// Most CPUs whose own counts are added up; some 60 ns each.
pub const MOST_CPUS: u32 = 64;

impl MemoryCounts {
    /// Every byte zero.
    #[must_use]
    #[inline(always)]
    pub const fn zeroed() -> Self {
        Self {
            total_vm_pages: 0,
            rss_pages: [0; RSS],
            page_table_bytes: 0,
            vmas: 0,
            error_pages: 0,
        }
    }
}

const _: () = assert!(size_of::<MemoryCounts>() == 56);
