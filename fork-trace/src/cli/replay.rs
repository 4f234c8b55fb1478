//! `fork-trace replay`: shows a recorded trace.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use anyhow::Result;

use crate::{
    cli::{OutcomeArgs, OutputArgs, reported},
    error::UserError,
    event::{
        Event,
        filters::Filters,
        notice::Loss,
        replay::Replay,
        stage::StageLine,
        summary::{By, Summary},
    },
    live::command::Caller,
    output::{
        compress,
        files::FileId,
        options::{DefaultOutput, OutputOptions},
        outputs::Outputs,
    },
};

/// Shows the recording in `file`; returns the exit status.
///
/// # Errors
/// [`UserError::Replay`], [`UserError::CutOff`], [`UserError::Output`] or [`UserError::SameFile`].
pub fn replay(file: &Path, only: &OutcomeArgs, output: &OutputArgs) -> Result<u8> {
    output.options().check()?;
    let name = file.display().to_string();
    let unreadable =
        |error: &io::Error| UserError::Replay { place: name.clone(), cause: error.to_string() };
    let (reader, input) = if name == "-" {
        (compress::reader(io::stdin()), FileId::of(io::stdin()))
    } else {
        let file = File::open(file).map_err(|error| unreadable(&error))?;
        let input = FileId::of(&file);
        (compress::reader(file), input)
    };
    let reader = reader.map_err(|error| unreadable(&error))?;
    let owner = Caller::of_sudo()?.map(|caller| caller.ids());
    let options = OutputOptions { owner, ..output.options() };
    let mut replay = Replay::new(BufReader::new(reader), name);
    // Before anything is opened for writing: is it a recording at all?
    let first = replay.next_event()?;
    let mut outputs = Outputs::open(&options, DefaultOutput::Stdout, input.ok(), &|| false)?;
    let shown = show(first, &mut replay, &only.filters(), output.summary, &mut outputs);
    reported(outputs.finish(None).failed)?;
    shown.map(|()| 0)
}

/// Shows event after event, as they come. Where the outputs show what the recording does not, they make
/// summaries of their own.
fn show<R: Read>(
    first: Option<Event>,
    replay: &mut Replay<BufReader<R>>,
    filters: &Filters,
    summary: Option<By>,
    outputs: &mut Outputs,
) -> Result<()> {
    let as_recorded = summary.is_none() && *filters == Filters::default();
    let mut seen = Seen::default();
    let mut next = first;
    while let Some(event) = next {
        seen.add(&event);
        // Without end: nothing else waits for us.
        _ = outputs.wait_for_room(None);
        match event {
            Event::Start(mut start) => {
                start.filters.narrow(filters);
                outputs.event(Event::Start(start));
            }
            Event::Fork(fork) if !filters.shows(fork.succeeded(), fork.errno) => {
                seen.leave_out(fork.succeeded());
            }
            // Of the stages of an attempt that failed only the one that refused it has the error.
            Event::Stage(stage) if !filters.shows(stage.child_tid.is_some(), stage.errno) => {
                seen.leave_out_stage(&stage);
            }
            Event::Summary(summary) if !as_recorded => outputs.summary(seen.summary(*summary)),
            event => outputs.event(event),
        }
        if replay.would_wait() {
            outputs.tick();
        }
        if !outputs.is_open() {
            return Ok(());
        }
        next = replay.next_event()?;
    }
    if seen.is_whole {
        return Ok(());
    }
    let cut_off = Summary { traced_ns: seen.traced_ns(), ..seen.lost.clone() };
    outputs.summary(seen.summary(cut_off));
    Err(replay.cut_off())
}

/// What was read so far of a recording, as far as its summary does not tell it.
#[derive(Default)]
struct Seen {
    /// When it began, and the moment of the last event.
    began_ns: Option<u64>,
    last_ns: Option<u64>,
    /// New tasks that are not shown.
    left_out: u64,
    /// The last attempt whose stages are not shown.
    left_out_last: String,
    lost: Summary,
    /// Whether its own summary came last.
    is_whole: bool,
}

impl Seen {
    fn add(&mut self, event: &Event) {
        self.is_whole = matches!(event, Event::Summary(_));
        let at_ns = match event {
            Event::Start(start) => {
                *self = Self { began_ns: Some(start.mono_ns), ..Self::default() };
                return;
            }
            Event::Loss(Loss { records, by, .. }) => {
                self.lost.lost = self.lost.lost.saturating_add(*records);
                for (name, count) in by {
                    let lost = self.lost.lost_by.entry(name.clone()).or_default();
                    *lost = lost.saturating_add(*count);
                }
                return;
            }
            Event::Fork(fork) => fork.mono_ns,
            Event::Stage(stage) => stage.mono_ns,
            Event::VforkDone(done) => done.mono_ns,
            Event::Exec(exec) => exec.mono_ns,
            Event::Exit(exit) => exit.mono_ns,
            Event::Stuck(stuck) => stuck.mono_ns,
            Event::Warning(_) | Event::Summary(_) => return,
        };
        self.last_ns = self.last_ns.max(Some(at_ns));
    }

    /// Counts an attempt that is not shown.
    fn leave_out(&mut self, succeeded: bool) {
        self.left_out += u64::from(succeeded);
    }

    /// The same of one of which this is a stage; its stages come one after the other.
    fn leave_out_stage(&mut self, stage: &StageLine) {
        if self.left_out_last != stage.fork_id {
            self.left_out_last.clone_from(&stage.fork_id);
            self.leave_out(stage.child_tid.is_some());
        }
    }

    /// How long it is; `None` where nothing tells.
    fn traced_ns(&self) -> Option<u64> {
        self.last_ns?.checked_sub(self.began_ns?)
    }

    /// `recorded`, with what is left out here.
    fn summary(&self, recorded: Summary) -> Summary {
        let filtered = recorded.filtered.map(|tasks| tasks.saturating_add(self.left_out));
        Summary { filtered, ..recorded }
    }
}
