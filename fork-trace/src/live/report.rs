//! What a trace says of itself: `loss` lines and the `summary`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use fork_trace_common::counter::Counter;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};

use crate::{
    bpf::tracer::Tracer,
    event::{
        notice::{Loss, UNWRITTEN, UNWRITTEN_FOLLOW_UPS},
        summary::{Own, Summary},
        values::Name,
    },
    host::{functions::ProbeKind, process},
    live::{
        account::{self, Differences},
        counts::LostHere,
        stream::Stream,
    },
};

/// Counters of what was lost: the name of each in a `loss` line, and whether each one is an
/// attempt that is not shown.
const LOSSES: [(Counter, &str, bool); 20] = [
    (Counter::RingFullForks, "ring_full", true),
    (Counter::RingFullFailures, "ring_full", true),
    (Counter::InFlightFull, "in_flight_full", true),
    (Counter::Brief, "brief", false),
    (Counter::FunctionTimesLost, "calls_lost", false),
    (Counter::RingFullStarts, "child_start_ring_full", false),
    (Counter::OnCpuFull, "on_cpu_full", false),
    (Counter::FollowFull, "follow_full", false),
    (Counter::RingFullRefusals, "refusal_ring_full", false),
    (Counter::RingFullFollowUps, "follow_up_ring_full", false),
    (Counter::BornFull, "children_full", false),
    (Counter::WaitsFull, "vfork_waits_full", false),
    (Counter::RingFullPrograms, "program_ring_full", false),
    (Counter::OffCpuFull, "off_cpu_full", false),
    (Counter::RingFullOffCpu, "off_cpu_ring_full", false),
    (Counter::OffCpuMissed, "off_cpu_missed", false),
    (Counter::SamplesLost, "samples_lost", false),
    (Counter::LibcFull, "libc_full", false),
    (Counter::RingFullLibc, "libc_ring_full", false),
    (Counter::StacksLost, "stacks_lost", false),
];

/// Children that were not watched for an exec.
const WATCHED_FULL: &str = "watched_full";

/// The name of each sort of loss that there is.
#[must_use]
pub fn sorts_of_loss() -> Vec<&'static str> {
    let here = [WATCHED_FULL, UNWRITTEN, UNWRITTEN_FOLLOW_UPS];
    LOSSES.iter().map(|(_, name, _)| *name).chain(here).collect()
}

/// Time of this process on CPUs, user and system, in nanoseconds.
///
/// # Errors
/// The system does not say.
pub fn own_cpu_ns() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("ask for own resource use")?;
    Ok(time_ns(usage.user_time()) + time_ns(usage.system_time()))
}

/// What was lost up to the last look.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Attempts lost so far.
    pub lost: u64,
    /// Everything lost so far, by place.
    pub by: BTreeMap<Name, u64>,
    /// Values of [`LOSSES`] at the last look.
    counts: [u64; LOSSES.len()],
    since_ns: u64,
}

impl Losses {
    /// Nothing was lost before `since_ns` (`CLOCK_MONOTONIC`).
    #[must_use]
    pub const fn new(since_ns: u64) -> Self {
        Self { lost: 0, by: BTreeMap::new(), counts: [0; LOSSES.len()], since_ns }
    }

    /// What was lost since the last look, at `now_ns`; `None`: nothing. `here` was lost since then
    /// too.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn next(&mut self, tracer: &Tracer, here: LostHere, now_ns: u64) -> Result<Option<Loss>> {
        let mut loss = Loss { records: 0, by: BTreeMap::new(), since_mono_ns: self.since_ns };
        for ((counter, name, attempt), known) in LOSSES.iter().zip(&mut self.counts) {
            let count = tracer.counter(*counter)?;
            let new = count - *known;
            *known = count;
            if new > 0 {
                *loss.by.entry(Name::Borrowed(*name)).or_default() += new;
                loss.records += u64::from(*attempt) * new;
            }
        }
        let LostHere { unwatched, unwritten, unwritten_follow_ups } = here;
        loss.records += unwritten;
        for (name, new) in [
            (WATCHED_FULL, unwatched),
            (UNWRITTEN, unwritten),
            (UNWRITTEN_FOLLOW_UPS, unwritten_follow_ups),
        ] {
            if new > 0 {
                loss.by.insert(Name::Borrowed(name), new);
            }
        }
        if loss.by.is_empty() {
            return Ok(None);
        }
        self.lost += loss.records;
        for (name, new) in &loss.by {
            *self.by.entry(name.clone()).or_default() += new;
        }
        self.since_ns = now_ns;
        Ok(Some(loss))
    }
}

/// What the trace cost, and how the kernel's own count began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Time from the start to the moment when everything was attached.
    pub attach_ns: u64,
    /// Time to detach the tracepoints.
    pub detach_ns: u64,
}

/// The `summary` line of a trace that has ended, without what each output fills in: the counts of what it
/// shows. `differences` are those between the kernel's count and ours.
///
/// # Errors
/// The maps of the kernel side cannot be read.
pub fn summary(
    tracer: &Tracer,
    stream: &mut Stream,
    losses: &Losses,
    costs: Costs,
    differences: Option<Differences>,
) -> Result<Summary> {
    let count = |counter| tracer.counter(counter);
    let counts = stream.counts;
    let (under_way, with_child) = tracer.attempts_under_way()?;
    let seen = count(Counter::Seen)?;
    let new_tasks = account::new_tasks(tracer)?;
    let filtered = count(Counter::FilteredKind)? + count(Counter::FilteredTask)?;
    let outcome = count(Counter::FilteredOutcome)?;
    let ring_full = count(Counter::RingFullForks)?;
    let received = counts.received + ring_full + with_child + outcome;
    log::info!(
        "of {new_tasks} new tasks {seen} were to be shown and {received} were told of; the kernel's count \
         less ours at the beginning and at the end: {differences:?}"
    );
    let (threads_left, threads_not_followed) = stream.threads_left();
    Ok(Summary {
        lost: losses.lost,
        lost_tasks: Some(ring_full + count(Counter::Unentered)? + counts.unwritten_tasks),
        lost_by: losses.by.clone(),
        filtered: Some(filtered + outcome + counts.cut),
        under_way: Some(under_way + counts.under_way),
        under_way_tasks: Some(with_child + counts.under_way_tasks),
        kernel_forks: differences.and_then(|(began, ended)| (new_tasks + ended).checked_sub(began)),
        accounted: differences.map(|(began, ended)| began == ended && seen == received),
        traced_ns: stream.traced_ns(),
        own: Some(own(costs)?),
        missed_runs: missed_runs(tracer),
        threads_left,
        threads_not_followed,
        ..Summary::default()
    })
}

/// Skipped runs by tracepoint, and by function, entry and return together.
fn missed_runs(tracer: &Tracer) -> BTreeMap<Name, u64> {
    let mut missed = BTreeMap::new();
    for (program, count) in tracer.missed_runs() {
        let kinds = [ProbeKind::Fentry, ProbeKind::Kprobe].map(ProbeKind::programs);
        let mut kinds = kinds.iter().flatten();
        let function = kinds.find_map(|kind| program.strip_prefix(kind)).unwrap_or(&program);
        *missed.entry(Name::Owned(function.to_owned())).or_default() += count;
    }
    missed
}

fn own(costs: Costs) -> Result<Own> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("ask for own resource use")?;
    let cpu_ns = own_cpu_ns()?;
    // KERNEL: kernel/sys.c `getrusage`: ru_maxrss is in KiB. It is not asked first, because it includes what
    // this process had before its exec, which for a moment may be the memory of a large parent.
    let used = || u64::try_from(usage.max_rss()).unwrap_or_default() * 1024;
    let max_rss_bytes = process::peak_resident_bytes().unwrap_or_else(used);
    Ok(Own { cpu_ns, max_rss_bytes, attach_ns: costs.attach_ns, detach_ns: costs.detach_ns })
}

fn time_ns(time: TimeVal) -> u64 {
    u64::try_from(time.num_microseconds()).unwrap_or_default().saturating_mul(1_000)
}

/// A duration in nanoseconds.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
