//! How an attempt's record is sent: if its outcome is wanted, right after the functions that the
//! attempt passed and its waits.

use fork_trace_common::{
    counter::Counter,
    record::{ForkRecord, bits},
};

use super::{functions_passed, record::remove, waits};
use crate::{evidence::program::describe_program, filter, follow_up, maps::count, ring};

/// Sends the record of an attempt that is over, after its caller's program, and removes it.
#[inline(always)]
pub(super) fn finish(record: &ForkRecord, key: u64) {
    if filter::outcome_wanted(record) {
        _ = describe_program();
    }
    submit(record, key);
    waits::submit_late(record, key);
    remove(key);
}

/// Sends a record, if its outcome is wanted. It stays in the map.
#[inline(always)]
pub(super) fn submit(record: &ForkRecord, key: u64) {
    if !filter::outcome_wanted(record) {
        functions_passed::forget(key);
        if record.has(bits::WAITED) {
            waits::forget(key);
        }
        if record.has(bits::CHILD) {
            follow_up::unwanted(record);
            count(Counter::FilteredOutcome);
        }
        return;
    }
    let brief = record.has(bits::CHILD) && ring::is_crowded();
    if brief {
        functions_passed::forget(key);
    } else {
        functions_passed::submit(key, record.start_ns);
    }
    if record.has(bits::WAITED) {
        waits::submit(key);
    }
    if brief {
        count(if ring::send_brief(record) { Counter::Brief } else { Counter::RingFullForks });
    } else if !ring::send(record) {
        count(if record.has(bits::CHILD) {
            Counter::RingFullForks
        } else {
            Counter::RingFullFailures
        });
    }
}

/// Sends the record of an attempt whose return was not seen, because the kernel skipped the program
/// there. If the attempt was waiting for its restart, its caller gave it up and nothing is sent.
#[inline(always)]
pub(super) fn submit_unreturned(record: &ForkRecord, key: u64) {
    if !record.has(bits::RESTARTING) {
        submit(record, key);
    }
}
