//! The tool's own JSON back to events.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::Result;
use serde::Deserialize;

use crate::{
    error::UserError,
    event::{
        Event,
        span::{Span, by_name},
        start::{Coverage, SCHEMA_VERSION},
    },
};

/// Longest line that is read; a real one has a few kilobytes.
const LONGEST: usize = 1 << 20;

/// Reads events from `reader`, line by line; `name` stands in messages.
pub struct Replay<R> {
    reader: R,
    name: String,
    line: u64,
    /// What its `start` line says of the stages.
    coverage: Vec<Coverage>,
}

impl<R: Read> Replay<BufReader<R>> {
    /// Whether the next line has not arrived as a whole, so that [`Self::next_event`] may wait for it.
    pub fn would_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }
}

impl<R: BufRead> Replay<R> {
    /// Of `reader`.
    pub const fn new(reader: R, name: String) -> Self {
        Self { reader, name, line: 0, coverage: Vec::new() }
    }

    /// The error of a recording that ends where the last event was read, or in the middle of a line.
    pub fn cut_off(&self) -> anyhow::Error {
        let place = format!("{}, line {}", self.name, self.line);
        UserError::CutOff { place }.into()
    }

    /// The next event; `None` at the end, which may come in the middle of a line: then the recording was cut
    /// off there.
    ///
    /// # Errors
    /// [`UserError::Replay`]: the line is no event of this version.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let mut bytes = Vec::new();
        self.line += 1;
        let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
        let mut limited = Read::take(&mut self.reader, limit);
        match limited.read_until(b'\n', &mut bytes) {
            // It is compressed, and its end is missing: what was read is all there is.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                if self.line == 1 {
                    return Err(self.cut_off());
                }
            }
            read => _ = read.map_err(|error| self.error(error.to_string()))?,
        }
        if bytes.is_empty() {
            return if self.line == 1 {
                Err(self.error("it is empty".to_owned()))
            } else {
                Ok(None)
            };
        }
        if bytes.len() == LONGEST {
            return Err(self.error("the line is too long".to_owned()));
        }
        let mut event = match parse(&bytes) {
            // Whoever wrote it was stopped in the middle of this line.
            Err(error) if error.is_eof() && self.line > 1 && !bytes.ends_with(b"\n") => {
                return Ok(None);
            }
            event => event.map_err(|error| {
                self.error(other_version(&bytes).unwrap_or_else(|| explain(&error)))
            })?,
        };
        match &mut event {
            Event::Start(start) => match refused(start.schema_version) {
                Some(cause) => return Err(self.error(cause)),
                None => self.coverage.clone_from(&start.coverage),
            },
            _ if self.line == 1 => {
                return Err(self.error("the first line is not a `start` line".to_owned()));
            }
            Event::Fork(fork) => cover(&mut fork.stages, &self.coverage),
            Event::Stage(stage) => cover(std::slice::from_mut(&mut stage.span), &self.coverage),
            _ => {}
        }
        Ok(Some(event))
    }

    fn error(&self, cause: String) -> anyhow::Error {
        let place = if self.line > 1 {
            format!("{}, line {}", self.name, self.line)
        } else {
            self.name.clone()
        };
        UserError::Replay { place, cause }.into()
    }
}

/// Tells stages what the `start` line says of them. Both are in the kernel's order.
fn cover(stages: &mut [Span], coverage: &[Coverage]) {
    let mut find = by_name(coverage, |coverage| &coverage.name);
    for span in stages {
        if let Some((_, coverage)) = find(&span.name) {
            span.cover(coverage.precision, coverage.source);
        }
    }
}

/// What is wrong with a line that cannot be read because it is the first one of another version, whose fields
/// are others.
fn other_version(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Start {
        schema_version: u32,
    }
    refused(serde_json::from_slice::<Start>(line).ok()?.schema_version)
}

/// Why a stream of this version is not read, unless it is this one.
fn refused(version: u32) -> Option<String> {
    (version != SCHEMA_VERSION).then(|| {
        format!(
            "it has schema version {version}, and this fork-trace reads version {SCHEMA_VERSION}: \
             replay it with the version of fork-trace that recorded it"
        )
    })
}

/// Reads a line. Nearly all lines tell an attempt, and those that this tool wrote begin alike: they are
/// read at once. Where the type may come later, serde first keeps every field of the line, which takes
/// several times as long.
fn parse(line: &[u8]) -> serde_json::Result<Event> {
    // To look at the bytes of the whole line at once costs less than at those of each string in it.
    let Ok(line) = str::from_utf8(line) else { return serde_json::from_slice(line) };
    if line.starts_with(r#"{"type":"fork","#) {
        return serde_json::from_str(line).map(Event::Fork);
    }
    serde_json::from_str(line)
}

/// serde's message without its place: each line is a text of its own.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    if error.is_eof() { format!("the line is cut short ({what})") } else { what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let mut replay = Replay::new(text.as_bytes(), "x.json".to_owned());
        loop {
            match replay.next_event() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no error in {text:?}"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_is_read_up_to_there() {
        let text = include_str!("../../tests/golden/simple.jsonl");
        let head = text.find('\n').unwrap() + 1;
        for end in (head..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let mut replay = Replay::new(&text.as_bytes()[..end], "x".to_owned());
            let mut events = 0;
            while replay.next_event().unwrap().is_some() {
                events += 1;
            }
            // The last line is whole without its line break, too.
            let whole = text[..=end].matches('\n').count();
            assert_eq!(events, whole, "{end}");
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_with_its_place() {
        assert_eq!(error(""), "x.json: it is empty");
        assert_eq!(error("hello\n"), "x.json: expected value");
        let loss = r#"{"type":"loss","records":1,"by":{"ring_full":1},"since_mono_ns":1}"#;
        assert_eq!(error(loss), "x.json: the first line is not a `start` line");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let mut replay = Replay::new(text.as_bytes(), "x".to_owned());
            while let Ok(Some(_)) = replay.next_event() {}
        }
    }
}
