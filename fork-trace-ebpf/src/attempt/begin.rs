//! How an attempt begins: at the entry of its system call, or later if that was not seen.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use fork_trace_common::{
    call_site::SITE_COUNT,
    record::{ForkRecord, Syscall, TracerProgram, bits},
    stage::Mark,
};

use super::{
    caller::{caller_enters, caller_unentered, set_call},
    functions_passed, libc,
    record::{insert, remove, set_mark, set_tracer_ns, under_way},
    submit::submit_unreturned,
};
use crate::{
    current::{now, tgid},
    filter,
    kernel::{regs::Regs, syscall::syscall, task::Task},
};

/// A thread enters one of fork's system calls.
#[inline(always)]
pub(crate) fn enter(regs: Regs, nr: u64) {
    let task = Task::current();
    let compat = task.compat();
    let syscall = syscall(nr, compat);
    let key = bpf_get_current_pid_tgid();
    if matches!(syscall, Syscall::None) || !filter::wanted(task, tgid(key)) {
        return;
    }
    let now = now();
    let (sp, ip) = regs.place().unwrap_or_default();
    if let Some(record) = under_way(key) {
        // The same call from the same place on the same stack is the one that is repeated.
        let same = record.syscall == syscall as u32 && record.sp == sp && record.ip == ip;
        if record.has(bits::RESTARTING) && same {
            functions_passed::begin(key);
            record.bits &= !(bits::RESTARTING | bits::IN_EXEC);
            record.marks = [0; Mark::IN_RECORD];
            record.failed_alloc = 0;
            record.alloc_began_ns = [0; SITE_COUNT];
            record.tracer_ns = [0; TracerProgram::COUNT];
            set_mark(record, Mark::SysEnter, now);
            return;
        }
        submit_unreturned(record, key);
    }
    let Some(record) = insert(key) else { return };
    functions_passed::begin(key);
    record.bits |= bits::ENTERED;
    record.start_ns = now;
    record.sp = sp;
    record.ip = ip;
    set_mark(record, Mark::SysEnter, now);
    set_call(record, regs, syscall, compat);
    if unwanted(record) {
        remove(key);
        return;
    }
    _ = caller_enters();
    libc::attempt_begins(record, key);
    set_tracer_ns(record, TracerProgram::SysEnter, now);
}

/// Begins a record of an attempt that was not seen to begin, and fills in its caller; `None` if the
/// map is full.
#[inline(always)]
pub(super) fn insert_unentered(key: u64) -> Option<&'static mut ForkRecord> {
    insert(key)?;
    _ = caller_unentered();
    under_way(key)
}

/// Whether an attempt is known to be of a kind that is not wanted.
#[inline(always)]
pub(super) fn unwanted(record: &ForkRecord) -> bool {
    record.has(bits::FLAGS) && !filter::kind_wanted(record.clone_flags)
}
