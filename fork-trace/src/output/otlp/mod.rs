//! OTLP over HTTP: the metrics from time to time, and attempts that failed, were slow or are stuck as log records,
//! to a Collector.
//!
//! [`Otlp`] takes the events, as any output; `logs` makes records of them, `metrics/otlp.rs` a message of the metrics,
//! and `post` sends both. Sending is done in a thread of its own behind a bounded queue, so nobody waits for the
//! Collector.

mod logs;
mod post;

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use foldhash::HashMap;
use jiff::Timestamp;

use crate::{
    error::UserError,
    event::{Event, fork::Fork, values::Kind, wait::Slow},
    output::{
        attributes::{resource, unix_ns},
        capabilities,
        metrics::{self, OtlpCounts, Readings, SIGNALS, Shared},
        notes::Stderr,
        otlp::post::Answer,
        protobuf::Message,
        sink::Sink,
        target::output_error,
    },
};

pub use post::Endpoint;

/// Bytes of records that wait at most.
const WAITING: usize = 2 << 20;

/// Records in a request.
const BATCH: usize = 512;

/// How long a record waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// How often a request with records is tried.
const TRIES: u32 = 5;

/// How long to wait before it is tried again; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Attempts that are remembered at once because their callers are still held.
const MOST_HELD: usize = 4096;

/// How long the end of the trace waits for the last requests.
const AT_THE_END: Duration = Duration::from_millis(250);

/// What is sent: a signal, as OpenTelemetry calls it.
#[derive(Clone, Copy, Debug)]
enum Signal {
    Metrics,
    Logs,
}

/// What is sent, and when that began.
#[derive(Debug)]
struct Of {
    resource: Message,
    began_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    of: Option<Arc<Of>>,
    records: VecDeque<Message>,
    bytes: usize,
    /// When the first of those came that wait.
    since: Option<Instant>,
    closing: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    taken: [AtomicU64; SIGNALS.len()],
    failed: [AtomicU64; SIGNALS.len()],
    dropped: AtomicU64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, record: Message) {
        let mut state = self.lock();
        let bytes = record.bytes().len();
        if state.bytes + bytes > WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += bytes;
        state.records.push_back(record);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Takes records for a request.
    fn take(&self) -> Vec<Message> {
        let mut state = self.lock();
        let most = state.records.len().min(BATCH);
        let batch: Vec<_> = state.records.drain(..most).collect();
        state.bytes -= batch.iter().map(|record| record.bytes().len()).sum::<usize>();
        state.since = state.since.filter(|_| !state.records.is_empty());
        batch
    }
}

/// For those who look what was sent.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Queue>);

impl Handle {
    /// What was sent so far.
    #[must_use]
    pub fn counts(&self) -> OtlpCounts {
        let read = |counts: &[AtomicU64; SIGNALS.len()]| {
            counts.each_ref().map(|count| count.load(Ordering::Relaxed))
        };
        let Queue { taken, failed, dropped, .. } = &*self.0;
        OtlpCounts {
            taken: read(taken),
            failed: read(failed),
            dropped: dropped.load(Ordering::Relaxed),
        }
    }
}

/// Makes records of what is worth one.
#[derive(Debug, Default)]
pub struct Otlp {
    queue: Arc<Queue>,
    /// What was told of attempts, by their ids, whose callers are held by a vfork.
    still_held: HashMap<String, Message>,
}

impl Otlp {
    /// For those who look what was sent.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.queue))
    }

    /// Starts the thread that sends: metrics `every` so often.
    ///
    /// # Errors
    /// [`UserError::Output`]: there can be no thread.
    pub fn start(
        &self,
        endpoint: Endpoint,
        every: Duration,
        metrics: Shared,
        readings: Box<dyn FnMut() -> Readings + Send>,
    ) -> Result<(), UserError> {
        let name = endpoint.to_string();
        let queue = Arc::clone(&self.queue);
        let started = thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            // This thread talks to others and needs no capabilities.
            capabilities::keep(&[], "otlp");
            let mut exporter = Exporter {
                queue: &queue,
                endpoint,
                metrics,
                readings,
                batch: Batch::default(),
                is_told: false,
            };
            exporter.run(every);
            queue.lock().ended = true;
            queue.changed.notify_all();
        });
        started.map(drop).map_err(|error| output_error(&name, &error))
    }
}

impl Sink for Otlp {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        if fork.is_failure() {
            self.queue.add(logs::failed(fork, logs::of_fork(fork)));
            return Ok(());
        }
        match fork.took_ns() {
            Some(held_ns) if held_ns >= Slow::FROM_NS || fork.slow.is_some() => {
                self.queue.add(logs::slow(fork, held_ns, logs::of_fork(fork)));
            }
            None if fork.succeeded() && fork.kind == Some(Kind::Vfork) => {
                if self.still_held.len() < MOST_HELD {
                    self.still_held.insert(fork.id.clone(), logs::of_fork(fork));
                } else {
                    // Whether it becomes slow is not known any more.
                    self.queue.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Start(start) => {
                let of = Of { resource: resource(&start.host), began_ns: unix_ns(start.ts.0) };
                self.queue.lock().of = Some(Arc::new(of));
                self.queue.changed.notify_all();
            }
            Event::VforkDone(done) => {
                let told = self.still_held.remove(&done.fork_id);
                let held_ns = done.held_ns.filter(|ns| *ns >= Slow::FROM_NS);
                if let Some((told, held_ns)) = told.zip(held_ns) {
                    self.queue.add(logs::slow_vfork(done, held_ns, told));
                }
            }
            Event::Stuck(stuck) => self.queue.add(logs::stuck(stuck)),
            Event::Fork(_)
            | Event::Stage(_)
            | Event::Exec(_)
            | Event::Exit(_)
            | Event::Loss(_)
            | Event::Warning(_)
            | Event::Summary(_) => {}
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What waits is sent at once. A Collector that takes too long is not waited for.
    fn finish(&mut self) -> io::Result<()> {
        let mut state = self.queue.lock();
        state.closing = true;
        self.queue.changed.notify_all();
        // Should it not end in time, the run ends without it: at worst something is not sent.
        drop(self.queue.changed.wait_timeout_while(state, AT_THE_END, |state| !state.ended));
        Ok(())
    }
}

fn count(counts: &[AtomicU64; SIGNALS.len()], signal: Signal) {
    if let Some(count) = counts.get(signal as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Records that are being sent.
#[derive(Default)]
struct Batch {
    records: Vec<Message>,
    tries: u32,
    /// Not before then.
    at: Option<Instant>,
}

/// The thread that sends.
struct Exporter<'a> {
    queue: &'a Queue,
    endpoint: Endpoint,
    metrics: Shared,
    readings: Box<dyn FnMut() -> Readings + Send>,
    batch: Batch,
    /// The user knows that nothing is taken.
    is_told: bool,
}

impl Exporter<'_> {
    fn run(&mut self, every: Duration) {
        let mut metrics_at = Instant::now() + every;
        loop {
            let (of, is_end) = self.wait(metrics_at);
            let now = Instant::now();
            if let Some(of) = &of {
                self.send_records(of, now, is_end);
            }
            if now >= metrics_at || is_end {
                of.iter().for_each(|of| self.send_metrics(of));
                metrics_at = Instant::now() + every;
            }
            if is_end {
                let left = self.queue.lock().records.len();
                self.drop_records(left);
                return;
            }
        }
    }

    /// Waits until there is something to send; returns of what it is, and whether the end has come.
    fn wait(&self, metrics_at: Instant) -> (Option<Arc<Of>>, bool) {
        let mut state = self.queue.lock();
        loop {
            let gathered = state.since.map(|since| since + GATHERING);
            let records_at = if self.batch.records.is_empty() { gathered } else { self.batch.at };
            let at = records_at.map_or(metrics_at, |at| at.min(metrics_at));
            let left = at.saturating_duration_since(Instant::now());
            if state.closing || left.is_zero() {
                return (state.of.clone(), state.closing);
            }
            let waited = self.queue.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends the records that wait, as far as it is time for them.
    fn send_records(&mut self, of: &Of, now: Instant, is_end: bool) {
        loop {
            let is_early = self.batch.at.is_some_and(|at| now < at);
            if self.batch.records.is_empty() {
                self.batch = Batch { records: self.queue.take(), ..Batch::default() };
            } else if is_early && !is_end {
                return;
            }
            if self.batch.records.is_empty() {
                return;
            }
            let request = logs::request(&of.resource, self.batch.records.iter());
            let may_come_later = match self.post(Signal::Logs, &request) {
                Ok(()) => {
                    self.batch = Batch::default();
                    continue;
                }
                Err(may_come_later) => may_come_later,
            };
            self.batch.tries += 1;
            if !may_come_later || self.batch.tries >= TRIES || is_end {
                self.drop_records(self.batch.records.len());
                self.batch = Batch::default();
            } else {
                self.batch.at = Some(Instant::now() + PAUSE * (1 << (self.batch.tries - 1)));
            }
            return;
        }
    }

    fn drop_records(&self, count: usize) {
        self.queue.dropped.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sends the metrics. If they are not taken, the next ones say it all.
    fn send_metrics(&mut self, of: &Of) {
        let readings = (self.readings)();
        let times = of.began_ns..unix_ns(Timestamp::now());
        let request = metrics::otlp_request(&self.metrics, &readings, &of.resource, &times);
        self.post(Signal::Metrics, &request).ok();
    }

    /// Posts a request.
    ///
    /// # Errors
    /// It was not taken; whether it may be later.
    fn post(&mut self, signal: Signal, request: &[u8]) -> Result<(), bool> {
        let name = SIGNALS.get(signal as usize).copied().unwrap_or_default();
        let path = format!("/v1/{name}");
        let (told, may_come_later) = match self.endpoint.post(&path, request) {
            Ok(Answer::Taken) => {
                count(&self.queue.taken, signal);
                self.is_told = false;
                return Ok(());
            }
            Ok(Answer::Later(status)) => (format!("it answers {status}"), true),
            Ok(Answer::Refused(status)) => (format!("it answers {status}"), false),
            Err(error) => (error.to_string(), true),
        };
        count(&self.queue.failed, signal);
        if !self.is_told {
            self.is_told = true;
            let error = output_error(&format!("{}{path}", self.endpoint), &io::Error::other(told));
            let mut said = Stderr::busy();
            // Nobody listens: nothing to be done.
            writeln!(said, "fork-trace: warning: {error}").ok();
            writeln!(said, "  hint: the trace goes on; look whether a Collector listens there")
                .ok();
        }
        Err(may_come_later)
    }
}

#[cfg(test)]
mod tests;
