//! Does what was shown agree with what the kernel counted?
//!
//! The kernel counts each new task in `processes` of `/proc/stat`; the kernel side counts each
//! `task_newtask`. Their difference stays the same while the programs are attached, or something
//! was missed.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use fork_trace_common::counter::Counter;

use crate::{bpf::tracer::Tracer, host::counts};

/// Equal readings in a row after which the difference counts as known.
const AGREEING: u32 = 3;
/// Pauses of a millisecond: on a host that forks all the time there may be no quiet moment.
const TRIES: u32 = 300;

/// New tasks counted by the kernel side, each in one of these.
const NEW_TASKS: [Counter; 4] =
    [Counter::Seen, Counter::FilteredKind, Counter::FilteredTask, Counter::Unentered];

/// New tasks that the kernel side has counted.
///
/// # Errors
/// The counters cannot be read.
pub fn new_tasks(tracer: &Tracer) -> Result<u64> {
    NEW_TASKS.iter().map(|counter| tracer.counter(*counter)).sum()
}

/// `processes` less the tasks counted by the kernel side; `None` where no quiet moment was found.
///
/// A reading counts when no new task came while it was taken. `processes` is counted a moment
/// before `task_newtask`, so a reading may be too large by the tasks between the two: the smallest
/// of several is taken.
///
/// # Errors
/// The counters or `/proc/stat` cannot be read.
pub fn difference(tracer: &Tracer) -> Result<Option<u64>> {
    let mut smallest = None;
    let mut agreeing = 0;
    for _ in 0..TRIES {
        let before = new_tasks(tracer)?;
        let forks = counts::kernel_forks()?;
        if new_tasks(tracer)? == before {
            let reading = forks.checked_sub(before);
            if smallest.is_none() || reading < smallest {
                smallest = reading;
                agreeing = 0;
            }
            agreeing += u32::from(reading == smallest);
            if agreeing == AGREEING {
                return Ok(smallest);
            }
        }
        sleep(Duration::from_millis(1));
    }
    Ok(None)
}
