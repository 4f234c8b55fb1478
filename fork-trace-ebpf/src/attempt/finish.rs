//! How an attempt ends: its system call returns, or its thread ends.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use fork_trace_common::{
    counter::Counter,
    record::{Syscall, bits},
    refusal::RefusalRecord,
    stage::Mark,
};

use super::{
    begin::{insert_unentered, unwanted},
    caller::set_called,
    functions_passed, libc,
    record::{remove, set_mark, under_way},
    start,
    submit::{finish, submit_unreturned},
    taken, waits,
};
use crate::{
    current::{low_half, now, tgid},
    evidence::{self, RefusedCall},
    filter, follow_up,
    kernel::{errno::ERESTARTNOINTR, regs::Regs, syscall::syscall, task::Task},
    maps::count,
    ring,
};

/// A thread leaves one of fork's system calls. With `taken` a tracer took the call away.
#[inline(always)]
pub(crate) fn exit(regs: Regs, nr: u64, ret: i64, taken: bool) {
    let task = Task::current();
    let compat = task.compat();
    let syscall = syscall(nr, compat);
    if matches!(syscall, Syscall::None) {
        return;
    }
    let key = bpf_get_current_pid_tgid();
    if taken && ret >= 0 {
        // The tracer has made up what the call returns.
        return;
    }
    taken::over(task, key);
    if ret == 0 {
        start::child_returns(task, key);
        return;
    }
    let at_ns = now();
    let refused = ret < 0 && ret != -ERESTARTNOINTR && filter::wanted(task, tgid(key));
    let call = RefusedCall { regs, syscall, compat, ret, taken, tid: low_half(key), at_ns };
    let refusal = if refused { send_evidence(&call) } else { None };
    let Some(record) = under_way(key) else {
        if let Some(refusal) = refusal {
            refused_before_entry(key, &call, refusal);
        } else if ret > 0 {
            waits::submit(key);
            follow_up::vfork_returns(task, key);
        }
        return;
    };
    record.ret = ret;
    if ret == -ERESTARTNOINTR {
        record.bits |= bits::RESTARTING;
        record.restarts += 1;
        return;
    }
    // If a vfork is still here, it was not seen to be woken, and its wait is over.
    if !record.has(bits::VFORK_WAIT) {
        set_mark(record, Mark::SysExit, at_ns);
    }
    if !record.has(bits::ENTERED) {
        // The flags are known from the new task. VERIFIER: if the arguments were read here too,
        // 5.10 would not load the program.
        record.syscall = syscall as u32;
    }
    let waited = record.has(bits::VFORK_WAIT);
    finish(record, key);
    if waited {
        follow_up::vfork_returns(task, key);
    }
}

/// Sends the evidence of a refusal, just before the attempt's own record.
#[inline(always)]
fn send_evidence(call: &RefusedCall) -> Option<&'static RefusalRecord> {
    let record = evidence::collect(call)?;
    if !ring::send(record) {
        count(Counter::RingFullRefusals);
    }
    Some(record)
}

/// A call returns that was not seen to begin: seccomp or a tracer has refused it.
///
/// KERNEL: kernel/entry/common.c `syscall_trace_enter`: both come before the `sys_enter`
/// tracepoint.
#[inline(always)]
fn refused_before_entry(key: u64, call: &RefusedCall, refusal: &RefusalRecord) {
    // The record goes into the map as any other does. A stack has no room for it and for everything
    // else that the exit needs.
    let Some(record) = insert_unentered(key) else { return };
    set_mark(record, Mark::SysExit, call.at_ns);
    // VERIFIER: the arguments are taken from the evidence. If one program reads them twice, LLVM
    // merges the reads in such a way that 5.10 sees a register that was never written.
    let args = refusal.called(matches!(call.syscall, Syscall::Clone3));
    set_called(record, call.syscall, call.compat, args);
    record.ret = call.ret;
    if unwanted(record) {
        remove(key);
        return;
    }
    finish(record, key);
}

/// A task ends. After this, no map holds anything of it.
#[inline(always)]
pub(crate) fn task_ends() {
    let key = bpf_get_current_pid_tgid();
    // Most tasks have no attempt under way when they end.
    if let Some(record) = under_way(key) {
        submit_unreturned(record, key);
        remove(key);
    }
    // A thread that was preempted at the very end of its attempt has an entry without a record.
    waits::forget(key);
    functions_passed::forget(key);
    libc::task_ends(key);
    start::forget(key);
    if Task::current().tracer().is_some() {
        taken::forget(key);
    }
    // KERNEL: kernel/exit.c `do_exit` counts `live` down before this tracepoint.
    let last = Task::current().threads_not_ending() == Some(0);
    follow_up::ends(key, last);
    if last {
        filter::died(tgid(key));
    }
}
