//! Forks that work for long in one function, with their own truth: what a fork of the same process
//! takes with that work, less what it takes without.
//!
//! Out: one line, with CPU times of the calling thread during the call, so that a busy host changes
//! nothing. A switch to another task and back is work too, and with thousands of perf events much of it: a
//! fork without a switch is taken, where one of several is.

use std::ffi::c_int;

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    call::Skip,
    held::until,
    sys::{
        self, Errno,
        fork::libc_fork,
        memory::{rewrite, scatter},
        trouble::{cpu_ns, inherited_counter, switches},
    },
};

/// What the fork works at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// The reverse mapping of a process at the end of a chain of forks.
    AnonVma,
    /// Perf events that children inherit.
    PerfEvents,
}

/// The truth about one fork.
#[derive(Debug, Serialize)]
pub(crate) struct Truth {
    r#type: &'static str,
    work: Work,
    parent_tid: c_int,
    child: c_int,
    /// CPU time of the fork.
    cpu_ns: u64,
    /// That of a fork without the work.
    without_ns: u64,
}

/// How long the chain is, and how many mappings each of its processes has.
const GENERATIONS: usize = 60;
const MAPPINGS: usize = 2000;
/// How many perf events there are.
const EVENTS: usize = 8000;

/// Makes one fork of a kind, in this process or in a descendant; returns its truth in that, and
/// nothing in others.
pub(crate) fn run(work: Work) -> Result<Option<Truth>, Skip> {
    let made = match work {
        Work::AnonVma => anon_vma(),
        Work::PerfEvents => perf_events(),
    };
    made.map_err(|errno| Skip::step("make a fork that works for long", errno))
}

/// How many forks are made at most until one is without a switch.
const TRIES: usize = 20;

/// Forks until the caller kept its CPU for the whole call; returns the last child, and the CPU time of
/// that call.
fn fork() -> Result<(c_int, u64), Errno> {
    let made = until(TRIES, |made: &Made| made.switches == 0, fork_once)?;
    Ok((made.child, made.cpu_ns))
}

/// One fork.
struct Made {
    child: c_int,
    /// CPU time of the call.
    cpu_ns: u64,
    /// How often the caller left its CPU meanwhile.
    switches: i64,
}

/// Forks with as little as can be around the call: after it each first write to a page is a fault, which
/// thousands of inherited counters make expensive.
fn fork_once() -> Result<Made, Errno> {
    let (before, left_before) = (cpu_ns(), switches());
    let child = libc_fork();
    if child == 0 {
        sys::exit_now(0);
    }
    let (cpu_ns, switches) = (cpu_ns() - before, switches() - left_before);
    if child < 0 {
        return Err(-child);
    }
    sys::reap(child);
    Ok(Made { child, cpu_ns, switches })
}

fn truth(work: Work, without_ns: u64) -> Result<Option<Truth>, Errno> {
    let (child, cpu_ns) = fork()?;
    Ok(Some(Truth { r#type: "work", work, parent_tid: sys::tid(), child, cpu_ns, without_ns }))
}

/// Each process of the chain writes to each mapping, so that its pages are its own and its
/// ancestors' too, forks, and waits.
fn anon_vma() -> Result<Option<Truth>, Errno> {
    let at = scatter(MAPPINGS)?;
    let (_, without_ns) = fork()?;
    for _ in 0..GENERATIONS {
        rewrite(at, MAPPINGS);
        let parent = sys::tgid();
        match libc_fork() {
            0 => sys::die_with(parent),
            child if child < 0 => return Err(-child),
            child => {
                sys::reap(child);
                return Ok(None);
            }
        }
    }
    truth(Work::AnonVma, without_ns)
}

fn perf_events() -> Result<Option<Truth>, Errno> {
    let most = EVENTS as libc::rlim_t + 100;
    sys::limit(libc::RLIMIT_NOFILE, most)?;
    let (_, without_ns) = fork()?;
    for _ in 0..EVENTS {
        inherited_counter()?;
    }
    truth(Work::PerfEvents, without_ns)
}
