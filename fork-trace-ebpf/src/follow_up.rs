//! A child's life after its fork: the parent's wait for a vfork, exec, and the end.
//!
//! Followed are children whose follow-ups were asked for, those that a parent waits for, and those
//! of a parent with threads; each is in `BORN` from its wake-up on, so that nothing it does comes
//! before. Userspace joins what comes from two CPUs in any order.

use aya_ebpf::{
    Global,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_ringbuf_output},
    },
};
use fork_trace_common::{
    counter::Counter,
    flags::{CLONE_THREAD, CLONE_VFORK, CLONE_VM},
    follow_up::{
        ARGS_BYTES, Born, EXE_BYTES, ExecRecord, FollowUpKind, FollowUpRecord, bits, state,
    },
    record::ForkRecord,
    stage::Mark,
};

use crate::{
    filter,
    flight::{at, now, tgid, wake_up},
    kernel::{Program, Task},
    maps::{BORN, EXEC, RING, WAITS, count},
};

/// 1: tell every exec of every child.
#[unsafe(no_mangle)]
static FOLLOW_EXECS: Global<u8> = Global::new(0);
/// 1: tell every child's end.
#[unsafe(no_mangle)]
static FOLLOW_EXITS: Global<u8> = Global::new(0);

/// The child of `fork` is on a run queue, and has not run.
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
        // As in the fork's id.
        began_ns: if fork.start_ns != 0 { fork.start_ns } else { at(fork, Mark::StartTime) },
        woken_ns: at(fork, Mark::SchedWakeupNew),
        parent_tid: fork.parent.tid,
        state: if vfork { state::VFORK } else { 0 } | if threads { state::THREADS } else { 0 },
    };
    if BORN.insert(born.child.tgid, born, 0).is_err() {
        count(Counter::BornFull);
    }
    if vfork && WAITS.insert(key, born, 0).is_err() {
        count(Counter::WaitsFull);
    }
}

/// The fork of this child is not shown: neither is what becomes of it.
#[inline(always)]
pub(crate) fn unwanted(fork: &ForkRecord) {
    // Of a vfork its parent's wait is not told either.
    _ = WAITS.remove((u64::from(fork.parent.tgid) << 32) | u64::from(fork.parent.tid));
    if BORN.get_ptr(fork.child.tgid).is_some() {
        // It may end at the same time.
        _ = BORN.remove(fork.child.tgid);
    }
}

/// A thread returns from a call that made a child and whose record is complete: of a vfork.
#[inline(always)]
pub(crate) fn vfork_returns(task: Task, key: u64) {
    // SAFETY: only this thread's own programs change its entry.
    let Some(born) = (unsafe { WAITS.get(key) }).copied() else { return };
    // It was there a moment ago, and only this thread removes it.
    _ = WAITS.remove(key);
    let dying = if task.dying() { bits::DYING } else { 0 };
    submit(&event(FollowUpKind::VforkReturned, dying, born, 0));
}

/// The calling process runs another program.
#[inline(always)]
pub(crate) fn execs(task: Task, program: Program) {
    let Some(ids) = task.ids() else { return };
    let Some(born) = child(task, ids.tgid) else { return };
    let told = event(FollowUpKind::Execed, 0, *born, 0);
    let first = born.state & state::EXECED == 0;
    born.state |= state::EXECED;
    if FOLLOW_EXECS.load() != 0 {
        submit_with(task, program, told);
    } else if first && born.state & state::VFORK != 0 {
        submit(&told);
    }
    if !every_child() {
        // A process that ends at the same time may have removed it.
        _ = BORN.remove(ids.tgid);
    }
}

/// The calling task ends, and with it its process if it was the `last`.
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
    let told = *born;
    // Of threads that end at the same time one removes it.
    if last && BORN.remove(tgid(key)).is_err() {
        return;
    }
    if FOLLOW_EXITS.load() != 0 && last || awaited && first_thread {
        let (whole, code) =
            if last { (bits::WHOLE, task.process_exit_code()) } else { (0, task.exit_code()) };
        submit(&event(FollowUpKind::Ended, whole, told, u64::from(code.unwrap_or_default())));
    }
}

#[inline(always)]
fn every_child() -> bool {
    FOLLOW_EXECS.load() | FOLLOW_EXITS.load() != 0
}

/// The entry of the calling process, unless it is another's that had the same id.
#[inline(always)]
fn child(task: Task, tgid: u32) -> Option<&'static mut Born> {
    // SAFETY: the entry changes only while its process runs one thread, in `execs`.
    let born = BORN.get_ptr_mut(tgid).and_then(|born| unsafe { born.as_mut() })?;
    (task.process_start_ns() == Some(born.child.start_ns)).then_some(born)
}

#[inline(always)]
fn event(kind: FollowUpKind, bits: u32, born: Born, exit_code: u64) -> FollowUpRecord {
    FollowUpRecord { kind: kind as u32, bits, born, at_ns: now(), exit_code }
}

#[inline(always)]
fn submit(record: &FollowUpRecord) {
    if RING.output::<FollowUpRecord>(record, wake_up()).is_err() {
        count(Counter::RingFullFollowUps);
    }
}

/// VERIFIER: keeps the bound of a length that the compiler knows already; more than what is kept.
const ARGS_MASK: u64 = (ARGS_BYTES as u64) * 2 - 1;

/// With the program's name and arguments.
#[inline(always)]
fn submit_with(task: Task, program: Program, life: FollowUpRecord) {
    let Some(record) = EXEC.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's own, and the tracepoint is not preempted.
    let record: &mut ExecRecord = unsafe { &mut *record };
    record.life = life;
    record.life.kind = FollowUpKind::ExecedWith as u32;
    record.args_bytes = 0;
    record.exe = [0; EXE_BYTES];
    if let Some(name) = program.name() {
        record.life.bits |= read_name(&mut record.exe, name);
    }
    let mut kept = 0;
    if let Some((start, bytes)) = task.args() {
        record.args_bytes = bytes;
        kept = bytes.min(ARGS_BYTES as u64);
        // SAFETY: the helper checks the address; `kept` is no more than there is room for.
        let read = unsafe {
            bpf_probe_read_user(
                record.args.as_mut_ptr().cast(),
                (kept & ARGS_MASK) as u32,
                start.cast(),
            )
        };
        if read == 0 {
            record.life.bits |= bits::ARGS;
        } else {
            kept = 0;
        }
    }
    let size = ExecRecord::HEAD as u64 + kept;
    // SAFETY: the first `size` bytes of the record are filled.
    let sent = unsafe {
        let bytes = core::ptr::from_mut(record).cast();
        bpf_ringbuf_output(core::ptr::addr_of!(RING).cast_mut().cast(), bytes, size, wake_up())
    };
    if sent < 0 {
        count(Counter::RingFullFollowUps);
    }
}

/// Reads a name; returns [`bits::EXE_CUT`] if it is longer than the room.
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
