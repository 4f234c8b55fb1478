//! A view of who forks on the host, live on a terminal.
//!
//! [`Model`] is what is known, folded from the events in a thread of the outputs; `cell` and
//! `counts` are what it counts in, and `rows` puts it into groups. `screen` is what the user has chosen and what keys do to that, `view` and
//! `details` draw both, all of them pure. `record` writes a recording from a moment on. `terminal` holds the terminal,
//! and the loop here draws and reads keys in a thread of its own. What the threads share is behind a mutex, which is held
//! while an event is folded or while the cells of a picture are filled, and never while anything is written to a
//! terminal: so the loop of the trace waits for neither.

mod cell;
mod counts;
mod details;
pub mod model;
pub mod readings;
mod record;
mod rows;
mod screen;
mod terminal;
mod view;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self as keys, KeyEventKind};

pub use self::terminal::check;
use crate::{
    event::{Event, fork::Fork, summary::By},
    output::{
        files::Owner,
        sink::Sink,
        top::{
            counts::SECONDS,
            model::Model,
            readings::Readings,
            record::Recording,
            screen::{Asked, Screen},
            terminal::Terminal,
        },
    },
};

/// Between two pictures.
const TICK: Duration = Duration::from_millis(250);

/// Between two looks at what is read rather than told.
const BETWEEN_READINGS: Duration = Duration::from_secs(2);

/// How long the thread that draws may take to end. One that a terminal holds up is left behind.
const ENDING: Duration = Duration::from_secs(2);

/// How it is shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// By what programs are put into groups at first.
    pub by: By,
    /// Whether there is colour.
    pub color: bool,
    /// Where is recorded to, if that was said.
    pub record: Option<PathBuf>,
    /// To whom a recording belongs; `None`: to this process's user.
    pub owner: Option<Owner>,
    /// A recording that is shown in place of the host.
    pub replay: Option<String>,
    /// What is said at first.
    pub notes: Vec<String>,
}

/// What is asked of those who know the host and the trace.
pub struct Sources {
    /// Reads what is not told by events; it is given the control groups of those who fork.
    pub readings: Box<dyn FnMut(Vec<Arc<str>>) -> Readings + Send>,
    /// Called when the user wants no more.
    pub end: Box<dyn FnMut() + Send>,
}

/// What the thread that folds and the one that draws share.
struct Shared {
    model: Mutex<Model>,
    recording: Mutex<Recorded>,
    /// Nothing is drawn any more.
    is_over: AtomicBool,
}

/// A recording, if there is one.
#[derive(Default)]
struct Recorded {
    recording: Option<Recording>,
    /// What is to be said of one that has ended by itself.
    said: Option<(String, bool)>,
}

impl Recorded {
    /// Gives it an event, or nothing to take; one that cannot go on ends.
    fn with(&mut self, take: impl FnOnce(&mut Recording) -> bool) {
        if let Some(recording) = &mut self.recording
            && !take(recording)
        {
            self.end();
        }
    }

    fn end(&mut self) {
        let Some(recording) = self.recording.take() else { return };
        self.said = Some(match recording.end() {
            Ok(path) => (format!("recorded to {}", path.display()), false),
            Err(error) => (format!("{error}; nothing is recorded any more"), true),
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn with<T>(&self, of: impl FnOnce(&mut Model) -> T) -> T {
        of(&mut lock(&self.model))
    }
}

/// Takes the events that are shown.
pub struct Folding(Arc<Shared>);

impl Sink for Folding {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        self.0.with(|model| model.fork(fork, Instant::now()));
        let event = || Event::Fork(Box::new(fork.clone()));
        lock(&self.0.recording).with(|recording| recording.take(event, Some(fork.mono_ns)));
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.0.with(|model| model.event(event, Instant::now()));
        let of = match event {
            Event::VforkDone(done) => Some(done.fork_id.as_str()),
            Event::Exec(exec) => exec.fork_id.as_deref(),
            Event::Exit(exit) => exit.fork_id.as_deref(),
            Event::Stuck(stuck) => stuck.fork_id.as_deref(),
            // A recording has a summary of its own.
            Event::Start(_) | Event::Summary(_) => return Ok(()),
            _ => None,
        };
        let began_ns = of.and_then(record::began_ns);
        lock(&self.0.recording).with(|recording| recording.take(|| event.clone(), began_ns));
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        lock(&self.0.recording).with(Recording::tick);
        Ok(())
    }
}

/// The view: a thread that draws, once it was started. It ends, and gives the terminal back, when this is dropped.
pub struct Top {
    shared: Arc<Shared>,
    options: Options,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Top {
    /// Nothing is shown yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let now = Instant::now();
        let model = if options.replay.is_some() { Model::whole(now) } else { Model::new(now) };
        let shared = Shared {
            model: Mutex::new(model),
            recording: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), options, thread: None }
    }

    /// What takes the events.
    #[must_use]
    pub fn sink(&self) -> Folding {
        Folding(Arc::clone(&self.shared))
    }

    /// How long the recording is that is shown.
    pub fn lasts(&self, ns: Option<u64>) {
        self.shared.with(|model| model.lasts(ns));
    }

    /// Says something on the screen.
    pub fn say(&self, words: String, is_error: bool) {
        lock(&self.shared.recording).said = Some((words, is_error));
        self.shared.with(|model| model.version += 1);
    }

    /// Shows it from now on.
    ///
    /// # Errors
    /// The terminal cannot be used, or there can be no thread.
    pub fn start(&mut self, sources: Sources) -> io::Result<()> {
        let terminal = Terminal::enter()?;
        let (shared, options) = (Arc::clone(&self.shared), self.options.clone());
        let drawing = move || {
            terminal::drop_capabilities();
            let mut ending = Ending { shared: Arc::clone(&shared), end: sources.end };
            let shown = Loop::new(shared, options, sources.readings).run(terminal);
            ending.end();
            shown
        };
        self.thread = Some(thread::Builder::new().name("screen".to_owned()).spawn(drawing)?);
        Ok(())
    }

    /// Whether nothing is shown any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and gives the terminal back.
    ///
    /// # Errors
    /// The terminal could not be used.
    pub fn end(mut self) -> io::Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> io::Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let until = Instant::now() + ENDING;
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        if !thread.is_finished() {
            // The terminal takes nothing.
            terminal::give_back_input();
            return Ok(());
        }
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that draws panicked")))
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            log::info!("end the view: {error}");
        }
    }
}

/// Ends the trace with the view, however that ends.
struct Ending {
    shared: Arc<Shared>,
    end: Box<dyn FnMut() + Send>,
}

impl Ending {
    fn end(&mut self) {
        lock(&self.shared.recording).end();
        self.shared.is_over.store(true, Ordering::Relaxed);
        (self.end)();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.end();
    }
}

/// The loop that draws and reads keys.
struct Loop {
    shared: Arc<Shared>,
    options: Options,
    read: Box<dyn FnMut(Vec<Arc<str>>) -> Readings + Send>,
    readings: Readings,
    read_at: Option<Instant>,
    screen: Screen,
    /// What is shown while it stands still.
    paused: Option<(Model, Instant)>,
    /// How many recordings were begun.
    recordings: u32,
    /// What was drawn last: the version of what is known, and when that was first seen.
    drawn: (u64, Instant),
}

impl Loop {
    fn new(
        shared: Arc<Shared>,
        options: Options,
        read: Box<dyn FnMut(Vec<Arc<str>>) -> Readings + Send>,
    ) -> Self {
        let mut screen = Screen::new(options.by, options.color);
        screen.said = options.notes.first().map(|note| (note.clone(), false));
        screen.source = options.replay.clone().unwrap_or_default();
        Self {
            shared,
            options,
            read,
            readings: Readings::default(),
            read_at: None,
            screen,
            paused: None,
            recordings: 0,
            drawn: (0, Instant::now()),
        }
    }

    fn run(mut self, mut terminal: Terminal) -> io::Result<()> {
        let mut is_asked = true;
        while !self.shared.is_over.load(Ordering::Relaxed) {
            is_asked |= self.look();
            if is_asked || self.is_changed() {
                terminal.draw(|buffer| self.draw(buffer))?;
            }
            is_asked = false;
            let until = Instant::now() + TICK;
            // What waits is taken together: a key that is held down brings many.
            let left = |is_asked: bool| match is_asked {
                true => Duration::ZERO,
                false => until.saturating_duration_since(Instant::now()),
            };
            while keys::poll(left(is_asked))? {
                is_asked = true;
                let keys::Event::Key(key) = keys::read()? else { continue };
                if key.kind == KeyEventKind::Release {
                    continue;
                }
                match self.screen.key(key) {
                    Asked::Quit => return Ok(()),
                    Asked::Record => self.record(),
                    Asked::Pause => self.pause(),
                    Asked::Nothing => {}
                }
            }
        }
        Ok(())
    }

    /// Looks at what is not told by events; returns whether anything of it has changed.
    fn look(&mut self) -> bool {
        let mut is_changed = false;
        {
            let mut recorded = lock(&self.shared.recording);
            let path = recorded.recording.as_ref().map(|of| of.path.display().to_string());
            is_changed |= path != self.screen.recording || recorded.said.is_some();
            self.screen.recording = path;
            self.screen.said = recorded.said.take().or_else(|| self.screen.said.take());
        }
        if self.screen.is_paused || self.read_at.is_some_and(|at| at.elapsed() < BETWEEN_READINGS) {
            return is_changed;
        }
        self.read_at = Some(Instant::now());
        let groups = self.shared.with(|model| model.groups());
        let readings = (self.read)(groups);
        is_changed |= readings != self.readings;
        self.readings = readings;
        is_changed
    }

    /// Whether the picture is another than the last: there were events, or those that are told over the last seconds
    /// become older.
    fn is_changed(&mut self) -> bool {
        if self.screen.is_paused {
            return false;
        }
        let version = self.shared.with(|model| model.version);
        if version != self.drawn.0 {
            self.drawn = (version, Instant::now());
        }
        self.drawn.1.elapsed() < Duration::from_secs(2 * SECONDS + 1)
    }

    fn draw(&mut self, buffer: &mut ratatui::buffer::Buffer) {
        let now = Instant::now();
        if let Some((model, at)) = &self.paused {
            view::draw(model, &mut self.screen, &self.readings, *at, buffer);
        } else {
            let model = &*lock(&self.shared.model);
            if let Some(start) = model.start.as_ref().filter(|_| self.options.replay.is_none()) {
                self.screen.source = format!("{}, {}", start.host.name, start.host.kernel);
            }
            view::draw(model, &mut self.screen, &self.readings, now, buffer);
        }
    }

    fn pause(&mut self) {
        self.paused = match self.paused {
            Some(_) => None,
            None => Some((self.shared.with(|model| model.clone()), Instant::now())),
        };
        self.screen.is_paused = self.paused.is_some();
    }

    /// Begins a recording, or ends the one under way.
    fn record(&mut self) {
        if self.options.replay.is_some() {
            self.screen.said = Some(("this is a recording already".to_owned(), false));
            return;
        }
        let mut recorded = lock(&self.shared.recording);
        if recorded.recording.is_some() {
            recorded.end();
            return;
        }
        drop(recorded);
        let begun = self.shared.with(|model| model.begun());
        let Some((start, seen)) = begun else { return };
        let path = record::file(self.options.record.as_deref(), self.recordings);
        match Recording::begin(path, self.options.owner, &start, seen) {
            Ok(recording) => {
                self.recordings += 1;
                lock(&self.shared.recording).recording = Some(recording);
            }
            Err(error) => self.screen.said = Some((error.to_string(), true)),
        }
    }
}
