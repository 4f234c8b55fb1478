//! Loads that are measured or only counted: benchmarks, storms, held vforks.

use std::{ffi::c_int, panic::resume_unwind, sync::RwLock};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    attempt::{After, attempt, in_child},
    call::{Call, Note},
    sys::{
        self,
        fork::{self, libc_fork},
        script::Leash,
        timed,
    },
};

/// What a benchmark does.
#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    /// The caller's time in `fork()`.
    Fork,
    /// `fork()`, the child's exit and the wait for it.
    ForkExitWait,
    /// A system call that has nothing to do with forks, timed in batches.
    Getppid,
}

/// A benchmark's result: nanoseconds for one operation.
#[derive(Serialize)]
pub(crate) struct Figures {
    op: Op,
    /// Operations made.
    count: usize,
    median_ns: f64,
    p10_ns: f64,
    p90_ns: f64,
    mean_ns: f64,
}

/// How many operations are timed at once where one takes hardly longer than a look at the clock.
const BATCH: u32 = 1_000;

/// Runs a benchmark. Asked to stop, it ends early with what it has.
pub(crate) fn bench(op: Op, count: usize) -> Figures {
    let (sample, batch): (fn() -> u64, u32) = match op {
        Op::Fork => (fork_ns, 1),
        Op::ForkExitWait => (cycle_ns, 1),
        Op::Getppid => (getppids_ns, BATCH),
    };
    let samples = count.div_ceil(batch as usize);
    let going = (0..samples).take_while(|_| sys::stop_signal().is_none());
    let mut all_ns: Vec<f64> = going.map(|_| sample() as f64 / f64::from(batch)).collect();
    all_ns.sort_by(f64::total_cmp);
    let percentile = |p: usize| {
        let at = all_ns.len().saturating_sub(1) * p / 100;
        all_ns.get(at).copied().unwrap_or(0.0)
    };
    Figures {
        op,
        count: all_ns.len() * batch as usize,
        median_ns: percentile(50),
        p10_ns: percentile(10),
        p90_ns: percentile(90),
        mean_ns: tenths(all_ns.iter().sum::<f64>() / all_ns.len().max(1) as f64),
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Forks in libc; the child exits at once.
pub(crate) fn fork_and_exit() -> c_int {
    let ret = libc_fork();
    if ret == 0 {
        sys::exit_now(0);
    }
    ret
}

fn fork_ns() -> u64 {
    let (child, times) = timed(fork_and_exit);
    sys::reap(child);
    times.end_ns - times.start_ns
}

fn cycle_ns() -> u64 {
    let (_, times) = timed(|| sys::wait(fork_and_exit()));
    times.end_ns - times.start_ns
}

fn getppids_ns() -> u64 {
    let (_, times) = timed(|| {
        for _ in 0..BATCH {
            // SAFETY: takes no arguments, always succeeds.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
    });
    times.end_ns - times.start_ns
}

/// Forks and waits `count` times in each of `threads` threads; returns as [`storm`] does.
pub(crate) fn storms(count: usize, threads: usize) -> (usize, usize) {
    let gate = RwLock::new(());
    std::thread::scope(|scope| {
        let closed = gate.write();
        let of_one = || {
            scope.spawn(|| {
                // This waits until all threads are there, or one could not be made.
                drop(gate.read());
                storm(count, fork::fork)
            })
        };
        let all: Vec<_> = (0..threads).map(|_| of_one()).collect();
        drop(closed);
        let ended =
            all.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}

/// Forks and waits `count` times; the children that `fork` makes exit. Returns how many forks
/// succeeded and how many failed.
pub(crate) fn storm(count: usize, fork: fn() -> c_int) -> (usize, usize) {
    let (mut succeeded, mut failed) = (0, 0);
    for _ in 0..count {
        if sys::stop_signal().is_some() {
            break;
        }
        match fork() {
            child @ 1.. => {
                succeeded += 1;
                sys::reap(child);
            }
            _ => failed += 1,
        }
    }
    (succeeded, failed)
}

/// Makes `count` children that vfork at the same time; each is held by a vfork child that sleeps
/// for `ms`.
pub(crate) fn hold_vforks(count: usize, ms: u32) {
    let helper = Call::libc_fork().note(Note::Helper);
    let mut held = Vec::new();
    for _ in 0..count {
        let child = in_child(&helper, true, libc_fork, || {
            let leash = Leash::new()?;
            let script = leash.script(ms);
            attempt(&Call::vfork(), || fork::vfork(&script));
            Ok(())
        });
        if let After::Parent(tid) = child {
            held.push(tid);
        }
    }
    while let Ok(end) = sys::try_wait(-1, libc::WNOHANG) {
        if sys::stop_signal().is_some() {
            for &tid in &held {
                // It does not matter if it has ended already.
                sys::kill(tid, libc::SIGKILL).ok();
            }
        }
        if end.is_none() {
            sys::sleep_ms(2);
        }
    }
}
