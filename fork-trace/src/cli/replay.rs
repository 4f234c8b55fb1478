//! `fork-trace replay`: shows a recorded trace.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use anyhow::Result;

use crate::{
    cli::{OutcomeArgs, OutputArgs},
    error::UserError,
    event::{Event, replay::Replay},
    output::{options::DefaultOutput, outputs::Outputs},
};

/// Shows the recording in `file`; returns the exit status.
///
/// # Errors
/// [`UserError::Replay`] or [`UserError::Output`].
pub fn replay(file: &Path, only: &OutcomeArgs, output: &OutputArgs) -> Result<u8> {
    let name = file.display().to_string();
    let filters = only.filters();
    let mut outputs = Outputs::open(&output.options(), DefaultOutput::Stdout)?;
    let reader: Box<dyn Read> =
        if name == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(file).map_err(|error| UserError::Replay {
                place: name.clone(),
                cause: error.to_string(),
            })?)
        };
    let mut replay = Replay::new(BufReader::new(reader), name);
    let shown = loop {
        match replay.next_event() {
            Ok(Some(Event::Fork(fork))) if !filters.shows(&fork) => {}
            Ok(Some(event)) => outputs.event(&event),
            Ok(None) => break Ok(0),
            Err(error) => break Err(error),
        }
        if !outputs.is_open() {
            break Ok(0);
        }
    };
    outputs.finish()?;
    shown
}
