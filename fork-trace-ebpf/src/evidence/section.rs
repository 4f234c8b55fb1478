//! What every section of the evidence works with. A section is a function that the verifier
//! verifies on its own, so it takes no arguments and finds everything in this CPU's scratch memory.

use aya_ebpf::helpers::bpf_get_current_task;
use fork_trace_common::refusal::RefusalRecord;

use super::reads::{Address, Reads};
use crate::maps::{SCRATCH, Scratch};

/// What a section works with.
pub(super) struct Section {
    /// The record that it fills.
    pub(super) record: &'static mut RefusalRecord,
    /// How it reads.
    pub(super) reads: Reads,
    /// The calling task.
    pub(super) task: Address,
    /// What it may want to know of the attempt.
    pub(super) info: AttemptInfo,
}

/// What a section may want to know of the attempt.
pub(super) struct AttemptInfo {
    /// The caller's `pt_regs`.
    pub(super) regs: Address,
    /// The system call, a `Syscall`.
    pub(super) syscall: u32,
    /// Whether it came through the 32-bit entry.
    pub(super) compat: bool,
    /// What it returns: a negative errno.
    pub(super) ret: i64,
    /// The directory of the control group that may have refused; 0 where none is known.
    pub(super) directory: Address,
}

/// What a section that begins now works with.
#[inline(always)]
pub(super) fn section() -> Option<Section> {
    let Scratch { record, word, regs, syscall, compat, ret, directory } = scratch()?;
    Some(Section {
        record,
        reads: Reads::new(word),
        // SAFETY: the helper has no preconditions.
        task: Address(unsafe { bpf_get_current_task() }),
        info: AttemptInfo {
            regs: Address(*regs),
            syscall: *syscall,
            compat: *compat != 0,
            ret: *ret,
            directory: Address(*directory),
        },
    })
}

/// Leaves the directory of a control group for a later section.
#[inline(always)]
pub(super) fn set_directory(directory: Address) {
    if let Some(scratch) = scratch() {
        scratch.directory = directory.0;
    }
}

/// This CPU's scratch memory.
#[inline(always)]
pub(super) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: only `sys_exit` uses it, and no run of that begins on this CPU during another.
    // KERNEL: kernel/trace/bpf_trace.c `__bpf_trace_run` skips a program that is active there.
    unsafe { SCRATCH.get_ptr_mut(0)?.as_mut() }
}
