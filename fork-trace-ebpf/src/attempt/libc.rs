//! The C library around an attempt: the wrapper that the calling thread is in, and the child's own
//! way out of it.
//!
//! A thread has an entry in the map `LIBC` from the moment when it enters a wrapper until it returns
//! from it. A child that has its own memory returns from its parent's wrapper too, so it gets an
//! entry when it is made.

use aya_ebpf::{Global, helpers::bpf_get_current_pid_tgid};
use fork_trace_common::{
    counter::Counter,
    flags::CLONE_VM,
    libc::{AtforkRecord, LibcFunction, LibcRecord, Part, Role, bits, returns},
    record::{self, ForkRecord, RecordKind, TaskIds},
};

use crate::{
    current::{low_half, now, tgid},
    filter,
    kernel::{arch::ARCH, task::Task},
    maps::{LIBC, count},
    ring,
};

/// 1 if wrappers of the C library are probed.
#[unsafe(no_mangle)]
static LIBC_ON: Global<u8> = Global::new(0);

/// What every record begins as.
static EMPTY: LibcRecord = LibcRecord::zeroed();

/// The wrapper that a thread is in, if it is in one.
#[inline(always)]
fn inside(tid: u32) -> Option<&'static mut LibcRecord> {
    // SAFETY: only the thread itself changes its entry, except that its parent makes it before the
    // thread runs.
    LIBC.get_ptr_mut(tid).and_then(|record| unsafe { record.as_mut() })
}

/// Makes an entry that is empty.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would pass the stack")]
fn insert(tid: u32) -> Option<&'static mut LibcRecord> {
    if LIBC.insert(tid, &EMPTY, 0).is_err() {
        count(Counter::LibcFull);
    }
    inside(tid)
}

/// The part of `fork` that a function is now, in a thread that is inside of `fork`.
#[inline(always)]
fn part(record: &LibcRecord, function: LibcFunction) -> Option<Part> {
    if record.function != LibcFunction::Fork as u32 {
        return None;
    }
    match function.row().role {
        Role::Wrapper | Role::EntryOnly | Role::Registers => None,
        Role::Both(part) | Role::Part(part) => Some(part),
        Role::Handlers if record.attempt_ns == 0 => Some(Part::PreforkHandlers),
        Role::Handlers | Role::HandlersAfter if record.has(bits::CHILD) => {
            Some(Part::ChildHandlers)
        }
        Role::Handlers | Role::HandlersAfter => Some(Part::PostforkHandlers),
    }
}

/// Enters a function of a library, the stack pointer being `sp`. Which library it is only few callers
/// need to know.
#[inline(always)]
pub(crate) fn enter(function: LibcFunction, sp: u64, library: impl FnOnce() -> u32) {
    let now = now();
    let key = bpf_get_current_pid_tgid();
    let tid = low_half(key);
    if let Some(outer) = inside(tid) {
        if let Some(part) = part(outer, function) {
            set(outer, part, 0, now);
            return;
        }
        if returns(outer.function) && sp < outer.sp {
            // A wrapper that is called by another one belongs to that.
            return;
        }
    }
    if !function.row().role.is_wrapper() {
        return;
    }
    let task = Task::current().by_helper();
    if !filter::wanted(task, tgid(key)) {
        return;
    }
    let Some(thread) = task.ids() else { return };
    let Some(record) = insert(tid) else { return };
    record.function = function as u32;
    record.library = library();
    record.thread = thread;
    record.entered_ns = now;
    record.sp = sp;
}

/// Returns from a function of a library, with `ret`.
#[inline(always)]
pub(crate) fn leave(function: LibcFunction, ret: u64) {
    let now = now();
    let tid = low_half(bpf_get_current_pid_tgid());
    let Some(record) = inside(tid) else { return };
    if record.function == function as u32 {
        record.bits |= bits::RETURNED;
        record.returned_ns = now;
        record.ret = ret.cast_signed();
        send(record);
        // It was just there.
        _ = LIBC.remove(tid);
    } else if let Some(part) = part(record, function) {
        set(record, part, 1, now);
    }
}

/// Enters a handler that runs because of a fork: user space has given it the number `handler`.
#[inline(always)]
pub(crate) fn enter_handler(handler: u64) {
    let now = now();
    let Some(record) = inside(low_half(bpf_get_current_pid_tgid())) else { return };
    if let Ok(place) = usize::try_from(record.handlers)
        && let Some(run) = record.runs.get_mut(place)
    {
        run.handler = handler;
        run.entered_ns = now;
        run.returned_ns = 0;
    }
}

/// Returns from a handler that runs because of a fork.
#[inline(always)]
pub(crate) fn leave_handler() {
    let now = now();
    let Some(record) = inside(low_half(bpf_get_current_pid_tgid())) else { return };
    if let Ok(place) = usize::try_from(record.handlers)
        && let Some(run) = record.runs.get_mut(place)
    {
        if run.entered_ns == 0 {
            // It was entered before its entry was probed.
            return;
        }
        run.returned_ns = now;
    }
    record.handlers += 1;
}

/// The calling process registers handlers.
#[inline(always)]
pub(crate) fn registers(handlers: [u64; 3]) {
    let key = bpf_get_current_pid_tgid();
    // User space has to probe them before the process forks.
    if filter::wanted(Task::current().by_helper(), tgid(key))
        && !ring::send_now(&atfork(key, handlers, 0))
    {
        count(Counter::RingFullLibc);
    }
}

/// What the calling process registers or, as it runs another program, loses.
#[inline(always)]
fn atfork(key: u64, handlers: [u64; 3], execs: u32) -> AtforkRecord {
    AtforkRecord {
        kind: RecordKind::Atfork as u32,
        tgid: tgid(key),
        proc_pid: Task::current().by_helper().proc_pid(tgid(key)).unwrap_or_default(),
        execs,
        at_ns: now(),
        handlers,
    }
}

/// Writes down when a part was entered, or when it returned.
#[inline(always)]
fn set(record: &mut LibcRecord, part: Part, end: usize, at_ns: u64) {
    if let Some(slot) = record.parts.get_mut(part as usize).and_then(|ends| ends.get_mut(end)) {
        *slot = at_ns;
    }
}

#[inline(always)]
fn send<T>(record: &T) {
    if !ring::send_beside(record) {
        count(Counter::RingFullLibc);
    }
}

/// How many bytes a wrapper whose return is not probed takes of the stack at most, before it makes the
/// call.
const SMALL_FRAME: u64 = 512;

/// The calling thread begins an attempt.
#[inline(always)]
pub(super) fn attempt_begins(attempt: &mut ForkRecord, key: u64) {
    if LIBC_ON.load() == 0 {
        return;
    }
    let tid = low_half(key);
    let Some(record) = inside(tid) else { return };
    if record.has(bits::CHILD) {
        // It has not returned from its parent's fork, and forks already: in a handler.
        return;
    }
    let returns = returns(record.function);
    let frame = (record.sp + ARCH.pushed_by_call).wrapping_sub(attempt.sp);
    // Of a wrapper whose return is not probed the entry may be older: its call was not seen.
    if returns || frame <= SMALL_FRAME {
        attempt.bits |= record::bits::LIBC;
        record.attempt_ns = attempt.start_ns;
    }
    if !returns {
        if record.attempt_ns != 0 {
            send(record);
        }
        // It was just there.
        _ = LIBC.remove(tid);
    }
}

/// The attempt has made a child, which does not run yet.
#[inline(always)]
pub(super) fn child_made(attempt: &ForkRecord, child: TaskIds, clone_flags: u64, key: u64) {
    if LIBC_ON.load() == 0 || !attempt.has(record::bits::LIBC) || clone_flags & CLONE_VM != 0 {
        return;
    }
    // It is gone where its return is not probed.
    let Some(outer) = inside(low_half(key)) else { return };
    let function = outer.function;
    let Some(record) = insert(child.tid) else { return };
    record.bits = bits::CHILD;
    record.function = function;
    record.thread = child;
    record.attempt_ns = attempt.start_ns;
}

/// The calling thread runs another program, in which it is in no wrapper. `tid` is its id before that: a thread
/// that is not the first one of its process takes the id of that one.
#[inline(always)]
pub(crate) fn execs(tid: u32) {
    if LIBC_ON.load() != 0 {
        // Most threads are in no wrapper when they do.
        _ = LIBC.remove(tid);
        send(&atfork(bpf_get_current_pid_tgid(), [0; 3], 1));
    }
}

/// The calling task ends, perhaps inside a wrapper.
#[inline(always)]
pub(super) fn task_ends(key: u64) {
    if LIBC_ON.load() == 0 {
        return;
    }
    let tid = low_half(key);
    if let Some(record) = inside(tid) {
        if record.attempt_ns != 0 {
            send(record);
        }
        // It was just there.
        _ = LIBC.remove(tid);
    }
}
