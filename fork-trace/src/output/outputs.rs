//! From events to every output.
//!
//! Each place that is written to has a thread behind a bounded queue (`writer`), so a call of these
//! functions takes no longer than it takes to put events into a queue, whatever the readers do. A closed
//! pipe takes its output away quietly; any other error of an output takes it away too and is told at once,
//! and the others get every event all the same. Notes go to standard error.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    sync::Arc,
    time::Instant,
};

use nix::sys::signal::{SigHandler, Signal, signal};

use crate::{
    error::UserError,
    event::{Event, notice::Warning, summary::Summary, units::counted, values::Name},
    output::{
        files::{FileId, Standard},
        notes::{Notes, Stderr},
        options::{Color, DefaultOutput, OutputOptions},
        sink::{Sink, send},
        target::{self, Making, STDOUT, Target, clash, output_error},
        writer::{End, Lines, Unwritten, Writer},
    },
};

/// Events that are handed over at once.
const BATCH: usize = 128;

/// The outputs that are open.
pub struct Outputs {
    open: Vec<Writer>,
    /// Notes, where no thread writes them: one does where they go to the same place as data.
    notes: Option<Notes<Stderr>>,
    /// What has not been handed over.
    batch: Vec<Arc<Event>>,
    /// Outputs that failed.
    failed: Vec<UserError>,
}

/// What became of the outputs.
#[derive(Debug, Default)]
pub struct Closed {
    /// Events that were left out because the trace was stopped; the most that any output lacks.
    pub left_out: u64,
    /// Outputs that failed.
    pub failed: Vec<UserError>,
}

impl Outputs {
    /// Opens every output that `options` name, and empties their files only if all of them are fit. `input`
    /// is what is read meanwhile. A named pipe without a reader is waited for until `stop` says so.
    ///
    /// # Errors
    /// [`UserError::Output`]: a file cannot be created. [`UserError::SameFile`]: a file would be written
    /// twice, or is the one that is read.
    pub fn open(
        options: &OutputOptions,
        default: DefaultOutput,
        input: Option<FileId>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, UserError> {
        survive_size_limit();
        let (mut targets, mut wrong) = (Vec::new(), None);
        for path in &options.files {
            match Target::open(path, options, stop) {
                Ok(target) => targets.push(target),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        if options.files.is_empty() {
            targets.push(Target::standard(default));
        }
        if options.summary.is_some() {
            targets.extend(Target::summary(&targets, default, options));
        }
        let wrong = wrong.or_else(|| clash(&targets, input));
        let wrong = wrong.or_else(|| targets.iter().find_map(|target| target.unfit(options)));
        let emptied = wrong.map_or_else(|| targets.iter().try_for_each(Target::empty), Err);
        if let Err(error) = emptied {
            for target in &targets {
                target.undo();
            }
            return Err(error);
        }
        Self::start(targets, options)
    }

    /// One output that is no place which is written to: `sinks` take the events, in a thread of their own. Notes
    /// are not told.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn only(name: &str, sinks: Vec<Box<dyn Sink + Send>>) -> Result<Self, UserError> {
        let sinks = move || sinks.into_iter().map(|sink| sink as Box<dyn Sink>).collect();
        let writer = Writer::start(name.to_owned(), Unwritten::default(), None, sinks);
        let writer = writer.map_err(|error| output_error(name, &error))?;
        Ok(Self { open: vec![writer], notes: None, batch: Vec::new(), failed: Vec::new() })
    }

    /// Starts a thread for each place.
    fn start(targets: Vec<Target<'_>>, options: &OutputOptions) -> Result<Self, UserError> {
        let stderr = FileId::of(Standard::error()).ok();
        let mut noted = options.quiet;
        // Two outputs to one place, such as a terminal, share its thread: their lines do not mix.
        let mut places: Vec<(Option<FileId>, String, Vec<Making>)> = Vec::new();
        for target in targets {
            let (id, name) = (target.id, target.name.clone());
            // No line of text may come between the bytes of such a format.
            noted |= id.is_some() && id == stderr && target.is_binary(options);
            let same =
                |place: &&mut (Option<FileId>, String, Vec<Making>)| id.is_some() && place.0 == id;
            let making = target.making(options);
            match places.iter_mut().find(same) {
                Some((_, _, makings)) => makings.push(making),
                None => places.push((id, name, vec![making])),
            }
        }
        let mut open = Vec::new();
        for (id, name, mut makings) in places {
            if !noted && id.is_some() && id == stderr {
                makings.push(Box::new(|unwritten| {
                    Box::new(Notes::new(Lines::new(Standard::error(), unwritten)))
                }));
                noted = true;
            }
            let unwritten = Unwritten::default();
            let told = unwritten.clone();
            let sinks = move || makings.into_iter().map(|make| make(told.clone())).collect();
            let writer = Writer::start(name.clone(), unwritten, options.summary, sinks);
            open.push(writer.map_err(|error| output_error(&name, &error))?);
        }
        let notes = (!noted).then(|| Notes::new(Stderr::busy()));
        Ok(Self { open, notes, batch: Vec::new(), failed: Vec::new() })
    }

    /// Whether an output is left.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Waits until `until`, or without end, for every output to have room for more; returns whether each
    /// has. Whoever writes on all the same only makes the queues longer. What is not handed over yet has
    /// room, so nobody asks the queues for each single event.
    #[must_use]
    pub fn wait_for_room(&self, until: Option<Instant>) -> bool {
        !self.batch.is_empty() || self.open.iter().all(|writer| writer.wait_for_room(until))
    }

    /// Whether every output has room for a line that says what was lost. There is more room for these: they
    /// are few, and most needed when there is no more room for attempts.
    #[must_use]
    pub fn has_room_for_loss(&self) -> bool {
        self.open.iter().all(Writer::has_room_for_loss)
    }

    /// Hands one event to every output.
    pub fn event(&mut self, event: Event) {
        if let Some(notes) = &mut self.notes
            && send(notes, &event).is_err()
        {
            self.notes = None;
        }
        self.batch.push(Arc::new(event));
        if self.batch.len() == BATCH {
            self.hand_over();
        }
    }

    /// Lets the outputs make everything visible that they were given so far, and looks after those that
    /// ended: one that failed is told to the user and to the others.
    pub fn tick(&mut self) {
        self.hand_over();
        while let Some(place) = self.open.iter().position(Writer::has_ended) {
            let writer = self.open.swap_remove(place);
            let name = writer.name.clone();
            if let End::Failed(error) = writer.end(None) {
                self.fail(&name, &error);
            }
        }
    }

    /// From `at` on the outputs leave out attempts and follow-ups that still wait for their reader, and
    /// count them.
    pub fn give_up_at(&self, at: Instant) {
        for writer in &self.open {
            writer.give_up_at(at);
        }
    }

    /// Hands over a summary; each output fills in what it shows, and what it left out.
    pub fn summary(&mut self, summary: Summary) {
        self.tick();
        let failed = u64::try_from(self.failed.len()).ok().filter(|failed| *failed > 0);
        for writer in &self.open {
            let failed_outputs = failed.or(summary.failed_outputs);
            writer.end_with(Summary { failed_outputs, ..summary.clone() });
        }
    }

    /// Nothing comes any more.
    pub fn close(&mut self) {
        self.tick();
        for writer in &self.open {
            writer.close();
        }
    }

    /// Whether each output has written everything, or has failed.
    #[must_use]
    pub fn have_ended(&self) -> bool {
        self.open.iter().all(Writer::has_ended)
    }

    /// Ends every output: nothing comes after it. One that has not taken everything by `until` is left
    /// behind, and counts as failed.
    pub fn finish(mut self, until: Option<Instant>) -> Closed {
        self.close();
        let mut left_out = 0;
        for writer in std::mem::take(&mut self.open) {
            let name = writer.name.clone();
            match writer.end(until) {
                End::Written(events) => left_out = left_out.max(events),
                End::Failed(error) => self.fail(&name, &error),
                End::Stuck { bytes, events } => {
                    left_out = left_out.max(events);
                    let (bytes, events) = (counted(bytes, "byte"), counted(events, "event"));
                    let missing = format!("up to {bytes} and the {events} after them");
                    self.failed.push(UserError::Stuck { path: name, missing });
                }
            }
        }
        Closed { left_out, failed: self.failed }
    }

    /// Says something to the user that is no event.
    pub fn say(&mut self, text: &str) {
        if self.notes.is_some() {
            // Nobody listens: nothing to be done.
            writeln!(Stderr::busy(), "{text}").ok();
        }
    }

    fn hand_over(&mut self) {
        for writer in &self.open {
            writer.take(&self.batch);
        }
        self.batch.clear();
    }

    /// An output failed; a closed pipe is no failure.
    fn fail(&mut self, name: &str, error: &io::Error) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return;
        }
        let error = output_error(name, error);
        if self.is_open() {
            self.event(Event::Warning(Warning {
                code: Name::Borrowed("output-failed"),
                text: error.to_string(),
                hint: Some("the other outputs go on".to_owned()),
                fork_id: None,
            }));
        }
        self.failed.push(error);
    }
}

/// A file that has reached `RLIMIT_FSIZE` is a full disk: write(2) fails, and says so. The signal that comes
/// with it would end this process. It is caught rather than ignored, because a command that we start would
/// inherit that.
///
/// KERNEL: `fs/read_write.c` `generic_write_check_limits`.
fn survive_size_limit() {
    extern "C" fn nothing(_signal: i32) {}
    // SAFETY: the handler does nothing.
    let before = unsafe { signal(Signal::SIGXFSZ, SigHandler::Handler(nothing)) };
    if matches!(before, Ok(SigHandler::SigIgn)) {
        // SAFETY: what was ignored before is ignored again.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.ok();
    }
}

/// How wide standard output is, if it is a terminal, and whether it gets colours.
#[must_use]
pub fn look(color: Color) -> (Option<usize>, bool) {
    let stdout = Standard::output();
    let terminal = stdout.as_fd().is_terminal();
    (terminal.then(|| target::width(&stdout)).flatten(), target::color(color, terminal))
}

/// Writes a text to standard output, for commands that print once and end. A closed pipe is no
/// failure.
///
/// # Errors
/// [`UserError::Output`].
pub fn print(text: &str) -> Result<(), UserError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(output_error(STDOUT, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::fork::Fork;

    struct Failing(io::ErrorKind);

    impl Sink for Failing {
        fn fork(&mut self, _fork: &Fork) -> io::Result<()> {
            Err(self.0.into())
        }

        fn event(&mut self, _event: &Event) -> io::Result<()> {
            Err(self.0.into())
        }

        fn tick(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    fn outputs(kinds: &[io::ErrorKind]) -> Outputs {
        let writer = |kind: &io::ErrorKind| {
            let kind = *kind;
            let failing = move || vec![Box::new(Failing(kind)) as _];
            Writer::start("x".to_owned(), Unwritten::default(), None, failing).unwrap()
        };
        let open = kinds.iter().map(writer).collect();
        Outputs { open, notes: None, batch: Vec::new(), failed: Vec::new() }
    }

    fn warning() -> Event {
        Event::Warning(Warning { code: "x".into(), text: String::new(), hint: None, fork_id: None })
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_told_once() {
        let mut closed = outputs(&[io::ErrorKind::BrokenPipe]);
        closed.event(warning());
        let end = Instant::now() + Duration::from_secs(10);
        while closed.is_open() {
            assert!(Instant::now() < end);
            closed.tick();
        }
        assert!(closed.finish(None).failed.is_empty());

        let mut full = outputs(&[io::ErrorKind::StorageFull, io::ErrorKind::BrokenPipe]);
        full.event(warning());
        let failed = full.finish(None).failed;
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].exit_status(), 1);
    }
}
