//! The size of the caller's address space when a fork begins to copy it, as the bytes in a record.

/// The sizes of an address space, in the kernel's own units. They were read if the record says so.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct MemoryCounts {
    /// All mappings together, in pages (`mm_struct.total_vm`).
    pub total_vm_pages: u64,
    /// Resident and swapped pages (`mm_struct.rss_stat`), in the places [`FILE`] to [`SHMEM`]. A
    /// number may be below 0, because it is a sum of counters that change while it is made.
    pub rss_pages: [i64; RSS],
    /// Page tables, in bytes (`mm_struct.pgtables_bytes`); `u64::MAX` where the kernel keeps no
    /// count.
    pub page_table_bytes: u64,
    /// How many mappings there are (`mm_struct.map_count`).
    pub vmas: u32,
    /// By how many pages each of `rss_pages` may be off, because of counts that were not added up.
    pub error_pages: u32,
}

/// How many counters of resident and swapped pages there are.
///
/// KERNEL: `include/linux/mm_types_task.h`, the same order in every release since 5.10.
pub const RSS: usize = 4;
/// The place of resident pages of files.
pub const FILE: usize = 0;
/// The place of resident anonymous pages.
pub const ANON: usize = 1;
/// The place of swapped pages.
pub const SWAP: usize = 2;
/// The place of resident pages of shared memory.
pub const SHMEM: usize = 3;

/// On a host with up to this many CPUs, the counts that each CPU keeps are added up, which takes
/// some 60 ns for each.
pub const MOST_CPUS: u32 = 64;

impl MemoryCounts {
    /// A value with every byte zero.
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
