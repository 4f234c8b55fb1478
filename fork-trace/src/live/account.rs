//! Does what was shown agree with what the kernel counted?
//!
//! The kernel counts each new task in `processes` of `/proc/stat`; the kernel side counts each
//! `task_newtask`. Their difference stays the same while the programs are attached, or something
//! was missed.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use fork_trace_common::counter::Counter;

use crate::{bpf::tracer::Tracer, host::counts};

/// Equal readings after which a difference counts as known.
const AGREEING: u32 = 3;
/// Between two readings: whoever disturbed one may be gone by the next.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the first readings may take: later ones make up for what they miss.
const FIRST: Duration = Duration::from_millis(50);

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

/// `processes` less the tasks counted by the kernel side.
///
/// It can only be read too large, never too small. Tasks that are made between the reading of the two
/// numbers make it too large, and so do tasks that the kernel has counted and whose `task_newtask` is still
/// to come: their makers may be waiting for a CPU, for as long as other tasks keep them from it.
/// KERNEL: kernel/fork.c `copy_process`: `total_forks` grows under `tasklist_lock`, and interrupts, which
/// may take the CPU away, come right after that lock is released.
///
/// So the smallest of all readings counts, from the beginning of the trace to its end: a task that is missed
/// makes every later one larger.
#[derive(Clone, Debug, Default)]
pub struct Account {
    smallest: Option<u64>,
}

/// What the difference was when tracing began and when it ended.
pub type Differences = (u64, u64);

impl Account {
    /// Takes readings until they agree or some time has passed.
    ///
    /// # Errors
    /// The counters or `/proc/stat` cannot be read.
    pub fn begin(tracer: &Tracer) -> Result<Self> {
        let mut account = Self::default();
        account.read(|| reading(tracer), Instant::now() + FIRST, None)?;
        Ok(account)
    }

    /// Takes one more reading.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn look(&mut self, tracer: &Tracer) -> Result<()> {
        self.read(|| reading(tracer), Instant::now(), None).map(drop)
    }

    /// Takes readings until one shows that nothing was missed, or `until`. `None`: no quiet moment was found
    /// in which the difference could be told exactly.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(self, tracer: &Tracer, until: Instant) -> Result<Option<Differences>> {
        self.compare(|| reading(tracer), until)
    }

    fn compare(
        self,
        readings: impl FnMut() -> Result<Reading>,
        until: Instant,
    ) -> Result<Option<Differences>> {
        let mut last = Self::default();
        let known = last.read(readings, until, self.smallest)?;
        let Some((began, ended)) = self.smallest.zip(last.smallest) else { return Ok(None) };
        // A smaller one shows that those before were too large.
        Ok(if ended <= began { Some((ended, ended)) } else { known.then_some((began, ended)) })
    }

    /// Takes readings until `until`: one at least, and no more once one is as small as `wanted`, or, where
    /// nothing is wanted, once several agree. Returns whether several did.
    fn read(
        &mut self,
        mut readings: impl FnMut() -> Result<Reading>,
        until: Instant,
        wanted: Option<u64>,
    ) -> Result<bool> {
        let mut agreeing = 0;
        loop {
            let Reading { difference, is_quiet } = readings()?;
            if let Some(difference) = difference {
                if self.smallest.is_none_or(|smallest| difference < smallest) {
                    self.smallest = Some(difference);
                    agreeing = 0;
                }
                agreeing += u32::from(is_quiet && self.smallest == Some(difference));
            }
            let reached = match wanted {
                Some(wanted) => self.smallest.is_some_and(|smallest| smallest <= wanted),
                None => agreeing >= AGREEING,
            };
            if reached || Instant::now() >= until {
                return Ok(agreeing >= AGREEING);
            }
            sleep(PAUSE);
        }
    }
}

/// One reading of the difference.
#[derive(Clone, Copy)]
struct Reading {
    /// `None`: the kernel has counted fewer, which cannot be.
    difference: Option<u64>,
    /// Whether the kernel side counted nothing meanwhile.
    is_quiet: bool,
}

fn reading(tracer: &Tracer) -> Result<Reading> {
    let before = new_tasks(tracer)?;
    let difference = counts::kernel_forks()?.checked_sub(before);
    Ok(Reading { difference, is_quiet: new_tasks(tracer)? == before })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings one after the other; the last is repeated.
    fn of(differences: &[u64]) -> impl FnMut() -> Result<Reading> {
        let mut rest = differences.iter().copied();
        let mut last = 0;
        move || {
            last = rest.next().unwrap_or(last);
            Ok(Reading { difference: Some(last), is_quiet: true })
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn began(differences: &[u64]) -> Account {
        let mut account = Account::default();
        account.read(of(differences), soon(), None).unwrap();
        account
    }

    #[test]
    fn makers_that_wait_for_a_cpu_when_tracing_begins_are_no_mismatch() {
        // Four tasks are counted by the kernel and not by us yet, in reading after reading.
        let account = began(&[104, 104, 104]);
        assert_eq!(account.smallest, Some(104));
        assert_eq!(account.compare(of(&[100]), soon()).unwrap(), Some((100, 100)));

        let mut account = began(&[104, 104, 104]);
        account.read(of(&[100]), Instant::now(), None).unwrap();
        assert_eq!(account.compare(of(&[100]), soon()).unwrap(), Some((100, 100)));
    }

    #[test]
    fn makers_that_wait_for_a_cpu_when_tracing_ends_are_waited_for() {
        let account = began(&[100]);
        let readings = of(&[104, 104, 104, 102, 102, 102, 100]);
        assert_eq!(account.compare(readings, soon()).unwrap(), Some((100, 100)));
    }

    #[test]
    fn a_task_that_was_missed_is_told() {
        assert_eq!(began(&[100]).compare(of(&[103, 101]), soon()).unwrap(), Some((100, 101)));
    }

    #[test]
    fn without_a_quiet_moment_nothing_is_claimed() {
        let mut last = 200;
        let readings = || {
            last += 1;
            Ok(Reading { difference: Some(last), is_quiet: false })
        };
        assert_eq!(began(&[100]).compare(readings, soon()).unwrap(), None);
    }
}
