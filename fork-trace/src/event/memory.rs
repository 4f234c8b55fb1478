//! The caller's address space as a fork began to copy it, and what the child got of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a page; the tool does not run where pages are larger.
pub const PAGE_BYTES: u64 = 4096;

/// Sizes of the caller's address space when the call began; and, in the fields that begin with `copied`, of
/// what was built for the child: its memory when it had just been made, before it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Mappings (`mm_struct.map_count`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmas: Option<u64>,
    /// Pages of all mappings (`mm_struct.total_vm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_vm_pages: Option<u64>,
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
    /// Mappings copied (`mm_struct.map_count` of the child).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_vmas: Option<u64>,
    /// Page tables built (`mm_struct.pgtables_bytes` of the child).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_page_table_bytes: Option<u64>,
    /// Resident pages whose page table entries were copied (`mm_struct.rss_stat` of the child: files,
    /// anonymous and shared memory). The pages of a mapping without private pages are not among
    /// them: the child finds those by page faults of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_rss_pages: Option<u64>,
    /// Of these, the anonymous ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_anon_pages: Option<u64>,
    /// Pages in swap whose entries were copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_swap_pages: Option<u64>,
    /// By how much `copied_anon_pages` and `copied_swap_pages` may be off, and `copied_rss_pages` by
    /// three times as much, where CPUs hold counts back that could not be added up; absent: nothing
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_rss_error_pages: Option<u64>,
}

impl Memory {
    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}
