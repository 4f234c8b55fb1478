//! The caller's address space as a fork began to copy it, and what the child got of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a page; the tool is for x86-64.
pub const PAGE_BYTES: u64 = 4096;

/// Sizes of the caller's address space when the call began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// Mappings (`mm_struct.map_count`).
    pub vmas: u64,
    /// Pages of all mappings (`mm_struct.total_vm`).
    pub total_vm_pages: u64,
    /// Resident pages, of files, anonymous and shared memory together.
    pub rss_pages: Option<u64>,
    /// Resident anonymous pages: most of what a fork copies page table entries for.
    pub anon_pages: Option<u64>,
    /// Pages in swap.
    pub swap_pages: Option<u64>,
    /// Page tables (`mm_struct.pgtables_bytes`); absent where the kernel keeps no count.
    pub page_table_bytes: Option<u64>,
    /// By how much `anon_pages` and `swap_pages` may be off, and `rss_pages` by three times as
    /// much, where CPUs or other threads hold counts back that could not be added up; absent:
    /// nothing is.
    pub rss_error_pages: Option<u64>,
}

/// What a fork built for the child's own address space: the child's memory when it had just been
/// made, before it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Mappings copied (`mm_struct.map_count` of the child).
    pub vmas: u64,
    /// Page tables built (`mm_struct.pgtables_bytes` of the child).
    pub page_table_bytes: Option<u64>,
    /// Resident pages whose page table entries were copied (`mm_struct.rss_stat` of the child: files,
    /// anonymous and shared memory). The pages of a mapping without private pages are not among
    /// them: the child finds those by page faults of its own.
    pub rss_pages: Option<u64>,
    /// Of these, the anonymous ones.
    pub anon_pages: Option<u64>,
    /// Pages in swap whose entries were copied.
    pub swap_pages: Option<u64>,
    /// By how much `anon_pages` and `swap_pages` may be off, and `rss_pages` by three times as
    /// much, where CPUs hold counts back that could not be added up; absent: nothing is.
    pub rss_error_pages: Option<u64>,
}

/// Both; a line has them in one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Line", into = "Line")]
pub struct Memory {
    /// The caller's.
    pub caller: Option<AddressSpace>,
    /// What was built for the child.
    pub copied: Option<Copied>,
}

impl Memory {
    /// Whether nothing is known of it.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.caller.is_none() && self.copied.is_none()
    }
}

/// The caller's memory when the call began, and what the child got of it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Memory")]
struct Line {
    /// Mappings of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    vmas: Option<u64>,
    /// Pages of all its mappings.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_vm_pages: Option<u64>,
    /// Its resident pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_pages: Option<u64>,
    /// Of these, the anonymous ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    anon_pages: Option<u64>,
    /// Its pages in swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_pages: Option<u64>,
    /// Its page tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    page_table_bytes: Option<u64>,
    /// By how much `anon_pages` and `swap_pages` may be off, and `rss_pages` by three times as much.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_error_pages: Option<u64>,
    /// Mappings of the child.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_vmas: Option<u64>,
    /// The child's page tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_page_table_bytes: Option<u64>,
    /// Resident pages whose page table entries were copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_rss_pages: Option<u64>,
    /// Of these, the anonymous ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_anon_pages: Option<u64>,
    /// Pages in swap whose entries were copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_swap_pages: Option<u64>,
    /// As `rss_error_pages`, of what was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_rss_error_pages: Option<u64>,
}

impl From<Memory> for Line {
    fn from(memory: Memory) -> Self {
        let (caller, copied) = (memory.caller, memory.copied);
        Self {
            vmas: caller.map(|caller| caller.vmas),
            total_vm_pages: caller.map(|caller| caller.total_vm_pages),
            rss_pages: caller.and_then(|caller| caller.rss_pages),
            anon_pages: caller.and_then(|caller| caller.anon_pages),
            swap_pages: caller.and_then(|caller| caller.swap_pages),
            page_table_bytes: caller.and_then(|caller| caller.page_table_bytes),
            rss_error_pages: caller.and_then(|caller| caller.rss_error_pages),
            copied_vmas: copied.map(|copied| copied.vmas),
            copied_page_table_bytes: copied.and_then(|copied| copied.page_table_bytes),
            copied_rss_pages: copied.and_then(|copied| copied.rss_pages),
            copied_anon_pages: copied.and_then(|copied| copied.anon_pages),
            copied_swap_pages: copied.and_then(|copied| copied.swap_pages),
            copied_rss_error_pages: copied.and_then(|copied| copied.rss_error_pages),
        }
    }
}

impl From<Line> for Memory {
    fn from(line: Line) -> Self {
        let caller =
            line.vmas.zip(line.total_vm_pages).map(|(vmas, total_vm_pages)| AddressSpace {
                vmas,
                total_vm_pages,
                rss_pages: line.rss_pages,
                anon_pages: line.anon_pages,
                swap_pages: line.swap_pages,
                page_table_bytes: line.page_table_bytes,
                rss_error_pages: line.rss_error_pages,
            });
        let copied = line.copied_vmas.map(|vmas| Copied {
            vmas,
            page_table_bytes: line.copied_page_table_bytes,
            rss_pages: line.copied_rss_pages,
            anon_pages: line.copied_anon_pages,
            swap_pages: line.copied_swap_pages,
            rss_error_pages: line.copied_rss_error_pages,
        });
        Self { caller, copied }
    }
}
