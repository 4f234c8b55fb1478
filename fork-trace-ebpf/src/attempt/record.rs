//! The records of attempts under way, and the marks in them.

use fork_trace_common::{
    counter::Counter,
    record::{ForkRecord, TracerProgram},
    stage::Mark,
};

use crate::{
    current::now,
    maps::{ATTEMPTS, count},
};

/// What every record begins as.
static EMPTY: ForkRecord = ForkRecord::zeroed();

/// The record of a thread's attempt, if one is under way.
#[inline(always)]
pub(super) fn under_way(key: u64) -> Option<&'static mut ForkRecord> {
    // SAFETY: only the thread that owns the key reads or writes its record, one program at a time.
    ATTEMPTS.get_ptr_mut(key).and_then(|record| unsafe { record.as_mut() })
}

/// Begins a record that is empty; `None` if the map is full. The caller of the system call is still
/// to be filled in.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would pass the stack")]
pub(super) fn insert(key: u64) -> Option<&'static mut ForkRecord> {
    if ATTEMPTS.insert(key, &EMPTY, 0).is_err() {
        count(Counter::InFlightFull);
    }
    under_way(key)
}

/// Removes the record of a thread's attempt, which the caller has just looked up.
#[inline(always)]
pub(super) fn remove(key: u64) {
    // It cannot have gone meanwhile: only the thread that owns the key removes it.
    _ = ATTEMPTS.remove(key);
}

/// Takes a mark.
#[inline(always)]
pub(super) fn set_mark(record: &mut ForkRecord, mark: Mark, at_ns: u64) {
    if let Some(slot) = record.marks.get_mut(mark.place()) {
        *slot = at_ns;
    }
}

/// Writes down how long a program has taken that began at `began_ns`.
#[inline(always)]
pub(super) fn set_tracer_ns(record: &mut ForkRecord, program: TracerProgram, began_ns: u64) {
    if let Some(slot) = record.tracer_ns.get_mut(program as usize) {
        *slot = now().wrapping_sub(began_ns);
    }
}

/// Takes a mark, unless it was taken before: what undoes a failed attempt passes some marks again.
#[inline(always)]
pub(super) fn set_first_mark(record: &mut ForkRecord, mark: Mark, at_ns: u64) {
    if let Some(slot) = record.marks.get_mut(mark.place())
        && *slot == 0
    {
        *slot = at_ns;
    }
}
