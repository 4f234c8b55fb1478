//! A thread for each place that is written to, behind a bounded queue.
//!
//! A reader that is slow, or stuck, holds up this thread and nothing else. The queue takes whole events,
//! and this thread turns them into bytes, so that what waits can still be left out, event by event and
//! counted, when the trace is stopped.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::{
    event::{
        Event,
        notice::{Loss, UNWRITTEN, UNWRITTEN_FOLLOW_UPS},
        summary::{By, Summary},
        tally::Tally,
    },
    output::{
        capabilities,
        sink::{Sink, send},
    },
};

/// Events that may wait for one thread. Beyond this the caller should keep back what it has.
const MOST: usize = 1024;

/// Bytes after which whole lines are written without waiting for a pause.
const FULL: usize = 8 << 10;

/// Holds lines back until there are many, and never writes a part of one: whoever is cut off in the middle,
/// by a crash or another writer of the same pipe, is cut off between two lines.
pub(super) struct Lines<W> {
    to: W,
    bytes: Vec<u8>,
    /// There are no lines: what comes in one piece stays in one piece.
    binary: bool,
    /// How many of these bytes `unwritten` knows of.
    told: usize,
    unwritten: Unwritten,
}

/// Bytes that were handed to a place and not yet taken by it, told while its thread may be stuck.
#[derive(Clone, Default)]
pub(super) struct Unwritten(Arc<AtomicU64>);

impl Unwritten {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn take(&self, bytes: usize) {
        self.0.fetch_sub(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<W: Write> Lines<W> {
    pub(super) const fn new(to: W, unwritten: Unwritten) -> Self {
        Self { to, bytes: Vec::new(), binary: false, told: 0, unwritten }
    }

    /// The same for bytes of a format without lines.
    pub(super) fn binary(to: W, unwritten: Unwritten) -> Self {
        Self { binary: true, ..Self::new(to, unwritten) }
    }

    fn tell(&mut self) {
        self.unwritten.add(self.bytes.len() - self.told);
        self.told = self.bytes.len();
    }

    /// As `write_all`, but what is taken is told at once.
    fn write_out(&mut self) -> io::Result<()> {
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.unwritten.take(written);
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.binary || bytes.ends_with(b"\n") {
            self.tell();
            if self.bytes.len() >= FULL {
                self.flush()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tell();
        let written = self.write_out();
        self.bytes.clear();
        self.told = 0;
        written
    }
}

/// What waits for the thread.
enum Item {
    Event(Arc<Event>),
    /// What the trace says of itself; the thread adds what it wrote.
    Ending(Box<Summary>),
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Item>,
    /// Nothing comes after what waits.
    closing: bool,
    /// From then on attempts and follow-ups that wait are left out.
    give_up_at: Option<Instant>,
    /// How the thread ended, once it has: events that it left out, or why it failed.
    ended: Option<io::Result<u64>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change until `until`; returns whether there may have been one.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        let Some(until) = until else {
            return Some(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        let (state, _) =
            self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        Some(state)
    }
}

/// The near end of the queue.
pub(super) struct Writer {
    /// How the place is called in messages.
    pub(super) name: String,
    unwritten: Unwritten,
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

/// How a writer ended.
pub(super) enum End {
    /// It wrote everything but so many events, which it left out.
    Written(u64),
    /// It could not write.
    Failed(io::Error),
    /// Nobody took what it had to write.
    Stuck {
        /// No more than so many bytes of the events before: of a write that has not ended the place may
        /// have taken a part.
        bytes: u64,
        /// So many events were still to be made into bytes.
        events: u64,
    },
}

impl Writer {
    /// Starts the thread; `sinks` makes what it writes with, in the thread itself. Its [`Lines`] count in
    /// `unwritten`. A summary has groups `by` this, where it was asked for.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn start(
        name: String,
        unwritten: Unwritten,
        by: Option<By>,
        sinks: impl FnOnce() -> Vec<Box<dyn Sink>> + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let far = Arc::clone(&queue);
        let thread = thread::Builder::new().name("output".to_owned()).spawn(move || {
            // This thread needs no capabilities: its files are open.
            capabilities::keep(&[], "output");
            let (sinks, left) = (sinks(), Left::default());
            let mut worker = Worker { queue: &far, sinks, by, tally: Tally::new(by), left };
            let ended = worker.run().map(|()| worker.left.events());
            // Before anybody learns of the end: the file is closed by then.
            drop(worker);
            let mut state = far.lock();
            state.waiting.clear();
            state.ended = Some(ended);
            far.changed.notify_all();
        })?;
        Ok(Self { name, unwritten, queue, thread })
    }

    /// Hands over events.
    pub(super) fn take(&self, events: &[Arc<Event>]) {
        self.queue.lock().waiting.extend(events.iter().cloned().map(Item::Event));
        self.queue.changed.notify_all();
    }

    /// Hands over the summary, of which the thread fills in what it wrote.
    pub(super) fn end_with(&self, summary: Summary) {
        self.queue.lock().waiting.push_back(Item::Ending(Box::new(summary)));
        self.queue.changed.notify_all();
    }

    /// From `at` on attempts and follow-ups that still wait are left out and counted.
    pub(super) fn give_up_at(&self, at: Instant) {
        self.queue.lock().give_up_at = Some(at);
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.queue.changed.notify_all();
    }

    /// Waits until `until` for room in the queue, or without end; returns whether there is some.
    pub(super) fn wait_for_room(&self, until: Option<Instant>) -> bool {
        let mut state = self.queue.lock();
        while state.waiting.len() >= MOST && !self.is_over(&state) {
            match self.queue.wait(state, until) {
                Some(again) => state = again,
                None => return false,
            }
        }
        true
    }

    /// Whether there is room for a word on what was lost.
    pub(super) fn has_room_for_loss(&self) -> bool {
        self.queue.lock().waiting.len() < 2 * MOST
    }

    /// Whether the thread has ended, as it does by itself when it cannot write.
    pub(super) fn has_ended(&self) -> bool {
        self.is_over(&self.queue.lock())
    }

    fn is_over(&self, state: &State) -> bool {
        state.ended.is_some() || self.thread.is_finished()
    }

    /// Waits until `until`, or without end, for the thread to have written everything. One that has not by
    /// then is left behind: it ends with the process.
    pub(super) fn end(self, until: Option<Instant>) -> End {
        let mut state = self.queue.lock();
        while !self.is_over(&state) {
            let events = u64::try_from(state.waiting.len()).unwrap_or(u64::MAX);
            match self.queue.wait(state, until) {
                Some(again) => state = again,
                None => return End::Stuck { bytes: self.unwritten.bytes(), events },
            }
        }
        match state.ended.take() {
            Some(Ok(left_out)) => End::Written(left_out),
            Some(Err(error)) => End::Failed(error),
            None => End::Failed(io::Error::other("the output's thread panicked")),
        }
    }
}

/// What the thread left out because the trace was stopped.
#[derive(Default)]
struct Left {
    attempts: u64,
    /// Of these, those that made a task.
    tasks: u64,
    follow_ups: u64,
    /// The moment of the first, `CLOCK_MONOTONIC`.
    since_ns: Option<u64>,
}

impl Left {
    const fn events(&self) -> u64 {
        self.attempts + self.follow_ups
    }

    /// Counts an event that is left out; returns whether it is one of those that may be.
    fn add(&mut self, event: &Event) -> bool {
        let at_ns = match event {
            Event::Fork(fork) => {
                self.attempts += 1;
                self.tasks += u64::from(fork.child.is_some());
                fork.mono_ns
            }
            Event::VforkDone(done) => done.mono_ns,
            Event::Exec(exec) => exec.mono_ns,
            Event::Exit(exit) => exit.mono_ns,
            // There are few of them, and they say what was lost; stages come only from a recording.
            Event::Start(_)
            | Event::Stage(_)
            | Event::Stuck(_)
            | Event::Loss(_)
            | Event::Warning(_)
            | Event::Summary(_) => {
                return false;
            }
        };
        self.follow_ups += u64::from(!matches!(event, Event::Fork(_)));
        self.since_ns.get_or_insert(at_ns);
        true
    }

    /// As a `loss` line; `None` where nothing was left out.
    fn loss(&self) -> Option<Loss> {
        let by = [(UNWRITTEN, self.attempts), (UNWRITTEN_FOLLOW_UPS, self.follow_ups)];
        let by = by.into_iter().filter(|(_, count)| *count > 0);
        Some(Loss {
            records: self.attempts,
            by: by.map(|(name, count)| (name.into(), count)).collect(),
            since_mono_ns: self.since_ns?,
        })
    }
}

/// The thread's own side.
struct Worker<'a> {
    queue: &'a Queue,
    sinks: Vec<Box<dyn Sink>>,
    /// By what a summary has groups, where it was asked for.
    by: Option<By>,
    /// What was written.
    tally: Tally,
    left: Left,
}

/// What to do next.
enum Next {
    /// This, which may be too late.
    Item(Item, bool),
    /// Nothing waits: what was written becomes visible.
    Pause,
    End,
}

impl Worker<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut written = false;
        loop {
            match self.next(written) {
                Next::Item(Item::Event(event), late) => {
                    if late && self.left.add(&event) {
                        continue;
                    }
                    written = true;
                    match &*event {
                        // What is replayed may be several recordings, one after the other.
                        Event::Start(_) => self.tally = Tally::new(self.by),
                        Event::Fork(fork) => self.tally.add(fork),
                        Event::Stage(stage) => self.tally.add_stage(stage),
                        Event::VforkDone(done) => self.tally.add_held(done),
                        _ => {}
                    }
                    self.each(|sink| send(sink, &event))?;
                }
                Next::Item(Item::Ending(summary), _) => self.summary(*summary)?,
                Next::Pause => {
                    written = false;
                    self.each(|sink| sink.tick())?;
                }
                Next::End => return self.each(|sink| sink.finish()),
            }
        }
    }

    fn next(&self, written: bool) -> Next {
        let mut state = self.queue.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                if state.waiting.len() == MOST / 2 {
                    self.queue.changed.notify_all();
                }
                let late = state.give_up_at.is_some_and(|at| Instant::now() >= at);
                return Next::Item(item, late);
            }
            if state.closing {
                return Next::End;
            }
            if written {
                return Next::Pause;
            }
            match self.queue.wait(state, None) {
                Some(again) => state = again,
                None => return Next::End,
            }
        }
    }

    /// Writes the summary, with what this output shows and what it left out.
    fn summary(&mut self, summary: Summary) -> io::Result<()> {
        let mut summary = self.tally.complete(summary);
        if let Some(loss) = self.left.loss() {
            summary.lost += loss.records;
            summary.lost_tasks = summary.lost_tasks.map(|tasks| tasks + self.left.tasks);
            for (name, count) in &loss.by {
                *summary.lost_by.entry(name.clone()).or_default() += count;
            }
            let loss = Event::Loss(loss);
            self.each(|sink| send(sink, &loss))?;
        }
        let summary = Event::Summary(Box::new(summary));
        self.each(|sink| send(sink, &summary))
    }

    fn each(&mut self, mut write: impl FnMut(&mut dyn Sink) -> io::Result<()>) -> io::Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| write(sink.as_mut()))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, time::Duration};

    use super::*;
    use crate::output::json::Json;

    fn fork(number: u64) -> Arc<Event> {
        let head = format!(r#"{{"type":"fork","id":"1-{number}","ts":"2026-01-01T00:00:00Z""#);
        let parent = r#""parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0}"#;
        let child = r#""child":{"pid":2,"tid":2,"comm":"a"}"#;
        let pad = "x".repeat(500);
        let json = format!(
            r#"{head},"mono_ns":{number},"kind":"process",{parent},{child},
            "warnings":[{{"code":"x","text":"{pad}"}}]}}"#
        );
        Arc::new(serde_json::from_str(&json).unwrap())
    }

    fn json(pipe: io::PipeWriter) -> Writer {
        let unwritten = Unwritten::default();
        let lines = Lines::new(pipe, unwritten.clone());
        Writer::start("x".to_owned(), unwritten, None, || vec![Box::new(Json::new(lines))]).unwrap()
    }

    /// Bytes of an event's line.
    fn json_line(event: &Event) -> usize {
        let mut bytes = Vec::new();
        send(&mut Json::new(&mut bytes), event).unwrap();
        bytes.len()
    }

    fn in_ms(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[test]
    fn a_full_queue_says_so_and_a_stuck_reader_holds_nobody_up() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let writer = json(pipe);
        let events: Vec<_> = (0..64).map(fork).collect();
        let mut given = 0;
        let began = Instant::now();
        while writer.wait_for_room(Some(in_ms(1_000))) {
            assert!(began.elapsed() < Duration::from_secs(10), "it never fills");
            writer.take(&events);
            given += events.len();
        }
        writer.give_up_at(Instant::now());
        writer.end_with(Summary::default());
        writer.close();
        let asked = Instant::now();
        let End::Stuck { bytes, events: waiting } = writer.end(Some(in_ms(100))) else {
            panic!("it is stuck")
        };
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(waiting >= u64::try_from(MOST).unwrap(), "{waiting}");
        // The pipe holds what was written. With what is told to be missing that is everything, and no more
        // than a write that has not ended has put into the pipe meanwhile.
        let mut held = vec![0; 1 << 20];
        let held = reader.read(&mut held).unwrap();
        let begun = given + 1 - usize::try_from(waiting).unwrap();
        let all: usize = events.iter().cycle().take(begun).map(|event| json_line(event)).sum();
        let bytes = usize::try_from(bytes).unwrap();
        let most = FULL + json_line(&events[63]);
        assert!((all - held..=most).contains(&bytes), "{bytes}, {held} of {all}");
        assert!(held > 0 && all > held, "{held} of {all}");
    }

    #[test]
    fn what_is_too_late_is_left_out_and_counted_and_the_summary_comes() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let writer = json(pipe);
        let events: Vec<_> = (0..2_000).map(fork).collect();
        writer.take(&events);
        // The pipe is full by now, and most of the events wait.
        thread::sleep(Duration::from_millis(100));
        writer.give_up_at(Instant::now());
        let summary = Summary {
            lost: 5,
            lost_tasks: Some(4),
            kernel_forks: Some(2_004),
            ..Summary::default()
        };
        writer.end_with(summary);
        writer.close();
        let text = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        let End::Written(left_out) = writer.end(Some(in_ms(10_000))) else { panic!("it ends") };
        let text = text.join().unwrap();
        let lines: Vec<Event> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let forks = lines.iter().filter(|line| matches!(line, Event::Fork(_))).count() as u64;
        assert!(forks > 10 && left_out > 1_000, "{forks} {left_out}");
        assert_eq!(forks + left_out, 2_000);
        let [.., Event::Loss(loss), Event::Summary(summary)] = &lines[..] else { panic!("{text}") };
        assert_eq!((loss.records, loss.since_mono_ns), (left_out, forks));
        assert_eq!(loss.by.get(UNWRITTEN), Some(&left_out));
        assert_eq!((summary.attempts, summary.lost), (forks, 5 + left_out));
        assert_eq!(summary.lost_by.get(UNWRITTEN), Some(&left_out));
        assert_eq!(summary.succeeded + summary.lost_tasks.unwrap(), 2_004);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_thread() {
        let (reader, pipe) = io::pipe().unwrap();
        let writer = json(pipe);
        drop(reader);
        writer.take(&[fork(1)]);
        let End::Failed(error) = writer.end(Some(in_ms(10_000))) else { panic!("it fails") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn only_whole_lines_are_written() {
        struct Pieces(Vec<usize>);
        impl Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                assert!(bytes.ends_with(b"\n"));
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = Lines::new(Pieces(Vec::new()), Unwritten::default());
        for _ in 0..1_000 {
            lines.write_all(&[b'x'; 99]).unwrap();
            lines.write_all(b"\n").unwrap();
        }
        lines.flush().unwrap();
        assert_eq!(lines.to.0.iter().sum::<usize>(), 100_000);
        assert!(lines.to.0.iter().all(|bytes| *bytes <= FULL + 100), "{:?}", lines.to.0);
    }
}
