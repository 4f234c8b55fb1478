//! How much memory a copy of the caller's address space would have to be promised.

use fork_trace_common::refusal::{RefusalRecord, known};

use super::{
    reads::{Address, Reads},
    section::{Section, section},
};
use crate::{
    global_functions::global_functions,
    kernel::offsets::{MM_DATA_VM, MM_STACK_VM, TASK_MM},
};

global_functions! {
    /// The caller's private writable memory.
    pub(super) fn evidence_memory() {
        let Some(Section { record, reads, task, .. }) = &mut section() else { return 0 };
        private_pages(record, reads, *task);
    }
}

/// Fills in how many pages the caller's private writable mappings have.
///
/// KERNEL: mm/mmap.c `vm_stat_account` counts a stack apart from the others. kernel/fork.c `dup_mmap`
/// asks for a promise for each mapping with `VM_ACCOUNT`, and all of those are private and writable.
#[inline(always)]
fn private_pages(record: &mut RefusalRecord, reads: &mut Reads, task: Address) {
    reads.start_over();
    let mm = reads.pointer(task, TASK_MM.load());
    let data = reads.long(mm, MM_DATA_VM.load());
    record.private_pages = data.wrapping_add(reads.long(mm, MM_STACK_VM.load()));
    if reads.succeeded() {
        record.bits |= known::PRIVATE_PAGES;
    }
}
