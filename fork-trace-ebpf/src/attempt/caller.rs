//! Who makes the attempt, and what it asks for.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::bpf_get_current_comm,
};
use fork_trace_common::{
    flags::CLONE_VM,
    record::{ForkRecord, Syscall, bits},
};

use super::record::under_way;
use crate::{
    current::{low_half, tgid},
    global_functions::global_functions,
    kernel::{regs::Regs, task::Task},
};

/// Bytes of a task's name in a record.
const COMM_BYTES: u32 = 16;

global_functions! {
    /// Fills in the caller of an attempt whose call begins. Besides, it fills in what a refusal and
    /// the copy of the caller's memory are compared with later: the counters of the caller's
    /// groups, and its memory.
    pub(super) fn caller_enters() {
        let key = bpf_get_current_pid_tgid();
        let Some(record) = under_way(key) else { return 0 };
        let task = Task::current();
        identify(record, task, key);
        if let Some(groups) = task.groups() {
            if let Some(refusals) = groups.pids_refusals() {
                record.pids_refusals = refusals;
                record.bits |= bits::PIDS_REFUSALS;
            }
            if let Some(ooms) = groups.memory_ooms() {
                record.memory_ooms = ooms;
                record.bits |= bits::MEMORY_OOMS;
            }
        }
        if record.has(bits::FLAGS)
            && record.clone_flags & CLONE_VM == 0
            && let Some(rss) = task.memory(record.threads, &mut record.memory)
        {
            record.bits |= bits::MEMORY | if rss { bits::RSS } else { 0 };
        }
    }

    /// Fills in the caller of an attempt that was not seen to begin.
    pub(super) fn caller_unentered() {
        let key = bpf_get_current_pid_tgid();
        let Some(record) = under_way(key) else { return 0 };
        identify(record, Task::current().by_helper(), key);
    }
}

/// Fills in who the calling task is.
#[inline(always)]
fn identify(record: &mut ForkRecord, task: Task, key: u64) {
    record.parent = task.ids().unwrap_or_default();
    record.parent.tgid = tgid(key);
    record.parent.tid = low_half(key);
    record.parent_process_start_ns = task.process_start_ns().unwrap_or_default();
    record.ppid = task.ppid().unwrap_or_default();
    record.uid = low_half(bpf_get_current_uid_gid());
    if let Some(threads) = task.threads() {
        record.threads = threads;
        record.bits |= bits::THREADS;
    }
    record.parent_ns_pid = task.ns_pid().unwrap_or_default();
    record.parent_proc_pid = task.proc_pid(tgid(key)).unwrap_or_default();
    if let Some((ptrace, tracer)) = task.tracer() {
        record.ptrace = ptrace;
        record.tracer = tracer;
    }
    // The name goes straight into the record, because the stack of `sys_exit` is nearly full.
    // SAFETY: the helper writes as many bytes as the array has, and none if it fails.
    unsafe { bpf_get_current_comm(record.comm.as_mut_ptr().cast(), COMM_BYTES) };
    // SAFETY: the helper has no preconditions.
    record.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
}

/// Fills in what is called, with the arguments as the registers give them.
#[inline(always)]
pub(super) fn set_call(record: &mut ForkRecord, regs: Regs, syscall: Syscall, compat: bool) {
    set_called(record, syscall, compat, regs.clone_args(syscall, compat));
    if let Some(set_tids) = regs.set_tids(syscall, compat) {
        record.set_tids = set_tids;
        record.bits |= bits::SET_TIDS;
    }
}

/// Fills in what is called, with the flags and the exit signal as far as they are known.
#[inline(always)]
pub(super) fn set_called(
    record: &mut ForkRecord,
    syscall: Syscall,
    compat: bool,
    (flags, exit_signal): (Option<u64>, Option<u64>),
) {
    record.syscall = syscall as u32;
    if compat {
        record.bits |= bits::COMPAT;
    }
    if let Some(flags) = flags {
        record.clone_flags = flags;
        record.bits |= bits::FLAGS;
    }
    if let Some(exit_signal) = exit_signal {
        record.exit_signal = exit_signal;
        record.bits |= bits::EXIT_SIGNAL;
    }
}
