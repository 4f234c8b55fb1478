//! Follow-ups: what becomes of a child after its fork. The parent of a vfork waits for it, it runs
//! another program, it ends.
//!
//! Three kinds of children are followed up: every child if the user asked for it, each vfork child,
//! and each child of a parent with several threads. An entry of the map `BORN` stands for the
//! child. It is made before the child first runs, so that nothing the child does is missed. Records
//! about one child may come from two CPUs in any order, and user space joins them.

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str},
    },
};
use fork_trace_common::{
    counter::Counter,
    flags::{CLONE_THREAD, CLONE_VFORK, CLONE_VM},
    follow_up::{Born, EXE_BYTES, ExecRecord, FollowUpKind, FollowUpRecord, bits, state},
    record::{ForkRecord, TaskIds},
    stage::Mark,
};

use crate::{
    current::{low_half, now, tgid},
    filter,
    global_functions::global_functions,
    kernel::{
        errno::ERESTARTSYS,
        program::{ARGS_MASK, Program, read_args},
        regs::Regs,
        syscall::{exec, may_exec},
        task::Task,
    },
    maps::{BORN, ENDING, EXEC, FAILED_EXEC, WAITS, count},
    ring,
};

/// 1 if every exec of every child is sent.
#[unsafe(no_mangle)]
static FOLLOW_EXECS: Global<u8> = Global::new(0);
/// 1 if the end of every child is sent.
#[unsafe(no_mangle)]
static FOLLOW_EXITS: Global<u8> = Global::new(0);

/// The child of `fork` is on a run queue and has not run yet. `key` is that of the calling thread.
#[inline(always)]
pub(crate) fn begins(fork: &ForkRecord, key: u64) {
    if fork.task_flags & CLONE_THREAD != 0 || !filter::successes_wanted() {
        return;
    }
    let vfork = fork.task_flags & CLONE_VFORK != 0;
    let threads = fork.threads > 1 && fork.task_flags & CLONE_VM == 0;
    if !vfork && !threads && !every_child() {
        return;
    }
    let born = Born {
        child: fork.child,
        // The same time as in the id of the fork.
        began_ns: if fork.start_ns != 0 { fork.start_ns } else { fork.mark_ns(Mark::StartTime) },
        woken_ns: fork.mark_ns(Mark::SchedWakeupNew),
        parent_tid: fork.parent.tid,
        state: if vfork { state::VFORK } else { 0 } | if threads { state::THREADS } else { 0 },
    };
    follow(born);
    if vfork && WAITS.insert(key, born, 0).is_err() {
        count(Counter::WaitsFull);
    }
}

/// The fork of this child is not shown, so what becomes of the child is not shown either.
#[inline(always)]
pub(crate) fn unwanted(fork: &ForkRecord) {
    // If it is a vfork, its parent's wait is not shown either.
    _ = WAITS.remove((u64::from(fork.parent.tgid) << 32) | u64::from(fork.parent.tid));
    if BORN.get_ptr(fork.child.tgid).is_some() {
        // The child may end at the same time, and remove its entry itself.
        _ = BORN.remove(fork.child.tgid);
    }
}

/// A thread returns from a call that made a child, and whose record was sent before: a vfork, whose
/// wait is over.
#[inline(always)]
pub(crate) fn vfork_returns(task: Task, key: u64) {
    // SAFETY: only this thread's own programs change its entry.
    let Some(born) = (unsafe { WAITS.get(key) }).copied() else { return };
    // It was there a moment ago, and only this thread removes it.
    _ = WAITS.remove(key);
    let dying = if task.dying() { bits::DYING } else { 0 };
    send(&event(FollowUpKind::VforkReturned, dying, born, 0));
}

/// The calling process begins to run another program.
#[inline(always)]
pub(crate) fn execs(task: Task, program: Program) {
    let Some(ids) = task.ids() else { return };
    let Some(born) = child(task, ids.tgid) else { return };
    let record = event(FollowUpKind::Execed, 0, *born, 0);
    let first = born.state & state::EXECED == 0;
    born.state |= state::EXECED;
    if FOLLOW_EXECS.load() != 0 {
        send_with_program(task, program, record);
    } else if first && born.state & state::VFORK != 0 {
        send(&record);
    }
    if !every_child() {
        // A process that ends at the same time may have removed it.
        _ = BORN.remove(ids.tgid);
    }
}

/// The tracer itself has made the calling thread's child: the traced command. What becomes of it is
/// sent as of any other child.
#[inline(always)]
pub(crate) fn command_begins(child: TaskIds) {
    if !every_child() || !filter::successes_wanted() {
        return;
    }
    follow(Born { child, began_ns: 0, woken_ns: 0, parent_tid: 0, state: 0 });
}

/// Follows a child up.
#[inline(always)]
fn follow(born: Born) {
    if BORN.insert(born.child.tgid, born, 0).is_err() {
        count(Counter::BornFull);
    }
}

/// Whether a system call that returns `ret` is an exec that failed and is to be sent. An exec that the
/// kernel repeats after a signal has not failed.
#[inline(always)]
pub(crate) fn may_be_failed_exec(nr: u64, ret: i64) -> bool {
    FOLLOW_EXECS.load() != 0 && may_exec(nr) && ret < 0 && ret > -ERESTARTSYS
}

/// The calling thread returns from the system call `nr`, which failed with `ret`.
#[inline(always)]
pub(crate) fn exec_fails(regs: Regs, nr: u64, ret: i64) {
    let Some(record) = failed_exec() else { return };
    // VERIFIER: a global function gets nothing but what lies in a map.
    record.life.at_ns = regs.address();
    record.life.exit_code = ret.wrapping_neg().cast_unsigned();
    record.args_bytes = nr;
    _ = send_failed_exec();
}

/// This CPU's memory for a failed exec.
#[inline(always)]
fn failed_exec() -> Option<&'static mut ExecRecord> {
    // SAFETY: only `sys_exit` uses it, and no run of that begins on this CPU during another.
    unsafe { FAILED_EXEC.get_ptr_mut(0)?.as_mut() }
}

global_functions! {
    /// Sends the failed exec of the calling thread. Its registers, its number and its error stand in
    /// the record.
    pub(super) fn send_failed_exec() {
        let Some(record) = failed_exec() else { return 0 };
        let task = Task::current().by_helper();
        let (regs, nr) = (Regs::at(record.life.at_ns), record.args_bytes);
        let compat = task.compat();
        let Some(exec) = exec(nr, compat) else { return 0 };
        let Some(born) = child(task, tgid(bpf_get_current_pid_tgid())) else { return 0 };
        record.life.kind = FollowUpKind::ExecFailed as u32;
        record.life.bits = 0;
        record.life.born = *born;
        record.life.at_ns = now();
        record.args_bytes = 0;
        record.exe = [0; EXE_BYTES];
        if let Some(name) = regs.exec_name(exec, compat) {
            record.life.bits |= read_user_name(&mut record.exe, name as *const u8);
        }
        if !ring::send_exec(record, ExecRecord::HEAD as u64) {
            count(Counter::RingFullFollowUps);
        }
    }
}

/// The calling task ends; `last` says that its process ends with it.
#[inline(always)]
pub(crate) fn ends(key: u64, last: bool) {
    // Few threads wait for a vfork when they end.
    _ = WAITS.remove(key);
    let task = Task::current();
    let first_thread = key >> 32 == key & 0xffff_ffff;
    if !last && !first_thread {
        return;
    }
    let Some(born) = child(task, tgid(key)) else { return };
    let awaited = born.state & state::VFORK != 0 && born.state & state::EXECED == 0;
    let entry = *born;
    // If several threads end at the same time, one of them removes the entry.
    if last && BORN.remove(tgid(key)).is_err() {
        return;
    }
    if FOLLOW_EXITS.load() != 0 && last || awaited && first_thread {
        let (whole, code) =
            if last { (bits::WHOLE, task.process_exit_code()) } else { (0, task.exit_code()) };
        let code = u64::from(code.unwrap_or_default());
        let mut record = event(FollowUpKind::Ended, whole, entry, code);
        if FOLLOW_EXITS.load() == 0 || !last {
            send(&record);
            return;
        }
        if let Some(pages) = task.max_rss_pages() {
            record.max_rss_pages = pages;
            record.bits |= bits::MAX_RSS;
        }
        let leader = task.leader().filter(|_| !first_thread).and_then(Task::cpu_ns);
        record.cpu_ns =
            task.cpu_ns_of_gone_threads().unwrap_or_default() + leader.unwrap_or_default();
        let waits = Task::shows_its_end() && ENDING.insert(low_half(key), record, 0).is_ok();
        if !waits {
            send(&record);
        }
    }
}

/// A CPU switches away from a task that has ended.
#[inline(always)]
pub(crate) fn last_switch(task: Task) {
    let Some(tid) = task.tid() else { return };
    // SAFETY: the task itself has made the entry, and does not run any more.
    let Some(record) = (unsafe { ENDING.get(tid) }) else { return };
    let mut record = *record;
    // It was there a moment ago, and nobody else removes it.
    _ = ENDING.remove(tid);
    if let Some(own) = task.cpu_ns() {
        record.cpu_ns += own;
        record.bits |= bits::CPU;
    }
    send(&record);
}

/// Whether the ends of children are sent, and so [`last_switch`] is of use.
#[inline(always)]
pub(crate) fn ends_wanted() -> bool {
    FOLLOW_EXITS.load() != 0
}

/// Whether every child is followed up.
#[inline(always)]
fn every_child() -> bool {
    FOLLOW_EXECS.load() | FOLLOW_EXITS.load() != 0
}

/// The entry of the calling process; `None` if it has none, or if the entry is about an earlier
/// process that had the same id.
#[inline(always)]
fn child(task: Task, tgid: u32) -> Option<&'static mut Born> {
    // SAFETY: the entry changes only while its process runs one thread, in `execs`.
    let born = BORN.get_ptr_mut(tgid).and_then(|born| unsafe { born.as_mut() })?;
    (task.process_start_ns() == Some(born.child.start_ns)).then_some(born)
}

/// A record of what happens to a child now.
#[inline(always)]
fn event(kind: FollowUpKind, bits: u32, born: Born, exit_code: u64) -> FollowUpRecord {
    FollowUpRecord {
        kind: kind as u32,
        bits,
        born,
        at_ns: now(),
        exit_code,
        cpu_ns: 0,
        max_rss_pages: 0,
    }
}

/// Sends a follow-up.
#[inline(always)]
fn send(record: &FollowUpRecord) {
    if !ring::send_beside(record) {
        count(Counter::RingFullFollowUps);
    }
}

/// Sends the follow-up of an exec together with the program's name and arguments.
#[inline(always)]
fn send_with_program(task: Task, program: Program, follow_up: FollowUpRecord) {
    let Some(record) = EXEC.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's own, and the tracepoint is not preempted.
    let record: &mut ExecRecord = unsafe { &mut *record };
    record.life = follow_up;
    record.life.kind = FollowUpKind::ExecedWith as u32;
    record.args_bytes = 0;
    record.exe = [0; EXE_BYTES];
    if let Some(name) = program.name() {
        record.life.bits |= bits::EXE | read_name(&mut record.exe, name);
    }
    let mut kept = 0;
    if let Some((start, bytes)) = task.args() {
        record.args_bytes = bytes;
        if let Some(read) = read_args(&mut record.args, start, bytes) {
            record.life.bits |= bits::ARGS;
            kept = read;
        }
    }
    if !ring::send_exec(record, ExecRecord::HEAD as u64 + (kept & ARGS_MASK)) {
        count(Counter::RingFullFollowUps);
    }
}

/// Reads a name that the caller has in its own memory into `room`; returns [`bits::EXE`] if that
/// worked, and with it [`bits::EXE_CUT`] if the name may be longer than that.
#[inline(always)]
fn read_user_name(room: &mut [u8; EXE_BYTES], name: *const u8) -> u32 {
    const ROOM: u32 = 256;
    // SAFETY: the helper checks the address and writes no more than the room.
    let length = unsafe { bpf_probe_read_user_str(room.as_mut_ptr().cast(), ROOM, name.cast()) };
    match length {
        ..0 => 0,
        length if length == i64::from(ROOM) => bits::EXE | bits::EXE_CUT,
        _ => bits::EXE,
    }
}

/// Reads a name into `room`; returns [`bits::EXE_CUT`] if it is longer than that.
#[inline(always)]
fn read_name(room: &mut [u8; EXE_BYTES], name: *const u8) -> u32 {
    const ROOM: u32 = 256;
    const _: () = assert!(EXE_BYTES == 256);
    // SAFETY: the helper checks the address and writes no more than the room.
    let length = unsafe { bpf_probe_read_kernel_str(room.as_mut_ptr().cast(), ROOM, name.cast()) };
    if length != i64::from(ROOM) {
        return 0;
    }
    // SAFETY: the helper checks the address.
    let after = unsafe { bpf_probe_read_kernel(name.wrapping_add(EXE_BYTES - 1)) };
    if after == Ok(0) { 0 } else { bits::EXE_CUT }
}
