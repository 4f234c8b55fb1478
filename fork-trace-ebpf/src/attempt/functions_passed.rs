//! The functions that an attempt passes, where functions can be probed: when it entered and left
//! each of them, and which one was the first to fail.
//!
//! A [`FunctionTimes`] lies beside the attempt's record, under the same key, and is sent right
//! before it. If a function runs while its thread has none, it does not belong to a fork.

use aya_ebpf::{Global, helpers::bpf_get_current_pid_tgid};
use fork_trace_common::{
    counter::Counter,
    function::{FIRST_MANY, Function},
    record::FunctionTimes,
};

use crate::{
    current::{low_half, now, tgid},
    filter,
    kernel::task::Task,
    maps::{FUNCTION_TIMES, count},
    ring,
};

/// 1 where functions are probed. Otherwise the verifier removes all of this.
#[unsafe(no_mangle)]
static FUNCTIONS_ON: Global<u8> = Global::new(0);

/// What the times of every attempt begin as.
static EMPTY: FunctionTimes = FunctionTimes::zeroed();

/// An attempt begins, or begins again.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would pass the stack")]
pub(super) fn begin(key: u64) {
    if FUNCTIONS_ON.load() != 0 && FUNCTION_TIMES.insert(key, &EMPTY, 0).is_err() {
        count(Counter::FunctionTimesLost);
    }
}

/// An attempt that began at `start_ns` ends: the functions that it passed are sent.
#[inline(always)]
pub(super) fn submit(key: u64, start_ns: u64) {
    if FUNCTIONS_ON.load() == 0 {
        return;
    }
    if let Some(times) = under_way(key) {
        times.tid = low_half(key);
        times.start_ns = start_ns;
        if !ring::send_first(&*times) {
            count(Counter::FunctionTimesLost);
        }
    }
    forget(key);
}

/// An attempt is not shown after all.
#[inline(always)]
pub(super) fn forget(key: u64) {
    if FUNCTIONS_ON.load() != 0 {
        // It may not have been there.
        _ = FUNCTION_TIMES.remove(key);
    }
}

/// When the calling thread entered `function` in the attempt under way; 0 if it did not, or if that
/// was not seen.
#[inline(always)]
pub(super) fn entered_ns(key: u64, function: Function) -> u64 {
    if FUNCTIONS_ON.load() == 0 {
        return 0;
    }
    under_way(key)
        .and_then(|times| times.once.get(function as usize))
        .map_or(0, |[entered, _]| *entered)
}

/// A function that every attempt runs is entered. If the thread has no times, they begin here:
/// either the entry of its call was not seen, or the kernel makes a task for itself.
#[inline(always)]
pub(crate) fn begin_unseen() {
    let key = bpf_get_current_pid_tgid();
    if under_way(key).is_none() && filter::wanted(Task::current(), tgid(key)) {
        begin(key);
    }
}

/// Entry of a function that runs once. `function` is its place in the table.
#[inline(never)]
pub(crate) fn enter_once(function: u32) -> i32 {
    let Some(times) = under_way(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some([entered, _]) = times.once.get_mut(function as usize)
        && *entered == 0
    {
        *entered = now();
    }
    0
}

/// Entry of a function whose last run counts. `function` is its place in the table.
#[inline(never)]
pub(crate) fn enter_last(function: u32) -> i32 {
    let Some(times) = under_way(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some(run) = times.once.get_mut(function as usize) {
        *run = [now(), 0];
    }
    0
}

/// Return of a function that runs once, which failed with `errno` unless that is 0.
#[inline(never)]
pub(crate) fn leave_once(function: u32, errno: u32) -> i32 {
    let now = now();
    let Some(times) = under_way(bpf_get_current_pid_tgid()) else { return 0 };
    // Its entry is not asked for, because it may not be probed.
    if let Some([_, left]) = times.once.get_mut(function as usize)
        && *left == 0
    {
        *left = now;
        note_failure(times, function, errno);
    }
    0
}

/// Entry of a function that runs many times. `place` is its place among those.
#[inline(never)]
pub(crate) fn enter_many(place: u32) -> i32 {
    let Some(times) = under_way(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some(runs) = times.many.get_mut(place as usize) {
        runs.entered_ns = now();
        if runs.first_ns == 0 {
            runs.first_ns = runs.entered_ns;
        }
    }
    0
}

/// Return of a function that runs many times, which failed with `errno` unless that is 0.
#[inline(never)]
pub(crate) fn leave_many(place: u32, errno: u32) -> i32 {
    let now = now();
    let Some(times) = under_way(bpf_get_current_pid_tgid()) else { return 0 };
    if let Some(runs) = times.many.get_mut(place as usize)
        && runs.entered_ns != 0
    {
        runs.spent_ns += now - runs.entered_ns;
        runs.last_ns = now;
        runs.entered_ns = 0;
        runs.count += 1;
        note_failure(times, FIRST_MANY + place, errno);
    }
    0
}

/// Notes the first function that fails. It is the innermost, because those around it return later.
#[inline(always)]
fn note_failure(times: &mut FunctionTimes, function: u32, errno: u32) {
    if errno != 0 && times.failed == 0 {
        times.failed = function + 1;
        times.errno = errno & 0xffff;
    }
}

/// The times of a thread's attempt, if one is under way.
#[inline(always)]
fn under_way(key: u64) -> Option<&'static mut FunctionTimes> {
    // SAFETY: only the thread that owns the key reads or writes its times, one program at a time.
    FUNCTION_TIMES.get_ptr_mut(key).and_then(|times| unsafe { times.as_mut() })
}
