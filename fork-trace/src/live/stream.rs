//! The one chain from a record of the kernel side to the events that are shown: decode, join,
//! assemble, look up names, find the cause, warn, count.

use anyhow::Result;
use fork_trace_common::{
    counter::Counter,
    follow_up::{FollowUpKind, bits::WHOLE},
    record::{ForkRecord, bits},
};

use crate::{
    assemble::{
        self,
        decode::{Record, decode},
        follow_up::Follower,
        join::{Joined, Joiner},
        times::Times,
    },
    bpf::tracer::Tracer,
    cause::{self, Case, Window},
    event::{Event, clock::Clock, fork::Fork, notice::Warning, tally::Tally},
    host::{features::Features, limits::LimitReader, lookup::Enricher},
    live::warnings::{self, Storms, Watcher},
    plan::Plan,
};

/// A call that had no entry, by a task older than the trace, may have entered before it: within
/// this time after attaching it is taken for that, later for a refusal.
const UNDER_WAY_NS: u64 = 1_000_000_000;

/// Detaching the entry takes no longer than this: what began in it may have entered unseen.
const CLOSING_NS: u64 = 5_000_000;

/// What becomes of children, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// Only of attempts that are wanted for their outcome.
    pub by_outcome: bool,
    /// Their ends.
    pub exits: bool,
}

/// What was counted on the way, apart from what was shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Records of tasks made that came through the ring.
    pub received: u64,
    /// Attempts that made a task and were left out because enough were shown.
    pub cut: u64,
    /// Attempts taken to have been under way when tracing began or ended.
    pub under_way: u64,
}

/// The chain, with everything that it remembers between two records.
pub struct Stream {
    plan: Plan,
    features: Features,
    /// How the two clocks relate; the realtime clock may be set while we trace.
    pub clock: Clock,
    attached_ns: u64,
    /// When no further entry was seen; `u64::MAX` until then.
    closed_ns: u64,
    exits: bool,
    max_events: Option<u64>,
    joiner: Joiner,
    follower: Follower,
    enricher: Enricher,
    limits: LimitReader,
    watcher: Watcher,
    storms: Storms,
    /// What was shown so far.
    pub tally: Tally,
    /// What was counted beside it.
    pub counts: Counts,
}

impl Stream {
    /// For a trace that was attached at `attached_ns` (`CLOCK_MONOTONIC`) and shows no more than
    /// `max_events` attempts.
    #[must_use]
    pub fn new(
        plan: Plan,
        features: Features,
        clock: Clock,
        attached_ns: u64,
        followed: Followed,
        max_events: Option<u64>,
    ) -> Self {
        Self {
            plan,
            features,
            clock,
            attached_ns,
            closed_ns: u64::MAX,
            exits: followed.exits,
            max_events,
            joiner: Joiner::default(),
            follower: Follower::new(followed.by_outcome),
            enricher: Enricher::new(),
            limits: LimitReader::new(),
            watcher: Watcher::default(),
            storms: Storms::default(),
            tally: Tally::default(),
            counts: Counts::default(),
        }
    }

    /// A new batch of records begins: what was read of the host may have changed.
    pub fn next_batch(&mut self) {
        self.enricher.next_batch();
        self.limits.next_batch();
    }

    /// From `closed_ns` (`CLOCK_MONOTONIC`) on the entry of calls is no longer seen.
    pub const fn close(&mut self, closed_ns: u64) {
        self.closed_ns = closed_ns;
    }

    /// Whether as many attempts were shown as are wanted.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.max_events.is_some_and(|most| self.tally.attempts() >= most)
    }

    /// Children that could not be watched for an exec since this was last asked.
    pub fn take_unwatched(&mut self) -> u64 {
        std::mem::take(&mut self.watcher.left_out)
    }

    /// Takes one entry of the ring at `now_ns` (`CLOCK_MONOTONIC`).
    pub fn take(&mut self, bytes: &[u8], now_ns: u64) {
        match decode(bytes) {
            Ok(Record::FollowUp(record)) => {
                self.follower.push(&record, self.clock, now_ns);
                let ended = record.kind == FollowUpKind::Ended as u32;
                if self.exits && ended && record.bits & WHOLE != 0 {
                    self.follower.exited(&record, self.clock, now_ns);
                }
            }
            Ok(Record::Exec(exec)) => {
                self.follower.push(&exec.life, self.clock, now_ns);
                self.follower.execed(&exec, self.clock, now_ns);
            }
            Ok(record) => {
                if let Record::Fork(fork) = &record {
                    self.counts.received += u64::from(fork.has(bits::CHILD));
                }
                self.joiner.push(record, now_ns);
            }
            Err(error) => log::error!("a record from the kernel side: {error:#}"),
        }
    }

    /// The events that are complete by `now_ns`, in order of time; with `all` everything that is
    /// held back, complete or not.
    ///
    /// # Errors
    /// The maps of the kernel side cannot be read.
    pub fn release(&mut self, tracer: &Tracer, now_ns: u64, all: bool) -> Result<Vec<Event>> {
        let joined = if all { self.joiner.release_all() } else { self.joiner.release(now_ns) };
        let mut events = Vec::with_capacity(joined.len());
        let mut warnings = Vec::new();
        for joined in joined {
            let fork = self.shown(tracer, &joined);
            let child = &joined.record.child;
            if joined.record.has(bits::CHILD) && child.tid == child.tgid {
                self.follower.fork(child, fork.is_some(), now_ns);
            }
            if let Some(fork) = &fork {
                self.watcher.add(&joined.record, fork);
                warnings.extend(self.storms.add(fork));
            }
            events.extend(fork.map(|fork| (fork.mono_ns, Event::Fork(Box::new(fork)))));
        }
        let until_ns = if all { u64::MAX } else { now_ns };
        events.extend(self.follower.release(self.clock, until_ns));
        events.sort_by_key(|(at_ns, _)| *at_ns);
        warnings.extend(self.without_exec(tracer, now_ns)?);
        let warnings = warnings.into_iter().map(Event::Warning);
        Ok(events.into_iter().map(|(_, event)| event).chain(warnings).collect())
    }

    /// Warnings about children of processes with threads that have run for a second without exec.
    fn without_exec(&mut self, tracer: &Tracer, now_ns: u64) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        for watched in self.watcher.due(now_ns) {
            if !tracer.still_without_exec(&watched.child)? {
                continue;
            }
            let line = |(pid, start_ns)| self.enricher.command_line(pid, start_ns);
            let child = line((watched.child.tgid, watched.child.start_ns));
            let parent = line(watched.parent);
            warnings.extend(self.watcher.warning(&watched, parent, child));
        }
        Ok(warnings)
    }

    /// An attempt as it is shown, if it is to be.
    fn shown(&mut self, tracer: &Tracer, joined: &Joined) -> Option<Fork> {
        let record = &joined.record;
        let entered = record.has(bits::ENTERED | bits::KERNEL_MADE);
        if !entered && self.may_be_under_way(tracer, record) {
            self.counts.under_way += 1;
            return None;
        }
        if self.is_enough() {
            self.counts.cut += u64::from(record.has(bits::CHILD));
            return None;
        }
        let mut fork = assemble::fork::fork(joined, &self.plan, self.clock);
        self.enricher.add(&mut fork);
        if let Some(errno) = fork.errno {
            let refusal = joined.refusal.as_deref();
            let times = Times { record, functions: joined.functions.as_deref() };
            let case = Case {
                errno,
                record,
                refusal,
                after: &self.limits.of(errno, refusal),
                features: &self.features,
                window: Window::of(times, &self.plan),
            };
            cause::add(&mut fork, &case);
        }
        fork.warnings.extend(warnings::slow(&fork));
        self.tally.add(&fork);
        Some(fork)
    }

    /// A call without an entry: was it under way when tracing began or ended, or was its entry
    /// lost, rather than refused or skipped?
    fn may_be_under_way(&self, tracer: &Tracer, record: &ForkRecord) -> bool {
        let began_ns = Times { record, functions: None }.began_ns();
        let older = record.parent.start_ns < self.attached_ns;
        let soon = began_ns < self.attached_ns + UNDER_WAY_NS;
        // Of a refusal the return is the first that is seen, of another call its child.
        let closing_ns = if record.has(bits::CHILD) { CLOSING_NS } else { 0 };
        let late = began_ns > self.closed_ns.saturating_sub(closing_ns);
        let untracked = tracer.counter(Counter::InFlightFull).is_ok_and(|count| count > 0);
        (older && soon) || late || untracked
    }
}
