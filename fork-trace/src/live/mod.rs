//! The live trace: a loop from the ring to the outputs, until somebody says stop.
//!
//! `stream` is the chain that a record passes, `report` what the trace says of itself, `account` the
//! check against the kernel's own counter, `signals` what ends it, `warnings` what is odd about forks
//! over time, and `command` the traced command.

pub mod account;
pub mod command;
pub mod report;
pub mod signals;
pub mod stream;
pub mod warnings;

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio::{
    process::Child,
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    bpf::{prepare::Prepared, ring::Ring, tracer::Tracer},
    event::{
        Event,
        clock::Clock,
        filters::Filters,
        notice::Warning,
        start::{SCHEMA_VERSION, Start},
        values::Name,
    },
    host::{Host, clock, tracepoint::Tracepoint},
    live::{
        report::{Costs, Losses, nanos},
        signals::Signals,
        stream::{Followed, Stream},
    },
    output::outputs::Outputs,
};

/// How often the ring is emptied when nobody calls.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks at the loss counters.
const TICKS_PER_LOSS_CHECK: u32 = 20;
/// Entries taken from the ring before they are written.
const BATCH: usize = 4096;

/// When to stop, apart from signals and the command's end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time.
    pub duration: Option<Duration>,
    /// After this many attempts.
    pub max_events: Option<u64>,
}

/// What is wanted of a trace.
pub struct Wanted {
    /// Whose attempts, as the `start` line tells it.
    pub filters: Filters,
    /// What becomes of children.
    pub followed: Followed,
    /// When to stop.
    pub limits: Limits,
    /// When the program was started: attaching is counted from here.
    pub since: Instant,
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
pub struct Trace {
    tracer: Tracer,
    ring: Ring,
    stream: Stream,
    losses: Losses,
    outputs: Outputs,
    limits: Limits,
    attach_ns: u64,
    /// [`account::difference`] when tracing began.
    difference: Option<u64>,
}

impl Trace {
    /// Attaches everything and writes the `start` line.
    ///
    /// # Errors
    /// This host or user cannot trace, or an output cannot be written.
    pub fn begin(
        host: &Host,
        prepared: Prepared,
        wanted: Wanted,
        mut outputs: Outputs,
    ) -> Result<Self> {
        let Prepared { mut tracer, ring, plan } = prepared;
        let Wanted { filters, followed, limits, since } = wanted;
        tracer.attach(&plan)?;
        let attach_ns = nanos(since.elapsed());
        log::info!("attached everything after {:.1?}", since.elapsed());
        let difference = account::difference(&tracer)?;
        let mono_ns = now_ns()?;
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
            outputs.event(&Event::Warning(no_inner_marks(reason)));
        }
        outputs.tick()?;
        let max_events = limits.max_events;
        Ok(Self {
            tracer,
            ring: Ring::new(ring)?,
            stream: Stream::new(plan, host.features, clock, mono_ns, followed, max_events),
            losses: Losses::new(mono_ns),
            outputs,
            limits,
            attach_ns,
            difference,
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
                        self.stream.clock = Clock::new(Timestamp::now(), now_ns()?);
                        self.tell_losses()?;
                    }
                }
            }
            self.take()?;
            if !self.outputs.is_open() || self.stream.is_enough() {
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
        self.stream.close(now_ns()?);
        let ended = account::difference(&self.tracer)?;
        for tracepoint in Tracepoint::ALL {
            self.tracer.detach(*tracepoint);
        }
        let detach_ns = nanos(began.elapsed());
        while self.drain()? {
            self.write(false)?;
        }
        self.write(true)?;
        self.tracer.log();
        self.tell_losses()?;
        let costs = Costs { attach_ns: self.attach_ns, detach_ns, began: self.difference, ended };
        let summary = report::summary(&self.tracer, &self.stream, self.losses.lost, costs)?;
        self.outputs.event(&Event::Summary(Box::new(summary)));
        self.outputs.finish()?;
        Ok(Ended { lost: self.losses.lost, tracer: self.tracer })
    }

    /// Empties the ring and writes what came of it.
    fn take(&mut self) -> Result<()> {
        self.stream.next_batch();
        while self.drain()? && !self.stream.is_enough() {
            self.write(false)?;
        }
        self.write(false)?;
        self.tracer.log();
        self.outputs.tick()?;
        Ok(())
    }

    /// Hands one batch of the ring's entries to the stream; returns whether there may be more.
    fn drain(&mut self) -> Result<bool> {
        let now_ns = now_ns()?;
        let Self { ring, stream, .. } = self;
        Ok(ring.drain(BATCH, |bytes| stream.take(bytes, now_ns)))
    }

    /// Writes the events that are complete; with `all` everything that is held back.
    fn write(&mut self, all: bool) -> Result<()> {
        for event in self.stream.release(&self.tracer, now_ns()?, all)? {
            self.outputs.event(&event);
        }
        Ok(())
    }

    /// Writes a `loss` line if something was lost since the last one.
    fn tell_losses(&mut self) -> Result<()> {
        let unwatched = self.stream.take_unwatched();
        if let Some(loss) = self.losses.next(&self.tracer, unwatched, now_ns()?)? {
            self.outputs.event(&Event::Loss(loss));
        }
        Ok(())
    }
}

fn no_inner_marks(reason: &str) -> Warning {
    Warning {
        code: Name::Borrowed("no-inner-marks"),
        text: format!("most stages of copy_process cannot be told apart: {reason}"),
        hint: Some("`fork-trace doctor` shows what can be seen of each stage".to_owned()),
        fork: None,
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

async fn ended(command: &mut Option<Child>) -> Result<ExitStatus> {
    match command {
        Some(child) => child.wait().await.context("wait for the command"),
        None => std::future::pending().await,
    }
}
