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
        Event, filters::Filters, notice::Loss, replay::Replay, summary::Summary, tally::Tally,
    },
    live::command::Caller,
    output::{
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
    let name = file.display().to_string();
    let unreadable =
        |error: &io::Error| UserError::Replay { place: name.clone(), cause: error.to_string() };
    let (reader, input): (Box<dyn Read>, _) = if name == "-" {
        (Box::new(io::stdin()), FileId::of(io::stdin()))
    } else {
        let file = File::open(file).map_err(|error| unreadable(&error))?;
        let input = FileId::of(&file);
        (Box::new(file), input)
    };
    let owner = Caller::of_sudo()?.map(|caller| caller.ids());
    let options = OutputOptions { owner, ..output.options() };
    let mut replay = Replay::new(BufReader::new(reader), name);
    // Before anything is opened for writing: is it a recording at all?
    let first = replay.next_event()?;
    let mut outputs = Outputs::open(&options, DefaultOutput::Stdout, input.ok(), &|| false)?;
    let shown = show(first, &mut replay, &only.filters(), &mut outputs);
    reported(outputs.finish(None).failed)?;
    shown.map(|()| 0)
}

/// Shows event after event, as they come.
fn show<R: Read>(
    first: Option<Event>,
    replay: &mut Replay<BufReader<R>>,
    filters: &Filters,
    outputs: &mut Outputs,
) -> Result<()> {
    let mut seen = Seen::default();
    let mut next = first;
    while let Some(event) = next {
        seen.add(&event);
        if !matches!(&event, Event::Fork(fork) if !filters.shows(fork)) {
            // Without end: nothing else waits for us.
            _ = outputs.wait_for_room(None);
            outputs.event(event);
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
    outputs.event(Event::Summary(Box::new(seen.summary())));
    Err(replay.cut_off())
}

/// What was read so far, for the summary that a recording lacks that was cut off.
#[derive(Default)]
struct Seen {
    tally: Tally,
    lost: Summary,
    /// Whether its own summary came last.
    is_whole: bool,
}

impl Seen {
    fn add(&mut self, event: &Event) {
        self.is_whole = matches!(event, Event::Summary(_));
        match event {
            Event::Fork(fork) => self.tally.add(fork),
            Event::VforkDone(done) => self.tally.add_held(done),
            Event::Loss(Loss { records, by, .. }) => {
                self.lost.lost = self.lost.lost.saturating_add(*records);
                for (name, count) in by {
                    let lost = self.lost.lost_by.entry(name.clone()).or_default();
                    *lost = lost.saturating_add(*count);
                }
            }
            _ => {}
        }
    }

    fn summary(self) -> Summary {
        self.tally.complete(self.lost)
    }
}
