//! The evidence of a refusal: what the caller asked for, and where each counter stood that can
//! refuse a task.
//!
//! It is read only for attempts that failed, so speed counts little, and every read is made by a
//! helper. That loads on any release, whatever a pointer's type. Walks from one struct to the next
//! are bounded. What a release lacks fails to be read and is marked as not known. This side knows
//! nothing of causes: user space finds the cause in the evidence.

mod arguments;
mod caller;
mod ending;
mod fs;
mod groups;
mod ids;
mod memory;
mod namespaces;
pub(crate) mod program;
mod reads;
mod section;

use fork_trace_common::{
    record::{RecordKind, Syscall},
    refusal::{RefusalRecord, known},
};

use crate::kernel::regs::Regs;

/// A system call that was refused, as it returns.
pub(crate) struct RefusedCall {
    /// The registers of the call.
    pub(crate) regs: Regs,
    /// Which call.
    pub(crate) syscall: Syscall,
    /// Whether it came through the 32-bit entry.
    pub(crate) compat: bool,
    /// What it returns: a negative errno.
    pub(crate) ret: i64,
    /// Whether a tracer took it away.
    pub(crate) taken: bool,
    /// The calling thread.
    pub(crate) tid: u32,
    /// When it returns.
    pub(crate) at_ns: u64,
}

/// Collects the evidence of `call`. The record is good until the next call of this function on the
/// same CPU.
#[inline(always)]
pub(crate) fn collect(call: &RefusedCall) -> Option<&'static RefusalRecord> {
    let scratch = section::scratch()?;
    scratch.regs = call.regs.address();
    scratch.syscall = call.syscall as u32;
    scratch.compat = u32::from(call.compat);
    scratch.ret = call.ret;
    scratch.directory = 0;
    let record = &mut scratch.record;
    clear(record);
    record.kind = RecordKind::Refusal as u32;
    record.tid = call.tid;
    record.at_ns = call.at_ns;
    if call.taken {
        record.bits = known::TAKEN;
    }
    // An exec beside the caller may be over soon, so it is looked for first.
    _ = fs::evidence_fs();
    _ = arguments::evidence_arguments();
    _ = caller::evidence_caller();
    _ = ending::evidence_ending();
    _ = ids::evidence_ids();
    _ = memory::evidence_memory();
    _ = namespaces::evidence_namespaces();
    _ = groups::evidence_groups();
    _ = groups::evidence_group_path();
    _ = groups::evidence_refusal_counters();
    Some(record)
}

/// Sets every byte to zero.
#[inline(always)]
fn clear(record: &mut RefusalRecord) {
    let words = core::ptr::from_mut(record).cast::<u64>();
    for index in 0..size_of::<RefusalRecord>() / size_of::<u64>() {
        // SAFETY: within the record, which is made of whole words.
        let word = unsafe { words.add(index) };
        // SAFETY: as above. The write is volatile, so that the loop does not become a call.
        unsafe { word.write_volatile(0) };
    }
}
