//! The one chain from a record of the kernel side to the events that are shown: decode, join,
//! assemble, look up names, find the cause, warn, count.

use std::collections::VecDeque;

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
        fallback::{Fallbacks, Tie, Tied},
        follow_up::Follower,
        join::Joiner,
        joined::Joined,
        times::{Times, began_ns},
        waits,
    },
    bpf::tracer::Tracer,
    cause::{self, Case, Window},
    event::{Event, clock::Clock, fork::Fork, notice::Warning, summary::ThreadsLeft},
    host::{features::Features, limits::LimitReader, lookup::Enricher, user_stacks::UserStacks},
    live::{
        counts::{Counts, LostHere},
        handlers::Handlers,
        holders::Holders,
        kernel_side::KernelSide,
        later_libraries::LaterLibraries,
        libc::UnseenWrappers,
        samples::Samples,
        stacks,
        stuck::StuckAttempts,
        threads::Threads,
        waits::{Waits, explain, still_held},
        wanted::Followed,
        warnings::{Storms, Watcher, no_clone},
    },
    plan::Plan,
};

/// A call that had no entry, by a task older than the trace, may have entered before it: within
/// this time after attaching it is taken for that, later for a refusal.
const UNDER_WAY_NS: u64 = 1_000_000_000;

/// Detaching the entry takes no longer than this: what began in it may have entered unseen.
const CLOSING_NS: u64 = 5_000_000;

/// What is to be shown next.
enum Owed {
    /// An attempt that is still in pieces.
    Attempt(Box<Tied>),
    /// What became of a child.
    FollowUp(Box<Event>),
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
    min_held_ns: u64,
    max_events: Option<u64>,
    joiner: Joiner,
    fallbacks: Fallbacks,
    follower: Follower,
    pub(super) enricher: Enricher,
    limits: LimitReader,
    holders: Holders,
    handlers: Handlers,
    later_libraries: LaterLibraries,
    unseen: UnseenWrappers,
    waits: Waits,
    samples: Samples,
    /// What leads from the frames of callers' stacks to files.
    pub(super) stacks: UserStacks,
    /// `None`: nobody wants to know.
    threads: Option<Threads>,
    pub(super) stuck: StuckAttempts,
    watcher: Watcher,
    storms: Storms,
    /// What is complete and to be shown, in order of time.
    owed: VecDeque<Owed>,
    /// What is to be said once all of that is shown.
    warnings: VecDeque<Warning>,
    /// Whether children that run on without exec were looked for since the last batch.
    looked: bool,
    /// Attempts that are shown, or owed.
    accepted: u64,
    /// What was counted beside it.
    pub counts: Counts,
    /// The same when it was last asked what was lost.
    told: Counts,
}

impl Stream {
    /// For a trace that was attached when `stuck` says, and shows no more than `max_events` attempts.
    #[must_use]
    pub fn new(
        plan: Plan,
        features: Features,
        clock: Clock,
        stuck: StuckAttempts,
        waits: Waits,
        followed: Followed,
        max_events: Option<u64>,
    ) -> Self {
        let times_handlers = plan.libc.as_ref().is_some_and(|probed| probed.times_handlers);
        Self {
            plan,
            features,
            clock,
            attached_ns: stuck.since_ns,
            closed_ns: u64::MAX,
            exits: followed.exits,
            min_held_ns: followed.min_held_ns,
            max_events,
            joiner: Joiner::default(),
            fallbacks: Fallbacks::default(),
            follower: Follower::new(followed.by_outcome),
            enricher: Enricher::new(),
            limits: LimitReader::new(),
            holders: Holders::new(),
            handlers: Handlers::new(times_handlers),
            later_libraries: LaterLibraries::default(),
            unseen: UnseenWrappers::default(),
            waits,
            samples: Samples::default(),
            stacks: UserStacks::default(),
            threads: followed.threads_left.then(Threads::new),
            stuck,
            watcher: Watcher::default(),
            storms: Storms::default(),
            owed: VecDeque::new(),
            warnings: VecDeque::new(),
            looked: true,
            accepted: 0,
            counts: Counts::default(),
            told: Counts::default(),
        }
    }

    /// A new batch of records begins: what was read of the host may have changed.
    pub fn next_batch(&mut self) {
        self.enricher.next_batch();
        self.limits.next_batch();
        self.stacks.next_batch();
    }

    /// From `closed_ns` (`CLOCK_MONOTONIC`) on the entry of calls is no longer seen.
    pub const fn close(&mut self, closed_ns: u64) {
        self.closed_ns = closed_ns;
    }

    /// For how long attempts were followed; `None` until [`Self::close`].
    #[must_use]
    pub fn traced_ns(&self) -> Option<u64> {
        let closed_ns = Some(self.closed_ns).filter(|closed_ns| *closed_ns < u64::MAX)?;
        closed_ns.checked_sub(self.attached_ns)
    }

    /// The threads that are left, and of how many more that is not known; none where nobody wants to know.
    pub fn threads_left(&mut self) -> (Vec<ThreadsLeft>, u64) {
        self.threads.as_mut().map(Threads::left).unwrap_or_default()
    }

    /// Whether as many attempts are shown, or owed, as are wanted.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.max_events.is_some_and(|most| self.accepted >= most)
    }

    /// What was lost here since this was last asked.
    pub fn take_lost(&mut self) -> LostHere {
        let told = std::mem::replace(&mut self.told, self.counts);
        LostHere {
            unwatched: std::mem::take(&mut self.watcher.left_out),
            unwritten: self.counts.unwritten - told.unwritten,
            unwritten_follow_ups: self.counts.unwritten_follow_ups - told.unwritten_follow_ups,
        }
    }

    /// Takes one entry of the ring at `now_ns` (`CLOCK_MONOTONIC`).
    pub fn take(&mut self, bytes: &[u8], now_ns: u64) {
        match decode(bytes) {
            Ok(Record::FollowUp(record)) => {
                self.follower.push(&record, self.clock, now_ns);
                if record.kind == FollowUpKind::VforkReturned as u32 {
                    self.joiner.returned(&record);
                }
                let ended = record.kind == FollowUpKind::Ended as u32;
                if self.exits && ended && record.bits & WHOLE != 0 {
                    self.follower.exited(&record, self.clock, now_ns);
                }
            }
            Ok(Record::Exec(exec)) => {
                if exec.life.kind == FollowUpKind::ExecedWith as u32 {
                    self.follower.push(&exec.life, self.clock, now_ns);
                }
                self.follower.execed(&exec, self.clock, now_ns);
            }
            Ok(record) => {
                match &record {
                    Record::Fork(fork) => {
                        self.counts.received += u64::from(fork.has(bits::CHILD));
                        self.handlers.inherit(fork);
                    }
                    Record::Atfork(atfork) => {
                        self.handlers.push(atfork);
                        self.later_libraries.push(atfork, now_ns);
                    }
                    _ => {}
                }
                self.joiner.push(record, now_ns);
            }
            Err(error) => log::error!("a record from the kernel side: {error:#}"),
        }
    }

    /// Whether there may be more to probe.
    #[must_use]
    pub const fn probes_more(&self) -> bool {
        self.plan.libc.is_some()
    }

    /// Probes what has come since this was last called: C libraries that programs have brought along, and handlers
    /// that they have registered to run at a fork.
    pub fn probe_more(&mut self, kernel: &mut dyn KernelSide, now_ns: u64) {
        if let Some(probed) = &mut self.plan.libc {
            self.later_libraries.probe(kernel, probed, now_ns);
            self.handlers.probe(kernel);
        }
    }

    /// Arranges what is complete by `now_ns` in order of time, to be shown next; with `all` everything that
    /// is held back, complete or not. This is cheap: [`Self::next_event`] does the work. Call it when
    /// nothing is owed any more.
    pub fn arrange(&mut self, kernel: &dyn KernelSide, now_ns: u64, all: bool) {
        self.waits.look_for_lost(kernel, now_ns);
        self.samples.look_for_lost(kernel, now_ns);
        let mut joined = if all { self.joiner.release_all() } else { self.joiner.release(now_ns) };
        for joined in &mut joined {
            joined.waits_incomplete |= self.waits.may_lack(joined);
        }
        let without = self.joiner.take_without_attempt();
        self.warnings.extend(without.iter().filter_map(|wrapper| no_clone(wrapper)));
        let tied = self.fallbacks.tie(joined, now_ns, all);
        let mut owed = Vec::with_capacity(tied.len());
        for (joined, tie) in tied {
            let shown = self.is_shown(kernel, &joined);
            let child = &joined.record.child;
            if joined.record.has(bits::CHILD) && child.tid == child.tgid {
                self.follower.fork(child, shown);
            }
            if shown {
                self.accepted += 1;
                let at_ns = began_ns(&joined.record);
                owed.push((at_ns, Owed::Attempt(Box::new((joined, tie)))));
            }
        }
        let until_ns = if all { u64::MAX } else { now_ns };
        let follow_ups = self.follower.release(self.clock, until_ns);
        owed.extend(
            follow_ups.into_iter().map(|(at_ns, event)| (at_ns, Owed::FollowUp(Box::new(event)))),
        );
        owed.sort_by_key(|(at_ns, _)| *at_ns);
        self.owed.extend(owed.into_iter().map(|(_, owed)| owed));
        self.looked = false;
    }

    /// The next event of what was arranged; `None`: that is all.
    ///
    /// # Errors
    /// The maps of the kernel side cannot be read.
    pub fn next_event(
        &mut self,
        kernel: &mut dyn KernelSide,
        now_ns: u64,
    ) -> Result<Option<Event>> {
        match self.owed.pop_front() {
            Some(Owed::Attempt(attempt)) => {
                let (mut joined, tie) = *attempt;
                let held = still_held(kernel, &joined, now_ns);
                // A caller that is neither away nor known to be back came back unseen.
                joined.waits_incomplete |= held.is_none() && joined.awaits_return();
                let mut fork = self.fork(kernel, &joined, tie);
                fork.warnings.extend(held);
                self.watcher.add(&joined.record, &fork);
                self.warnings.extend(self.storms.add(&fork));
                return Ok(Some(Event::Fork(Box::new(fork))));
            }
            Some(Owed::FollowUp(event)) => return Ok(Some(*event)),
            None => {}
        }
        if !self.looked {
            self.looked = true;
            let line = |(pid, start_ns)| self.enricher.command_line(pid, start_ns);
            let is_without_exec = |child: &_| kernel.still_without_exec(child);
            self.warnings.extend(self.watcher.without_exec(now_ns, is_without_exec, line)?);
        }
        Ok(self.warnings.pop_front().map(Event::Warning))
    }

    /// Looks for attempts that do not end; what is to be told of them is owed.
    ///
    /// # Errors
    /// The maps of the kernel side cannot be read.
    pub fn look_for_stuck(&mut self, tracer: &Tracer, now_ns: u64) -> Result<()> {
        if !self.waits.are_measured {
            return Ok(());
        }
        let stacks = &self.waits.stacks;
        let stuck = self.stuck.look(tracer, &self.plan, stacks, self.clock, now_ns)?;
        self.owed
            .extend(stuck.into_iter().map(|stuck| Owed::FollowUp(Box::new(Event::Stuck(stuck)))));
        Ok(())
    }

    /// Leaves out what is owed, and counts it.
    pub fn leave_out(&mut self) {
        for owed in self.owed.drain(..) {
            match owed {
                Owed::Attempt(attempt) => {
                    self.counts.unwritten += 1;
                    self.counts.unwritten_tasks += u64::from(attempt.0.record.has(bits::CHILD));
                }
                Owed::FollowUp(_) => self.counts.unwritten_follow_ups += 1,
            }
        }
    }

    /// Leaves out one entry of the ring, and counts it. Of a child's execs and end that is one for each; of
    /// parts of attempts it is nothing.
    pub fn leave_out_entry(&mut self, bytes: &[u8]) {
        match decode(bytes) {
            Ok(Record::Fork(fork)) => {
                let made = u64::from(fork.has(bits::CHILD));
                self.counts.received += made;
                if self.is_enough() {
                    self.counts.cut += made;
                } else {
                    self.counts.unwritten += 1;
                    self.counts.unwritten_tasks += made;
                }
            }
            Ok(Record::FollowUp(_) | Record::Exec(_)) => self.counts.unwritten_follow_ups += 1,
            Ok(_) => {}
            Err(error) => log::error!("a record from the kernel side: {error:#}"),
        }
    }

    /// Whether an attempt is shown; one that is not is counted.
    fn is_shown(&mut self, kernel: &dyn KernelSide, joined: &Joined) -> bool {
        let record = &joined.record;
        let entered = record.has(bits::ENTERED | bits::KERNEL_MADE);
        let made = u64::from(record.has(bits::CHILD));
        if !entered && self.may_be_under_way(kernel, record) {
            self.counts.under_way += 1;
            self.counts.under_way_tasks += made;
            return false;
        }
        if self.is_enough() {
            self.counts.cut += made;
            return false;
        }
        // An attempt is wanted unless it is known to be shorter.
        if waits::took_ns(joined).is_some_and(|took_ns| took_ns < self.min_held_ns) {
            self.counts.cut += made;
            return false;
        }
        true
    }

    /// An attempt as it is shown.
    fn fork(&mut self, kernel: &mut dyn KernelSide, joined: &Joined, tie: Option<Tie>) -> Fork {
        let record = &joined.record;
        let mut fork = assemble::fork::fork(joined, &self.plan, self.clock);
        // A tracer may say something else to the caller; what the kernel said is what has a cause.
        if let Some(errno) = assemble::fork::errno(joined) {
            let refusal = joined.refusal.as_deref();
            let times = Times::new(record, joined.functions.as_deref());
            let case = Case {
                errno,
                record,
                refusal,
                after: &self.limits.of(errno, record, refusal),
                features: &self.features,
                window: Window::of(times, &self.plan),
            };
            cause::add(&mut fork, &case);
            if let Some(refusal) = refusal {
                self.holders.add(&mut fork, refusal, kernel);
            }
            assemble::fork::settle(&mut fork, joined, &self.plan);
        }
        let period_ns = self.plan.sample_period_ns();
        let sampled = self.samples.seen(joined, period_ns, &self.waits.stacks);
        let seen = self.waits.seen(joined, &mut self.warnings);
        waits::add(&mut fork, joined, &seen);
        sampled.add(&mut fork);
        if let Some(probed) = &self.plan.libc {
            assemble::libc::add(&mut fork, joined, &probed.names);
            self.unseen.add(&mut fork, record, &probed.files);
            if let Some(libc) = &mut fork.libc {
                self.handlers.add(libc, joined);
            }
        }
        if let Some(tie) = tie {
            tie.tell(&mut fork);
        }
        self.enricher.add(&mut fork, record.parent_proc_pid);
        stacks::add(&mut fork, joined, &mut self.stacks);
        if let Some(threads) = &mut self.threads {
            threads.add(&fork, record);
        }
        explain(&mut fork, joined, &seen);
        cause::slow::add(&mut fork);
        if !self.waits.are_measured {
            // The `start` line says so once for all attempts.
            fork.waits_incomplete = None;
        }
        fork
    }

    /// A call without an entry: was it under way when tracing began or ended, or was its entry
    /// lost, rather than refused or skipped?
    fn may_be_under_way(&self, kernel: &dyn KernelSide, record: &ForkRecord) -> bool {
        let began_ns = began_ns(record);
        let older = record.parent.start_ns < self.attached_ns;
        let soon = began_ns < self.attached_ns + UNDER_WAY_NS;
        // Of a refusal the return is the first that is seen, of another call its child.
        let closing_ns = if record.has(bits::CHILD) { CLOSING_NS } else { 0 };
        let late = began_ns > self.closed_ns.saturating_sub(closing_ns);
        let untracked = kernel.counter(Counter::InFlightFull).is_ok_and(|count| count > 0);
        (older && soon) || late || untracked
    }
}
