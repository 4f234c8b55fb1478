//! The live trace: from the ring to the outputs, until somebody says stop.

use std::{
    collections::BTreeMap,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use fork_trace_common::{
    counter::Counter,
    follow_up::{FollowUpKind, bits::WHOLE},
    record::{ForkRecord, bits},
};
use jiff::Timestamp;
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
        time::TimeVal,
    },
    unistd::Pid,
};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    account,
    after::After,
    assemble::{self, Clock},
    attach::Tracer,
    cause::{self, Case, Features, Window},
    decode::{Record, decode},
    enrich::Enricher,
    follow::Follower,
    fork::{Event, Filters, Fork, Loss, Name, Own, SCHEMA_VERSION, Start, Summary, Warning},
    functions::ProbeKind,
    host::{self, Host},
    join::{Joined, Joiner},
    pipeline::Outputs,
    plan::{Plan, Tracepoint},
    ring::Ring,
    spans::Times,
    summary::Tally,
    warn::{self, Storms, Watcher},
};

/// ProbeKind often the ring is emptied when nobody calls.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks at the loss counters.
const TICKS_PER_LOSS_CHECK: u32 = 20;
/// Entries taken from the ring before they are written.
const BATCH: usize = 4096;
/// A call that had no entry, by a task older than the trace, may have entered before it: within
/// this time after attaching it is taken for that, later for a refusal.
const UNDER_WAY_NS: u64 = 1_000_000_000;

/// Detaching the entry takes no longer than this: what began in it may have entered unseen.
const CLOSING_NS: u64 = 5_000_000;

/// Counters of what was lost: the name of each in a `loss` line, and whether each one is an
/// attempt that is not shown.
const LOSSES: [(Counter, &str, bool); 11] = [
    (Counter::RingFullForks, "ring_full", true),
    (Counter::RingFullFailures, "ring_full", true),
    (Counter::InFlightFull, "in_flight_full", true),
    (Counter::FunctionTimesLost, "calls_lost", false),
    (Counter::RingFullStarts, "child_start_ring_full", false),
    (Counter::OnCpuFull, "on_cpu_full", false),
    (Counter::FollowFull, "follow_full", false),
    (Counter::RingFullRefusals, "refusal_ring_full", false),
    (Counter::RingFullFollowUps, "follow_up_ring_full", false),
    (Counter::BornFull, "children_full", false),
    (Counter::WaitsFull, "vfork_waits_full", false),
];

/// What becomes of children, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// Only of attempts that are wanted for their outcome.
    pub by_outcome: bool,
    /// Their ends.
    pub exits: bool,
}

/// When to stop, apart from signals and the command's end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time.
    pub duration: Option<Duration>,
    /// After this many attempts.
    pub max_events: Option<u64>,
}

/// Why a trace stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A limit was reached, or nobody reads any more; a command may still run.
    Limit,
    /// A signal asked for it.
    Signal,
    /// The command ended.
    Command(ExitStatus),
}

/// What is left of a trace.
pub struct Ended {
    /// Records that were lost.
    pub lost: u64,
    /// What is still attached: functions, from which the kernel takes long to detach.
    pub tracer: Tracer,
}

/// A trace under way.
pub struct Live {
    tracer: Tracer,
    ring: Ring,
    plan: Plan,
    clock: Clock,
    attached_ns: u64,
    attach_ns: u64,
    joiner: Joiner,
    follower: Follower,
    exits: bool,
    watcher: Watcher,
    storms: Storms,
    enricher: Enricher,
    after: After,
    features: Features,
    tally: Tally,
    outputs: Outputs,
    limits: Limits,
    /// `processes` of /proc/stat less the tasks counted by the kernel side, when tracing began.
    difference: Option<u64>,
    /// Records of tasks made that came through the ring.
    received: u64,
    /// Attempts that made a task and were left out: not asked for, or enough were shown.
    cut: u64,
    /// Attempts taken to have been under way when tracing began or ended.
    under_way: u64,
    /// When no further entry was seen; `u64::MAX` until then.
    closed_ns: u64,
    /// Attempts lost so far.
    lost: u64,
    /// Values of [`LOSSES`] at the last look.
    losses: [u64; LOSSES.len()],
    loss_since_ns: u64,
}

impl Live {
    /// Attaches everything and writes the `start` line.
    ///
    /// # Errors
    /// This host or user cannot trace, or an output cannot be written.
    pub fn begin(
        host: &Host,
        plan: Plan,
        (mut tracer, ring): (Tracer, RingBuf<MapData>),
        (filters, followed): (Filters, Followed),
        limits: Limits,
        mut outputs: Outputs,
        since: Instant,
    ) -> Result<Self> {
        tracer.attach(&plan)?;
        let attach_ns = nanos(since.elapsed());
        log::info!("attached everything after {:.1?}", since.elapsed());
        let difference = account::difference(&tracer)?;
        let mono_ns = host::monotonic_ns().context("read the monotonic clock")?;
        let clock = Clock::new(Timestamp::now(), mono_ns);
        outputs.event(&Event::Start(Box::new(Start {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ts: clock.at(mono_ns),
            mono_ns,
            host: host.info.clone(),
            backend: Name::Borrowed(plan.backend.name()),
            filters,
            stages: plan.coverage.clone(),
        })));
        if let Some(reason) = &plan.shortfall {
            outputs.event(&Event::Warning(Warning {
                code: Name::Borrowed("no-inner-marks"),
                text: format!("most stages of copy_process cannot be told apart: {reason}"),
                hint: Some("`fork-trace doctor` shows what can be seen of each stage".to_owned()),
                fork: None,
            }));
        }
        outputs.flush()?;
        Ok(Self {
            tracer,
            ring: Ring::new(ring)?,
            plan,
            clock,
            attached_ns: mono_ns,
            attach_ns,
            joiner: Joiner::default(),
            follower: Follower::new(followed.by_outcome),
            exits: followed.exits,
            watcher: Watcher::default(),
            storms: Storms::default(),
            enricher: Enricher::new(),
            after: After::new(),
            features: host.features,
            tally: Tally::default(),
            outputs,
            limits,
            difference,
            received: 0,
            cut: 0,
            under_way: 0,
            closed_ns: u64::MAX,
            lost: 0,
            losses: [0; LOSSES.len()],
            loss_since_ns: mono_ns,
        })
    }

    /// Says something to the user.
    pub fn say(&mut self, text: &str) {
        self.outputs.say(text);
    }

    /// Traces until a limit, a signal, or the end of `command`.
    ///
    /// # Errors
    /// An output cannot be written, or the kernel side's maps cannot be read.
    pub async fn run(
        &mut self,
        command: &mut Option<Child>,
        signals: &mut Signals,
    ) -> Result<Stop> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self.limits.duration.map(|duration| tokio::time::Instant::now() + duration);
        let mut ticks = 0;
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    if !signals.passed_on(signal, command.as_ref()) {
                        return Ok(Stop::Signal);
                    }
                }
                status = ended(command) => return status.map(Stop::Command),
                () = at(end) => return Ok(Stop::Limit),
                called = self.ring.called() => called?,
                _ = tick.tick() => {
                    ticks += 1;
                    if ticks % TICKS_PER_LOSS_CHECK == 0 {
                        self.refresh_clock()?;
                        self.losses()?;
                    }
                }
            }
            self.take()?;
            if !self.outputs.is_open() || self.enough() {
                return Ok(Stop::Limit);
            }
        }
    }

    /// Detaches, functions apart, and writes what is owed and the `summary` line.
    ///
    /// # Errors
    /// An output cannot be written, or the kernel side's maps cannot be read.
    pub fn finish(mut self) -> Result<Ended> {
        let began = Instant::now();
        // No new attempt is followed; those under way come to their end meanwhile.
        self.tracer.detach(Tracepoint::SysEnter);
        self.closed_ns = host::monotonic_ns().context("read the monotonic clock")?;
        let difference = account::difference(&self.tracer)?;
        for tracepoint in Tracepoint::ALL {
            self.tracer.detach(*tracepoint);
        }
        let detach_ns = nanos(began.elapsed());
        while self.collect() {
            self.release(false)?;
        }
        self.release(true)?;
        self.tracer.log();
        self.losses()?;
        let summary = self.summary(difference, detach_ns)?;
        self.outputs.event(&Event::Summary(Box::new(summary)));
        self.outputs.flush()?;
        Ok(Ended { lost: self.lost, tracer: self.tracer })
    }

    fn enough(&self) -> bool {
        self.limits.max_events.is_some_and(|most| self.tally.attempts() >= most)
    }

    /// Empties the ring.
    fn take(&mut self) -> Result<()> {
        self.enricher.next_batch();
        self.after.next_batch();
        while self.collect() && !self.enough() {
            self.release(false)?;
        }
        self.release(false)?;
        self.tracer.log();
        self.outputs.flush()?;
        Ok(())
    }

    /// Takes one batch from the ring; returns whether there may be more.
    fn collect(&mut self) -> bool {
        let Ok(now_ns) = host::monotonic_ns() else {
            return false;
        };
        let Self { ring, joiner, received, follower, exits, clock, .. } = self;
        ring.drain(BATCH, |bytes| match decode(bytes) {
            Ok(Record::FollowUp(life)) => {
                follower.push(&life, *clock, now_ns);
                if *exits && life.kind == FollowUpKind::Ended as u32 && life.bits & WHOLE != 0 {
                    follower.exited(&life, *clock, now_ns);
                }
            }
            Ok(Record::Exec(exec)) => {
                follower.push(&exec.life, *clock, now_ns);
                follower.execed(&exec, *clock, now_ns);
            }
            Ok(record) => {
                if let Record::Fork(fork) = &record {
                    *received += u64::from(fork.has(bits::CHILD));
                }
                joiner.push(record, now_ns);
            }
            Err(error) => log::error!("a record from the kernel side: {error:#}"),
        })
    }

    fn release(&mut self, all: bool) -> Result<()> {
        let now_ns = host::monotonic_ns().context("read the monotonic clock")?;
        let joined = if all { self.joiner.release_all() } else { self.joiner.release(now_ns) };
        let mut events = Vec::with_capacity(joined.len());
        let mut warnings = Vec::new();
        for joined in joined {
            let fork = self.shown(&joined);
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
        warnings.extend(self.without_exec(now_ns)?);
        let warnings = warnings.into_iter().map(Event::Warning);
        for event in events.into_iter().map(|(_, event)| event).chain(warnings) {
            self.outputs.event(&event);
        }
        Ok(())
    }

    /// Children of processes with threads that have run for a second without exec.
    fn without_exec(&mut self, now_ns: u64) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        for watched in self.watcher.due(now_ns) {
            if !self.tracer.still_without_exec(&watched.child)? {
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
    fn shown(&mut self, joined: &Joined) -> Option<Fork> {
        let record = &joined.record;
        if !record.has(bits::ENTERED | bits::KERNEL_MADE) && self.may_be_under_way(record) {
            self.under_way += 1;
            return None;
        }
        if self.enough() {
            self.cut += u64::from(record.has(bits::CHILD));
            return None;
        }
        let mut fork = assemble::fork(joined, &self.plan, self.clock);
        self.enricher.add(&mut fork);
        if let Some(errno) = fork.errno {
            let refusal = joined.refusal.as_deref();
            let case = Case {
                errno,
                record,
                refusal,
                after: &self.after.of(errno, refusal),
                features: &self.features,
                window: Window::of(Times { record, calls: joined.calls.as_deref() }, &self.plan),
            };
            cause::add(&mut fork, &case);
        }
        fork.warnings.extend(warn::slow(&fork));
        self.tally.add(&fork);
        Some(fork)
    }

    /// A call without an entry: was it under way when tracing began or ended, or was its entry
    /// lost, rather than refused or skipped?
    fn may_be_under_way(&self, record: &ForkRecord) -> bool {
        let began_ns = Times { record, calls: None }.began_ns();
        let older = record.parent.start_ns < self.attached_ns;
        let soon = began_ns < self.attached_ns + UNDER_WAY_NS;
        // Of a refusal the return is the first that is seen, of another call its child.
        let closing_ns = if record.has(bits::CHILD) { CLOSING_NS } else { 0 };
        let late = began_ns > self.closed_ns.saturating_sub(closing_ns);
        let untracked = self.tracer.counter(Counter::InFlightFull).is_ok_and(|count| count > 0);
        (older && soon) || late || untracked
    }

    /// The realtime clock may be set while we trace.
    fn refresh_clock(&mut self) -> Result<()> {
        let mono_ns = host::monotonic_ns().context("read the monotonic clock")?;
        self.clock = Clock::new(Timestamp::now(), mono_ns);
        Ok(())
    }

    /// Writes a `loss` line if something was lost since the last one.
    fn losses(&mut self) -> Result<()> {
        let mut loss = Loss { records: 0, by: BTreeMap::new(), since_mono_ns: self.loss_since_ns };
        for ((counter, name, attempt), known) in LOSSES.iter().zip(&mut self.losses) {
            let count = self.tracer.counter(*counter)?;
            let new = count - *known;
            *known = count;
            if new > 0 {
                *loss.by.entry(Name::Borrowed(*name)).or_default() += new;
                loss.records += u64::from(*attempt) * new;
            }
        }
        let left_out = std::mem::take(&mut self.watcher.left_out);
        if left_out > 0 {
            loss.by.insert(Name::Borrowed("watched_full"), left_out);
        }
        if loss.by.is_empty() {
            return Ok(());
        }
        self.lost += loss.records;
        self.loss_since_ns = host::monotonic_ns().context("read the monotonic clock")?;
        self.outputs.event(&Event::Loss(loss));
        Ok(())
    }

    fn summary(&self, difference: Option<u64>, detach_ns: u64) -> Result<Summary> {
        let count = |counter| self.tracer.counter(counter);
        let flights = self.tracer.attempts_with_child()?;
        let seen = count(Counter::Seen)?;
        let new_tasks = account::new_tasks(&self.tracer)?;
        let filtered = count(Counter::FilteredKind)? + count(Counter::FilteredTask)?;
        let outcome = count(Counter::FilteredOutcome)?;
        let agreed = self.difference.zip(difference);
        let received = self.received + count(Counter::RingFullForks)? + flights + outcome;
        Ok(Summary {
            lost: self.lost,
            filtered: Some(filtered + outcome + self.cut),
            under_way: Some(count(Counter::Unentered)? + flights + self.under_way),
            kernel_forks: agreed.and_then(|(began, ended)| (new_tasks + ended).checked_sub(began)),
            accounted: agreed.map(|(began, ended)| began == ended && seen == received),
            own: Some(self.own(detach_ns)?),
            missed_runs: self.missed_runs(),
            ..self.tally.summary()
        })
    }

    /// Skipped runs by tracepoint, and by function, entry and return together.
    fn missed_runs(&self) -> BTreeMap<Name, u64> {
        let mut missed = BTreeMap::new();
        for (program, count) in self.tracer.missed_runs() {
            let kinds = [ProbeKind::Fentry, ProbeKind::Kprobe].map(ProbeKind::programs);
            let mut kinds = kinds.iter().flatten();
            let function = kinds.find_map(|kind| program.strip_prefix(kind)).unwrap_or(&program);
            *missed.entry(Name::Owned(function.to_owned())).or_default() += count;
        }
        missed
    }

    fn own(&self, detach_ns: u64) -> Result<Own> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).context("ask for own resource use")?;
        let cpu_ns = time_ns(usage.user_time()) + time_ns(usage.system_time());
        // KERNEL: kernel/sys.c `getrusage`: ru_maxrss is in KiB.
        let max_rss_bytes = u64::try_from(usage.max_rss()).unwrap_or_default() * 1024;
        Ok(Own { cpu_ns, max_rss_bytes, attach_ns: self.attach_ns, detach_ns })
    }
}

fn time_ns(time: TimeVal) -> u64 {
    let micros = i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_usec());
    u64::try_from(micros * 1_000).unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn at(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn ended(command: &mut Option<Child>) -> Result<ExitStatus> {
    match command {
        Some(child) => child.wait().await.context("wait for the command"),
        None => std::future::pending().await,
    }
}

/// The signals that end a trace; from the moment this is made they are kept for it.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    interrupts: u32,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// There is no event loop, or the system refuses.
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            interrupts: 0,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hang_up.recv() => Signal::SIGHUP,
        }
    }

    /// With a command the trace ends when the command does: Ctrl-C has reached it through the
    /// terminal, other signals are passed on to it. A second Ctrl-C ends the trace all the same.
    fn passed_on(&mut self, signal: Signal, command: Option<&Child>) -> bool {
        let pid = command.and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid else { return false };
        if signal == Signal::SIGINT {
            self.interrupts += 1;
            return self.interrupts == 1;
        }
        kill(Pid::from_raw(pid), signal).is_ok()
    }
}
