//! A flight recorder: the last minutes of a trace in memory, written to a file when something goes wrong.
//!
//! [`Recorder`] takes the events, as any output; `kept` holds their lines, `trigger` finds reasons to write, and
//! `file` writes. Writing is done in a thread of its own, which takes a copy of what is kept. The thread that takes
//! the events waits for no disk, and holds the same lock only while it adds a line or shares the blocks.

mod file;
mod kept;
mod trigger;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::UserError,
    event::{Event, fork::Fork, start::Start},
    output::{
        capabilities,
        json::Json,
        notes::Stderr,
        recorder::{
            file::{Folder, Recording},
            kept::{Bounds, Kept},
            trigger::{Reason, Watch},
        },
        sink::{Sink, send},
        target::output_error,
        text::line::printable,
    },
};

pub use kept::Left;
pub use trigger::Trigger;

/// How long after its reason a recording is written: what follows at once belongs to it.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// How long the end of the trace waits for a recording that is being written.
const AT_THE_END: Duration = Duration::from_millis(250);

/// What is wanted of a recorder.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where recordings are written.
    pub folder: PathBuf,
    /// How old a line gets in memory.
    pub last: Duration,
    /// Bytes that are kept in memory.
    pub size: u32,
    /// What makes it write, a signal apart, which always does.
    pub on: Vec<Trigger>,
    /// More attempts than this within a second are a storm.
    pub storm: u64,
    /// No second recording for the same reason is written within this time.
    pub pause: Duration,
    /// Recordings that the folder has at most; the oldest are deleted.
    pub keep: usize,
}

/// What a recorder has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Recordings that were written, in the order of [`Trigger::ALL`].
    pub written: [u64; Trigger::ALL.len()],
    /// Recordings that could not be written.
    pub failed: u64,
    /// Lines that are in memory no more.
    pub left: Left,
}

/// A recording that is to be written.
#[derive(Debug)]
struct Due {
    reason: Reason,
    at: Instant,
}

#[derive(Debug)]
struct State {
    kept: Kept,
    /// The `start` line, and when it came.
    start: Option<(Start, Instant)>,
    due: Option<Due>,
    /// When the last recording for each reason was asked for, in the order of [`Trigger::ALL`].
    asked: [Option<Instant>; Trigger::ALL.len()],
    /// Nothing comes any more.
    closing: bool,
    /// The thread has ended.
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pause: Duration,
    written: [AtomicU64; Trigger::ALL.len()],
    failed: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a recording, unless one is asked for already or was for the same reason a short time ago. What the
    /// user asks for is not held back.
    fn ask(&self, reason: Reason, now: Instant) {
        let mut state = self.lock();
        let before = state.asked.get_mut(reason.trigger as usize);
        let Some(before) = before else { return };
        let is_free = before.is_none_or(|at| now.saturating_duration_since(at) >= self.pause);
        if !is_free && reason.trigger != Trigger::Signal {
            return;
        }
        *before = Some(now);
        if state.due.is_none() {
            state.due = Some(Due { reason, at: now + AFTERWARDS });
            self.changed.notify_all();
        }
    }

    /// Waits until a recording is due, and copies what is kept; `None`: the end has come.
    fn next(&self) -> Option<Recording> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let left = state.due.as_ref().map(|due| due.at.saturating_duration_since(now));
            match left {
                Some(left) if left.is_zero() || state.closing => {
                    let start = state.start.clone();
                    let due = state.due.take();
                    if let (Some(Due { reason, .. }), Some((start, began))) = (due, start) {
                        let kept = state.kept.copied(now);
                        return Some(Recording { reason, start, began, kept, now });
                    }
                }
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                }
                None if state.closing => return None,
                None => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The thread that writes, from its beginning to its end.
    fn write_all(&self, folder: &Folder) {
        let mut is_told = false;
        while let Some(recording) = self.next() {
            let what = printable(&recording.reason.what).into_owned();
            let mut said = Stderr::busy();
            // Nobody listens: nothing to be done.
            match folder.write(&recording) {
                Ok(name) => {
                    let written = self.written.get(recording.reason.trigger as usize);
                    written.iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
                    is_told = false;
                    writeln!(said, "fork-trace: {what}: recorded in {name}").ok();
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    if !is_told {
                        let error = output_error(&folder.name(), &error);
                        writeln!(said, "fork-trace: warning: {what}: {error}").ok();
                        let hint = "the trace goes on; make room there, or let it be written to";
                        writeln!(said, "  hint: {hint}").ok();
                    }
                    is_told = true;
                }
            }
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// The far end of a recorder, for those who ask and look.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The user wants a recording.
    pub fn signal(&self) {
        self.0.ask(Reason::signal(), Instant::now());
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { left: self.0.lock().kept.left(), ..Counts::default() };
        for (count, written) in counts.written.iter_mut().zip(&self.0.written) {
            *count = written.load(Ordering::Relaxed);
        }
        counts.failed = self.0.failed.load(Ordering::Relaxed);
        counts
    }
}

/// Keeps the last lines, and has them written when something goes wrong.
pub struct Recorder {
    shared: Arc<Shared>,
    watch: Watch,
    json: Json<Vec<u8>>,
    /// Where it writes, until the thread has it.
    folder: Option<Folder>,
}

impl Recorder {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { folder, last, size, on, storm, pause, keep } = settings;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let state = State {
            kept: Kept::new(Bounds { last, size }),
            start: None,
            due: None,
            asked: [None; Trigger::ALL.len()],
            closing: false,
            ended: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            pause,
            written: Default::default(),
            failed: AtomicU64::new(0),
        });
        let (watch, json) = (Watch::new(on, storm), Json::new(Vec::new()));
        Self { shared, watch, json, folder: Some(Folder::new(folder, keep)) }
    }

    /// Starts the thread that writes, which looks first whether it can write into the folder.
    ///
    /// # Errors
    /// [`UserError::Output`]: it cannot, or there can be no thread.
    pub fn start(&mut self) -> Result<(), UserError> {
        let Some(folder) = self.folder.take() else { return Ok(()) };
        let name = folder.name();
        let (far, (ready, is_ready)) = (Arc::clone(&self.shared), mpsc::channel());
        let started = thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            // This thread writes what its user may write, and needs no capabilities.
            capabilities::keep(&[], "recorder");
            let prepared = folder.prepare();
            let is_fit = prepared.is_ok();
            // Whoever started this waits for it.
            ready.send(prepared).ok();
            if is_fit {
                far.write_all(&folder);
            }
        });
        let gone = || io::Error::other("its thread ended");
        let prepared = started.and_then(|_| is_ready.recv().unwrap_or_else(|_| Err(gone())));
        prepared.map_err(|error| output_error(&name, &error))
    }

    /// For those who ask and look.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Keeps the line that `write` makes, of the moment `at_ns`.
    fn keep(
        &mut self,
        at_ns: Option<u64>,
        write: impl FnOnce(&mut Json<Vec<u8>>) -> io::Result<()>,
    ) -> io::Result<()> {
        let written = write(&mut self.json);
        let line = self.json.writer();
        if written.is_ok() {
            self.shared.lock().kept.push(line, at_ns, Instant::now());
        }
        line.clear();
        written
    }

    fn ask(&self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            self.shared.ask(reason, Instant::now());
        }
    }
}

impl Sink for Recorder {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        self.keep(Some(fork.mono_ns), |json| json.fork(fork))?;
        let reason = self.watch.fork(fork);
        self.ask(reason);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let at_ns = match event {
            Event::Start(start) => {
                self.shared.lock().start = Some((start.as_ref().clone(), Instant::now()));
                return Ok(());
            }
            // It is of the whole trace; a recording has one of its own.
            Event::Summary(_) => return Ok(()),
            Event::VforkDone(done) => Some(done.mono_ns),
            Event::Exec(exec) => Some(exec.mono_ns),
            Event::Exit(exit) => Some(exit.mono_ns),
            Event::Stuck(stuck) => Some(stuck.mono_ns),
            // Live there are no lines of single stages.
            Event::Fork(_) | Event::Stage(_) | Event::Loss(_) | Event::Warning(_) => None,
        };
        self.keep(at_ns, |json| send(json, event))?;
        if let Event::Stuck(stuck) = event {
            self.ask(self.watch.stuck(stuck));
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What is asked for is written at once. A disk that takes too long is not waited for.
    fn finish(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.changed.notify_all();
        // Should it not end in time, the run ends without it: at worst something is not written.
        drop(self.shared.changed.wait_timeout_while(state, AT_THE_END, |state| !state.ended));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
