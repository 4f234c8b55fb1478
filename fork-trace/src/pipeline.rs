//! From events to every output.
//!
//! All outputs are opened before anything else happens. A closed pipe takes its output away
//! quietly; any other error of a writer takes it away too and is told at the next flush, so that
//! the others get every event all the same. Notes go to standard error.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use terminal_size::{Width, terminal_size_of};

use crate::{
    cli::{Color, Format, Output},
    error::UserError,
    fork::Event,
    sink::{
        Sink,
        json::Json,
        notes::Notes,
        text::{Options, Text},
    },
};

/// Where data goes when no file is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// Standard output.
    Stdout,
    /// Standard error: standard output belongs to the traced command.
    Stderr,
}

/// The outputs that are open.
pub struct Outputs {
    open: Vec<(String, Box<dyn Sink>)>,
    notes: Option<Notes<io::Stderr>>,
    /// The first error since the last flush.
    failed: Option<UserError>,
}

impl Outputs {
    /// Opens every output that `options` name.
    ///
    /// # Errors
    /// [`UserError::Output`]: a file cannot be created.
    pub fn open(options: &Output, default: Default) -> Result<Self, UserError> {
        let mut open = Vec::new();
        for path in &options.files {
            let name = path.display().to_string();
            let sink = if name == "-" {
                standard(options, Default::Stdout)
            } else {
                file(options, path).map_err(|error| UserError::Output {
                    path: name.clone(),
                    cause: cause(&error),
                })?
            };
            open.push((name, sink));
        }
        if open.is_empty() {
            let name = match default {
                Default::Stdout => "standard output",
                Default::Stderr => "standard error",
            };
            open.push((name.to_owned(), standard(options, default)));
        }
        let notes = (!options.quiet).then(|| Notes::new(io::stderr()));
        Ok(Self { open, notes, failed: None })
    }

    /// Whether an output is left.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Writes one event to every output.
    pub fn event(&mut self, event: &Event) {
        if let Some(notes) = &mut self.notes
            && notes.event(event).is_err()
        {
            self.notes = None;
        }
        self.each(|sink| sink.event(event));
    }

    /// Makes everything written so far visible.
    ///
    /// # Errors
    /// [`UserError::Output`], once per output that failed since the last call.
    pub fn flush(&mut self) -> Result<(), UserError> {
        self.each(|sink| sink.flush());
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Says something to the user that is no event.
    pub fn say(&mut self, text: &str) {
        if self.notes.is_some() {
            // Nobody listens: nothing to be done.
            writeln!(io::stderr(), "{text}").ok();
        }
    }

    fn each(&mut self, mut write: impl FnMut(&mut dyn Sink) -> io::Result<()>) {
        let Self { open, failed, .. } = self;
        open.retain_mut(|(name, sink)| match write(sink.as_mut()) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    let error = UserError::Output { path: name.clone(), cause: cause(&error) };
                    failed.get_or_insert(error);
                }
                false
            }
        });
    }
}

/// What the system said, without its number.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn file(options: &Output, path: &Path) -> io::Result<Box<dyn Sink>> {
    let file = File::create(path)?;
    let format = match path.extension().and_then(|ending| ending.to_str()) {
        Some("json" | "jsonl") => Format::Json,
        Some("txt") => Format::Text,
        _ => wanted(options),
    };
    let terminal = file.is_terminal().then(|| width(&file)).flatten();
    let color = color(options, file.is_terminal());
    Ok(sink(options, format, BufWriter::new(file), terminal, color))
}

fn standard(options: &Output, stream: Default) -> Box<dyn Sink> {
    let format = wanted(options);
    match stream {
        Default::Stdout => {
            let out = io::stdout();
            let (terminal, color) = (width(&out), color(options, out.is_terminal()));
            // Rust's own standard output flushes at each line; batches are flushed here.
            sink(options, format, BufWriter::new(out), terminal, color)
        }
        Default::Stderr => {
            let out = io::stderr();
            let (terminal, color) = (width(&out), color(options, out.is_terminal()));
            sink(options, format, BufWriter::new(out), terminal, color)
        }
    }
}

const fn wanted(options: &Output) -> Format {
    if options.json { Format::Json } else { options.format }
}

fn sink<W: Write + 'static>(
    options: &Output,
    format: Format,
    writer: W,
    width: Option<usize>,
    color: bool,
) -> Box<dyn Sink> {
    match format {
        Format::Json => Box::new(Json::new(writer)),
        Format::Text => {
            let Output { summary, utc, .. } = *options;
            let stages = options.stages.is_some();
            Box::new(Text::new(writer, Options { width, color, stages, summary, utc }))
        }
    }
}

fn width(stream: &impl std::os::fd::AsFd) -> Option<usize> {
    terminal_size_of(stream).map(|(Width(columns), _)| usize::from(columns))
}

fn color(options: &Output, terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match options.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !set("NO_COLOR") && !dumb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Sink for Failing {
        fn event(&mut self, _event: &Event) -> io::Result<()> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    fn outputs(kinds: &[io::ErrorKind]) -> Outputs {
        let sink = |kind: &io::ErrorKind| -> (String, Box<dyn Sink>) {
            ("x".to_owned(), Box::new(Failing(*kind)))
        };
        Outputs { open: kinds.iter().map(sink).collect(), notes: None, failed: None }
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_said_once() {
        let mut closed = outputs(&[io::ErrorKind::BrokenPipe]);
        assert!(closed.flush().is_ok());
        assert!(!closed.is_open());

        let mut full = outputs(&[io::ErrorKind::StorageFull, io::ErrorKind::BrokenPipe]);
        let error = full.flush().unwrap_err();
        assert_eq!(error.exit_status(), 1);
        assert!(full.flush().is_ok());
    }
}
