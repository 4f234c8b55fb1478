//! The caller's address space as a fork began to copy it.

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
