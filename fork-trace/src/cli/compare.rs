//! `fork-trace replay A --against B`: two recordings beside each other.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    cli::{
        ReplayArgs,
        replay::{Recording, Seen, open, selection},
    },
    error::UserError,
    event::{
        Event,
        compare::{Printed, Recorded},
        filters::Filters,
        tally::sample::Sample,
    },
    output::{
        notes::Stderr,
        outputs::{look, print},
        text::{compare::write, line::printable},
    },
};

/// Prints what differs between the recordings; returns the exit status. One that is cut off is compared as far as
/// it goes, and then it is an error.
///
/// # Errors
/// [`UserError::Replay`], [`UserError::CutOff`], [`UserError::Untold`] or [`UserError::Output`].
pub fn compare(args: &ReplayArgs, other: &Path) -> Result<u8> {
    if args.file == other && other == Path::new("-") {
        let [path, other] = ["-", "--against -"].map(str::to_owned);
        return Err(UserError::SameFile { path, other }.into());
    }
    let filters = args.filter.filters(None);
    let (a, a_cut) = read(&args.file, &filters)?;
    let (b, b_cut) = read(other, &filters)?;
    let compare = Sample::compare([a, b]);
    if args.output.json {
        let line = serde_json::to_string(&Printed::Compare(Box::new(compare)));
        print(&(line.context("write an object as JSON")? + "\n"))?;
    } else {
        let (width, color) = look(args.output.color);
        let mut text = Vec::new();
        write(&compare, width, color, &mut text).context("write to memory")?;
        print(&String::from_utf8_lossy(&text))?;
    }
    match (a_cut, b_cut) {
        (Some(first), Some(second)) => {
            let text = first.to_string();
            // Nobody listens: nothing to be done.
            writeln!(Stderr::patient(), "fork-trace: {}", printable(&text)).ok();
            Err(second)
        }
        (cut, None) | (None, cut) => cut.map_or(Ok(0), Err),
    }
}

/// A recording in figures, and the error where it is cut off.
fn read(file: &Path, filters: &Filters) -> Result<((Sample, Recorded), Option<anyhow::Error>)> {
    let (mut replay, _) = open(file)?;
    let first = replay.next_event()?;
    let Some(Event::Start(start)) = &first else { return Err(replay.cut_off()) };
    let mut recorded = Recorded::new(file.display().to_string(), start);
    let sample = figures(first, &mut replay, filters, &mut recorded)?;
    let cut = recorded.cut_off.map(|_| replay.cut_off());
    Ok(((sample, recorded), cut))
}

/// Reads a recording to its end.
fn figures(
    first: Option<Event>,
    replay: &mut Recording,
    filters: &Filters,
    recorded: &mut Recorded,
) -> Result<Sample> {
    let mut selection = (*filters != Filters::default()).then(|| selection(filters, None));
    let (mut sample, mut seen) = (Sample::default(), Seen::default());
    let mut next = first;
    while let Some(event) = next {
        seen.add(&event);
        match (&event, &mut selection) {
            (Event::Start(start), Some(selection)) => selection.begin(start)?,
            (Event::Summary(summary), _) => {
                recorded.lost = summary.lost;
                recorded.traced_ns = summary.traced_ns.or_else(|| seen.traced_ns());
            }
            _ => {}
        }
        let shown = match &mut selection {
            Some(selection) => selection.shows(&event)?,
            None => true,
        };
        if shown {
            sample.add(&event);
        }
        next = replay.next_event()?;
    }
    if !seen.is_whole {
        recorded.cut_off = Some(true);
        recorded.lost = seen.lost.lost;
        recorded.traced_ns = seen.traced_ns();
    }
    Ok(sample)
}
