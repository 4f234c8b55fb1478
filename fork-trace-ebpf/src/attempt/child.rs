//! The child in its parent's attempt: the new task exists, and is put on a run queue. A task that
//! the kernel makes for itself is handled here too: its attempt begins with the child, or with the
//! failure to make one.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use fork_trace_common::{
    counter::Counter,
    flags::{
        CLONE_PARENT, CLONE_VFORK, CLONE_VM, CSIGNAL, PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER,
    },
    function::Function,
    record::{ForkRecord, Syscall, TaskIds, TracerProgram, bits},
    stage::Mark,
};

use super::{
    begin::insert_unentered,
    functions_passed, libc,
    record::{remove, set_mark, set_tracer_ns, under_way},
    submit::{finish, submit},
};
use crate::{
    current::{cpu, now, tgid},
    filter, follow_up,
    global_functions::global_functions,
    kernel::task::Task,
    maps::count,
};

/// The calling thread has made a task. Every new task of the host is counted here, once.
#[inline(always)]
pub(crate) fn newtask(child: Task, clone_flags: u64) {
    // The time is taken first, so that what this program does is part of the stage that begins
    // here; how long it takes is in the record.
    let now = now();
    let key = bpf_get_current_pid_tgid();
    let Some(ids) = child.ids() else { return };
    filter::born(tgid(key), ids.tgid);
    if ids.tgid != tgid(key) && filter::is_tracer(tgid(key)) {
        follow_up::command_begins(ids);
    }
    let pf = child.flags().unwrap_or_default();
    if !filter::task_wanted(ids.tid, pf, clone_flags) {
        count(Counter::FilteredKind);
        functions_passed::forget(key);
        // There is a record only if the flags could not be read when the call began.
        if under_way(key).is_some_and(|record| !record.has(bits::RESTARTING | bits::CHILD)) {
            remove(key);
        }
        return;
    }
    // A call that waits for its restart makes nothing, so this task belongs to another one. A call
    // that has made its task before has returned, which was not seen.
    let entered = under_way(key).filter(|record| !record.has(bits::RESTARTING));
    if let Some(record) = &entered
        && record.has(bits::CHILD)
    {
        submit(record, key);
    }
    let entered = entered.filter(|record| !record.has(bits::CHILD));
    let Some(record) = entered.or_else(|| begin_unentered(key, pf)) else {
        return;
    };
    set_mark(record, Mark::TaskNewtask, now);
    record_child(record, child, ids, pf, clone_flags);
    set_tracer_ns(record, TracerProgram::TaskNewtask, now);
}

/// Fills in the child.
#[inline(always)]
fn record_child(record: &mut ForkRecord, child: Task, ids: TaskIds, pf: u32, clone_flags: u64) {
    count(Counter::Seen);
    record.bits |= bits::CHILD;
    record.child = ids;
    record.child_pf = pf;
    record.task_flags = clone_flags;
    set_mark(record, Mark::StartTime, ids.start_ns);
    if clone_flags & CLONE_VM == 0 {
        // VERIFIER: a global function gets nothing but what lies in a map.
        record.copied.total_vm_pages = child.address();
        _ = child_memory();
    }
    if clone_flags & CLONE_PARENT != 0 {
        record.real_parent = child.ppid().unwrap_or_default();
    }
    if let Some(level) = child.pid_level() {
        record.child_ns_tid = child.nr_at(level).unwrap_or_default();
    }
    libc::child_made(record, ids, clone_flags, bpf_get_current_pid_tgid());
    record.child_proc_pid = child.proc_pid(ids.tgid).unwrap_or_default();
    if let Some(nr) = Task::current().pid_level().and_then(|level| child.nr_at(level)) {
        record.ret = i64::from(nr);
    }
}

global_functions! {
    /// Fills in the child's memory, which is what was copied for it. Where the child lies stands in
    /// `copied.total_vm_pages`.
    pub(super) fn child_memory() {
        let Some(record) = under_way(bpf_get_current_pid_tgid()) else { return 0 };
        let child = Task::at(record.copied.total_vm_pages);
        record.copied.total_vm_pages = 0;
        // The child has one thread, and has added no pages itself.
        if let Some(rss) = child.memory(1, &mut record.copied) {
            record.bits |= bits::COPIED | if rss { bits::COPIED_RSS } else { 0 };
        }
    }
}

/// Begins the attempt of a new task whose call was not seen to begin, if its caller is wanted.
/// Either the kernel makes the task for itself, or the entry of the call was not seen.
#[inline(always)]
fn begin_unentered(key: u64, pf: u32) -> Option<&'static mut ForkRecord> {
    let task = Task::current();
    if !filter::wanted(task, tgid(key)) {
        count(Counter::FilteredTask);
        functions_passed::forget(key);
        return None;
    }
    let Some(record) = insert_unentered(key) else {
        count(Counter::Unentered);
        return None;
    };
    // The task is a kernel thread, a helper program that one has started, or a worker of io_uring
    // or vhost.
    if pf & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER) != 0
        || task.flags().is_some_and(|pf| pf & PF_KTHREAD != 0)
    {
        record.bits |= bits::KERNEL_MADE;
        record.start_ns = kernel_began_ns(key);
    }
    Some(record)
}

/// When an attempt of the kernel's own began, if its functions are probed; otherwise 0.
#[inline(always)]
fn kernel_began_ns(key: u64) -> u64 {
    match functions_passed::entered_ns(key, Function::KernelClone) {
        0 => functions_passed::entered_ns(key, Function::CopyProcess),
        entered => entered,
    }
}

/// `copy_process` has failed with `errno`. An attempt of the kernel's own ends here. An attempt of
/// a user's goes on until its system call returns.
#[inline(always)]
pub(crate) fn not_made(key: u64, errno: u32) {
    if under_way(key).is_some() {
        return;
    }
    let task = Task::current();
    let by_kernel = task.flags().is_some_and(|pf| pf & PF_KTHREAD != 0)
        || functions_passed::entered_ns(key, Function::KernelClone) == 0;
    let began = if by_kernel { insert_unentered(key) } else { None };
    let Some(record) = began else {
        functions_passed::forget(key);
        return;
    };
    record.bits |= bits::KERNEL_MADE;
    record.start_ns = kernel_began_ns(key);
    record.ret = -i64::from(errno);
    finish(record, key);
}

/// The child is on a run queue.
#[inline(always)]
pub(crate) fn wakeup_new(child: Task) {
    let key = bpf_get_current_pid_tgid();
    let Some(record) = under_way(key) else { return };
    let now = now();
    // The kernel may have skipped the program of task_newtask, too: from 7.0 or so on, the programs
    // of every tracepoint may be preempted.
    if record.has(bits::ENTERED)
        && !record.has(bits::CHILD | bits::RESTARTING)
        && let Some(ids) = child.by_helper().ids()
    {
        filter::born(tgid(key), ids.tgid);
        let flags = if record.syscall == Syscall::Clone3 as u32 {
            record.clone_flags
        } else {
            record.clone_flags & !CSIGNAL
        };
        let pf = child.flags().unwrap_or_default();
        record_child(record, child.by_helper(), ids, pf, flags);
    }
    if !record.has(bits::CHILD) || child.tid() != Some(record.child.tid) {
        return;
    }
    set_mark(record, Mark::SchedWakeupNew, now);
    record.parent_cpu = cpu();
    follow_up::begins(record, key);
    if record.task_flags & CLONE_VFORK != 0 {
        record.bits |= bits::VFORK_WAIT;
    }
    // If the function around this is probed, the attempt goes on until it returns.
    if record.has(bits::VFORK_WAIT | bits::KERNEL_MADE)
        && functions_passed::entered_ns(key, Function::WakeUpNewTask) == 0
    {
        finish(record, key);
        return;
    }
    set_tracer_ns(record, TracerProgram::SchedWakeupNew, now);
}

/// `wake_up_new_task` returns. From here on a vfork waits for its child, and a task that the kernel
/// makes for itself is complete.
#[inline(always)]
pub(crate) fn woken(key: u64) {
    if let Some(record) = under_way(key)
        && record.has(bits::VFORK_WAIT | bits::KERNEL_MADE)
    {
        finish(record, key);
    }
}
