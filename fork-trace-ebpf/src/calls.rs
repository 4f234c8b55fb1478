//! The functions that an attempt passes, where functions can be probed: entry and return of each,
//! and which was the first to fail.
//!
//! A [`FunctionTimes`] is kept beside the attempt's record, under the same key, and is submitted
//! right before it. A function that runs while its thread has none does not belong to a fork.

use aya_ebpf::{Global, helpers::bpf_get_current_pid_tgid};
use fork_trace_common::{
    counter::Counter,
    function::{FIRST_MANY, Function},
    record::FunctionTimes,
};

use crate::{
    filter,
    flight::{self, low, now, tgid},
    kernel::Task,
    maps::{FUNCTION_TIMES, ON_CPU, RING, count},
};

/// 1 where functions are probed; else the verifier removes all of this.
#[unsafe(no_mangle)]
static FUNCTIONS_ON: Global<u8> = Global::new(0);

/// What every attempt begins as.
static EMPTY: FunctionTimes = FunctionTimes::zeroed();

/// An attempt begins, or begins again.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would pass the stack")]
pub(crate) fn begin(key: u64) {
    if FUNCTIONS_ON.load() != 0 && FUNCTION_TIMES.insert(key, &EMPTY, 0).is_err() {
        count(Counter::FunctionTimesLost);
    }
}

/// An attempt ends: what it passed is sent.
#[inline(always)]
pub(crate) fn submit(key: u64, start_ns: u64, flags: u64) {
    if FUNCTIONS_ON.load() == 0 {
        return;
    }
    if let Some(calls) = of(key) {
        calls.tid = low(key);
        calls.start_ns = start_ns;
        if RING.output::<FunctionTimes>(&*calls, flags).is_err() {
            count(Counter::FunctionTimesLost);
        }
    }
    forget(key);
}

/// An attempt is not shown after all.
#[inline(always)]
pub(crate) fn forget(key: u64) {
    if FUNCTIONS_ON.load() != 0 {
        // It may not have been there.
        _ = FUNCTION_TIMES.remove(key);
    }
}

/// When the calling thread entered `function` in the attempt under way; 0: not, or not seen.
#[inline(always)]
pub(crate) fn entered_ns(key: u64, function: Function) -> u64 {
    if FUNCTIONS_ON.load() == 0 {
        return 0;
    }
    of(key).and_then(|calls| calls.once.get(function as usize)).map_or(0, |[entered, _]| *entered)
}

/// Entry of a function that runs once. Which it is is known at compile time: only those that need
/// it carry more than the plain case.
#[inline(always)]
pub(crate) fn enter(function: Function) -> i32 {
    match function {
        Function::KernelClone | Function::CopyProcess => begin_unseen(),
        Function::ScheduleTail => return tail_begins(),
        _ => {}
    }
    enter_once(function as u32)
}

/// Return of a function that runs once, with what `errno` made of its value.
#[inline(always)]
pub(crate) fn leave(function: Function, errno: u32) -> i32 {
    if matches!(function, Function::ScheduleTail) {
        return tail_ends();
    }
    leave_once(function as u32, errno);
    match function {
        Function::WakeUpNewTask => flight::woken(bpf_get_current_pid_tgid()),
        Function::CopyProcess if errno != 0 => flight::not_made(bpf_get_current_pid_tgid(), errno),
        _ => {}
    }
    0
}

/// A call whose entry was not seen, or one that the kernel makes for itself.
#[inline(always)]
fn begin_unseen() {
    let key = bpf_get_current_pid_tgid();
    if of(key).is_none() && filter::wanted(Task::current(), tgid(key)) {
        begin(key);
    }
}

#[inline(never)]
fn enter_once(function: u32) -> i32 {
    let Some(calls) = of(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some([entered, _]) = calls.once.get_mut(function as usize)
        && *entered == 0
    {
        *entered = now();
    }
    0
}

#[inline(never)]
fn leave_once(function: u32, errno: u32) -> i32 {
    let now = now();
    let Some(calls) = of(bpf_get_current_pid_tgid()) else { return 0 };
    // Its entry may not be probed.
    if let Some([_, left]) = calls.once.get_mut(function as usize)
        && *left == 0
    {
        *left = now;
        fails(calls, function, errno);
    }
    0
}

/// Entry of a function that runs many times.
#[inline(never)]
pub(crate) fn enter_many(place: u32) -> i32 {
    let Some(calls) = of(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some(runs) = calls.many.get_mut(place as usize) {
        runs.entered_ns = now();
        if runs.first_ns == 0 {
            runs.first_ns = runs.entered_ns;
        }
    }
    0
}

/// Return of a function that runs many times.
#[inline(never)]
pub(crate) fn leave_many(place: u32, errno: u32) -> i32 {
    let now = now();
    let Some(calls) = of(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some(runs) = calls.many.get_mut(place as usize)
        && runs.entered_ns != 0
    {
        runs.spent_ns += now - runs.entered_ns;
        runs.last_ns = now;
        runs.entered_ns = 0;
        runs.count += 1;
        fails(calls, FIRST_MANY + place, errno);
    }
    0
}

/// The child enters `schedule_tail`.
#[inline(always)]
fn tail_begins() -> i32 {
    let key = bpf_get_current_pid_tgid();
    if let Some(on_cpu) = ON_CPU.get_ptr_mut(low(key)) {
        // SAFETY: only this thread's own programs change its entry.
        unsafe { (*on_cpu).tail_entered_ns = now() };
    }
    0
}

/// The child leaves it.
#[inline(always)]
fn tail_ends() -> i32 {
    let now = now();
    let key = bpf_get_current_pid_tgid();
    let Some(on_cpu) = ON_CPU.get_ptr_mut(low(key)) else { return 0 };
    // SAFETY: only this thread's own programs change its entry.
    let Some(on_cpu) = (unsafe { on_cpu.as_mut() }) else { return 0 };
    if on_cpu.tail_entered_ns != 0 {
        on_cpu.tail_ns = now - on_cpu.tail_entered_ns;
    }
    0
}

/// The first function to fail is the innermost: those around it return later.
#[inline(always)]
fn fails(calls: &mut FunctionTimes, function: u32, errno: u32) {
    if errno != 0 && calls.failed == 0 {
        calls.failed = function + 1;
        calls.errno = errno & 0xffff;
    }
}

#[inline(always)]
fn of(key: u64) -> Option<&'static mut FunctionTimes> {
    // SAFETY: only the thread that owns the key reads or writes its record, one program at a time.
    FUNCTION_TIMES.get_ptr_mut(key).and_then(|calls| unsafe { calls.as_mut() })
}
