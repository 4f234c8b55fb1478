//! The live trace: a loop from the ring to the outputs, until somebody says stop.
//!
//! The loop works in turns of `TURN` at most, and looks between two of them at signals, at the clock and at
//! what was lost. Outputs that take no more end a turn: then the ring fills, and the kernel side counts what
//! it loses. After a stop, what is left is shown for a second at most; the rest is counted as lost.
//!
//! `stream` is the chain that a record passes, `report` what the trace says of itself, `account` the check
//! against the kernel's own counter, `signals` what ends it, `warnings` what is odd about forks over time,
//! `libc` why no wrapper was seen, `command` the traced command, and `service` what a service manager is told.

pub mod account;
pub mod before;
pub mod command;
pub mod counts;
mod handlers;
mod holders;
pub mod kernel_side;
mod later_libraries;
mod libc;
mod lost;
pub mod report;
pub mod samples;
pub mod service;
pub mod signals;
mod stacks;
pub mod stream;
pub mod stuck;
mod threads;
pub mod waits;
pub mod wanted;
pub mod warnings;

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::{
    process::Child,
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{
    bpf::{detach, prepare::Prepared, ring::Ring, tracer::Tracer},
    error::UserError,
    event::{
        Event,
        clock::Clock,
        start::{SCHEMA_VERSION, Start},
        values::Name,
    },
    host::{Host, clock, hurry, tracepoint::Tracepoint},
    live::{
        account::Account,
        before::Before,
        report::{Costs, Losses, nanos},
        service::Service,
        signals::Signals,
        stream::Stream,
        stuck::StuckAttempts,
        wanted::{Limits, Wanted},
        warnings::{no_inner_marks, no_samples},
    },
    output::outputs::{Closed, Outputs},
};

/// How often a second the ring is emptied when nobody calls; once a second what was lost is looked at.
const TICKS_A_SECOND: u32 = 20;
/// The same where nobody waits for what is shown.
const TICKS_A_SECOND_SERVING: u32 = 4;
/// Entries taken from the ring before they are written.
const BATCH: usize = 4096;
/// The longest that the loop works before it looks at signals again.
const TURN: Duration = Duration::from_millis(20);
/// Ticks in which the kernel's own count is looked at again, each time; later each time that losses are.
const TICKS_OF_FIRST_LOOKS: u32 = 20;
/// How long after a stop to look for a moment in which the kernel's own count can be told exactly. A busy
/// host may keep a caller from a CPU for long between the kernel's count and ours.
const COUNTING: Duration = Duration::from_millis(600);
/// How long after a stop that somebody waits for attempts are still shown.
const SHOWING: Duration = Duration::from_millis(900);
/// How much longer an output may take to write what it was given by then. One that is stuck is left behind.
const WRITING: Duration = Duration::from_millis(300);
/// How long attempts are shown once everything is detached, which may take longer than [`SHOWING`].
const SHOWING_LATE: Duration = Duration::from_millis(250);

/// Why a trace stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The time is over; a command may still run.
    Duration,
    /// There are as many attempts as were wanted, or nobody reads or watches any more; a command may still run.
    Enough,
    /// This signal asked for it.
    Signal(Signal),
    /// The command ended.
    Command(ExitStatus),
}

/// What is left of a trace.
pub struct Ended {
    /// Records that were lost, of whatever kind.
    pub lost: u64,
    /// Outputs that failed.
    pub failed: Vec<UserError>,
    /// A signal that came after the end of tracing, and says that the command is not to be waited for.
    pub ending: Option<Signal>,
    /// What is still attached: functions, from which the kernel takes long to detach.
    pub tracer: Tracer,
}

/// A trace under way.
pub struct Trace {
    tracer: Tracer,
    ring: Ring,
    stream: Stream,
    losses: Losses,
    outputs: Outputs,
    limits: Limits,
    attach_ns: u64,
    account: Account,
    ticks: u32,
    ticks_a_second: u32,
    service: Option<Service>,
}

impl Trace {
    /// Begins a trace for which everything is attached, and writes the `start` line.
    ///
    /// # Errors
    /// The kernel side's maps, or a clock, cannot be read.
    pub fn begin(
        host: &Host,
        prepared: Prepared,
        before: Before,
        wanted: Wanted,
        mut outputs: Outputs,
    ) -> Result<Self> {
        let Prepared { tracer, ring, plan } = prepared;
        let Wanted { filters, followed, limits, no_waits, stacks: are_taken, ring_bytes, since } =
            wanted;
        let Before { older, waits, stacks } = before;
        let attach_ns = nanos(since.elapsed());
        log::info!("attached everything after {:.1?}", since.elapsed());
        let account = Account::begin(&tracer)?;
        let mono_ns = now_ns()?;
        let clock = Clock::new(Timestamp::now(), mono_ns);
        outputs.event(Event::Start(Box::new(Start {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ts: clock.at(mono_ns),
            mono_ns,
            host: host.info.clone(),
            backend: Name::Borrowed(plan.backend.name()),
            filters,
            sample_hz: Some(plan.sample_hz).filter(|hz| *hz > 0),
            waits: no_waits.then_some(false),
            stacks: are_taken.then_some(true),
            ring_bytes: Some(ring_bytes),
            coverage: plan.coverage.clone(),
        })));
        if let Some(reason) = &plan.shortfall {
            outputs.event(Event::Warning(no_inner_marks(reason)));
        }
        if let Some(reason) = &plan.no_samples {
            outputs.event(Event::Warning(no_samples(reason)));
        }
        outputs.tick();
        let mut stream = Stream::new(
            plan,
            host.features,
            clock,
            StuckAttempts::new(older, mono_ns),
            waits,
            followed,
            limits.max_events,
        );
        stream.stacks = stacks;
        Ok(Self {
            tracer,
            ring: Ring::new(ring)?,
            stream,
            losses: Losses::new(mono_ns),
            outputs,
            limits,
            attach_ns,
            account,
            ticks: 0,
            ticks_a_second: TICKS_A_SECOND,
            service: None,
        })
    }

    /// The same for a `service` whose outputs are not in a hurry. Unless they tell of single attempts (`is_named`),
    /// names are not looked up for them. The service is told that the loop is alive.
    #[must_use]
    pub fn serving(mut self, service: Service, is_named: bool) -> Self {
        if !is_named {
            self.stream.enricher.silence();
        }
        self.ticks_a_second = TICKS_A_SECOND_SERVING;
        Self { service: Some(service), ..self }
    }

    /// Says something to the user.
    pub fn say(&mut self, text: &str) {
        self.outputs.say(text);
    }

    /// Whether uprobes will be attached while tracing.
    #[must_use]
    pub const fn probes_more(&self) -> bool {
        self.stream.probes_more()
    }

    /// Traces until a limit, a signal, or the end of `command`.
    ///
    /// # Errors
    /// The kernel side's maps cannot be read.
    pub async fn run(
        &mut self,
        command: &mut Option<Child>,
        signals: &mut Signals,
    ) -> Result<Stop> {
        let mut tick = interval(Duration::from_secs(1) / self.ticks_a_second);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self.limits.duration.map(|duration| tokio::time::Instant::now() + duration);
        let mut behind = false;
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    if !signals.passed_on(signal, command.as_ref()) {
                        return Ok(Stop::Signal(signal));
                    }
                }
                status = command::ended(command) => return status.map(Stop::Command),
                () = at(end) => return Ok(Stop::Duration),
                _ = tick.tick() => self.tick()?,
                called = self.ring.called() => called?,
                // Signals and timers are noticed only when the runtime gets to look for them.
                () = yield_now(), if behind => {}
            }
            behind = self.turn(Instant::now() + TURN)?;
            let is_over = self.service.as_ref().is_some_and(Service::is_over);
            if is_over || !self.outputs.is_open() || self.stream.is_enough() {
                return Ok(Stop::Enough);
            }
        }
    }

    /// Detaches, functions apart, and writes what is owed and the `summary` line. With `hurried`, and from the
    /// next signal on, this takes no longer than `SHOWING` and `WRITING` together, or, where the kernel is
    /// slow to detach, than that takes and `SHOWING_LATE` and `WRITING`. Otherwise nobody waits for the end,
    /// and everything is written, however slow a reader is. A signal that comes meanwhile is for `command` too,
    /// if that still runs.
    ///
    /// # Errors
    /// The kernel side's maps cannot be read.
    pub async fn finish(
        mut self,
        hurried: bool,
        command: Option<&Child>,
        signals: &mut Signals,
    ) -> Result<Ended> {
        let began = Instant::now();
        self.service.iter().for_each(Service::stopping);
        if hurried {
            hurry::hurry();
        }
        // No new attempt is followed; those under way come to their end meanwhile.
        self.tracer.detach(Tracepoint::SysEnter);
        self.stream.close(now_ns()?);
        let account = std::mem::take(&mut self.account);
        let differences = account.end(&self.tracer, began + COUNTING)?;
        self.tracer.stop_samples();
        // The others' programs take it that whoever leaves its CPU is seen to come back.
        let others = Tracepoint::ALL.iter().filter(|other| **other != Tracepoint::SchedSwitch);
        for tracepoint in others.chain(&[Tracepoint::SchedSwitch]) {
            self.tracer.detach(*tracepoint);
        }
        detach::wait_for_programs();
        let detached = Instant::now();
        let detach_ns = nanos(detached - began);
        log::info!("detached within {:.1?} of the stop", detached - began);
        let mut shown = hurried.then(|| (began + SHOWING).max(detached + SHOWING_LATE));
        if let Some(shown) = shown {
            self.outputs.give_up_at(shown);
        }
        let mut ending = None;
        let mut heed = async || {
            let signal = signals.next().await;
            ending = Some(signal).filter(|signal| !signals.passed_on(*signal, command));
        };
        self.show_rest(&mut shown, &mut heed).await?;
        self.tracer.log();
        self.tracer.log_runs();
        self.tell_losses()?;
        let costs = Costs { attach_ns: self.attach_ns, detach_ns };
        let Self { tracer, mut stream, losses, mut outputs, .. } = self;
        outputs.summary(report::summary(&tracer, &mut stream, &losses, costs, differences)?);
        outputs.close();
        while shown.is_none() && !outputs.have_ended() {
            tokio::select! {
                () = heed() => {
                    outputs.give_up_at(Instant::now());
                    shown = Some(Instant::now());
                }
                () = sleep(TURN) => {}
            }
        }
        let Closed { left_out, failed } = outputs.finish(shown.map(|shown| shown + WRITING));
        let lost = losses.by.values().sum::<u64>() + left_out;
        Ok(Ended { lost, failed, ending, tracer })
    }

    /// Shows what the ring holds and what is owed, until `shown`; if that is `None`, until `signal` is heeded,
    /// which sets it. What is left then is counted.
    async fn show_rest(
        &mut self,
        shown: &mut Option<Instant>,
        signal: &mut impl AsyncFnMut(),
    ) -> Result<()> {
        let mut arranged = false;
        loop {
            let now = Instant::now();
            let until = shown.unwrap_or(now + TURN).min(now + TURN);
            let more = now < until && self.turn(until)?;
            if arranged && !more || shown.is_some_and(|shown| now >= shown) {
                break;
            }
            if !more {
                // The ring is empty, and what is held back has to go without what it waits for.
                arranged = true;
                self.stream.arrange(&self.tracer, now_ns()?, true);
            }
            if shown.is_none() {
                tokio::select! {
                    biased;
                    () = signal() => {
                        hurry::hurry();
                        let end = Instant::now() + SHOWING_LATE;
                        self.outputs.give_up_at(end);
                        *shown = Some(end);
                    }
                    () = yield_now() => {}
                }
            }
        }
        if !arranged {
            self.stream.arrange(&self.tracer, now_ns()?, true);
        }
        self.leave_out_rest();
        Ok(())
    }

    /// What is looked at some times a second.
    fn tick(&mut self) -> Result<()> {
        self.ticks += 1;
        let is_loss_check = self.ticks.is_multiple_of(self.ticks_a_second);
        if is_loss_check || self.ticks <= TICKS_OF_FIRST_LOOKS {
            self.account.look(&self.tracer)?;
        }
        if is_loss_check {
            self.stream.clock = Clock::new(Timestamp::now(), now_ns()?);
            self.stream.look_for_stuck(&self.tracer, now_ns()?)?;
            // Where there is no room, the next line says it all.
            if self.outputs.has_room_for_loss() {
                self.tell_losses()?;
            }
        }
        if let Some(service) = &mut self.service {
            service.beat(self.stream.stuck.standing());
        }
        Ok(())
    }

    /// Shows what the ring holds, until it is empty or `until`; returns whether there may be more.
    fn turn(&mut self, until: Instant) -> Result<bool> {
        let mut more = true;
        while more && self.write(until)? {
            self.stream.next_batch();
            more = self.drain()?;
            self.stream.probe_more(&mut self.tracer, now_ns()?);
            self.stream.arrange(&self.tracer, now_ns()?, false);
        }
        let written = self.write(until)?;
        self.tracer.log();
        self.outputs.tick();
        Ok(more || !written)
    }

    /// Hands one batch of the ring's entries to the stream; returns whether there may be more.
    fn drain(&mut self) -> Result<bool> {
        let now_ns = now_ns()?;
        let Self { ring, stream, .. } = self;
        Ok(ring.drain(BATCH, |bytes| stream.take(bytes, now_ns)))
    }

    /// Writes what is owed, until `until`; returns whether that was all.
    fn write(&mut self, until: Instant) -> Result<bool> {
        let now_ns = now_ns()?;
        loop {
            if !self.outputs.wait_for_room(Some(until)) || Instant::now() >= until {
                return Ok(false);
            }
            match self.stream.next_event(&mut self.tracer, now_ns)? {
                Some(event) => self.outputs.event(event),
                None => return Ok(true),
            }
        }
    }

    /// Counts what is still owed, held back or in the ring, none of which is shown any more.
    fn leave_out_rest(&mut self) {
        let Self { ring, stream, .. } = self;
        stream.leave_out();
        while ring.drain(BATCH, |bytes| stream.leave_out_entry(bytes)) {}
    }

    /// Writes a `loss` line if something was lost since the last one.
    fn tell_losses(&mut self) -> Result<()> {
        let here = self.stream.take_lost();
        if let Some(loss) = self.losses.next(&self.tracer, here, now_ns()?)? {
            self.outputs.event(Event::Loss(loss));
        }
        Ok(())
    }
}

fn now_ns() -> Result<u64> {
    clock::monotonic_ns().context("read the monotonic clock")
}

async fn at(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
