//! From events to every output.
//!
//! All outputs are opened before anything else happens. A closed pipe takes its output away
//! quietly; any other error of a writer takes it away too and is told at the next tick, so that
//! the others get every event all the same. Notes go to standard error.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
};

use terminal_size::{Width, terminal_size_of};

use crate::{
    error::UserError,
    event::Event,
    output::{
        formats::Format,
        notes::Notes,
        options::{Color, DefaultOutput, OutputOptions},
        sink::{Sink, send},
        text::Look,
    },
};

/// The outputs that are open.
pub struct Outputs {
    open: Vec<(String, Box<dyn Sink>)>,
    notes: Option<Notes<io::Stderr>>,
    /// The first error since the last tick.
    failed: Option<UserError>,
}

impl Outputs {
    /// Opens every output that `options` name.
    ///
    /// # Errors
    /// [`UserError::Output`]: a file cannot be created.
    pub fn open(options: &OutputOptions, default: DefaultOutput) -> Result<Self, UserError> {
        let mut open = Vec::new();
        for path in &options.files {
            let name = path.display().to_string();
            let sink = if name == "-" {
                standard(options, DefaultOutput::Stdout)
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
                DefaultOutput::Stdout => STDOUT,
                DefaultOutput::Stderr => "standard error",
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
            && send(notes, event).is_err()
        {
            self.notes = None;
        }
        self.each(|sink| send(sink, event));
    }

    /// Makes everything written so far visible.
    ///
    /// # Errors
    /// [`UserError::Output`], once per output that failed since the last call.
    pub fn tick(&mut self) -> Result<(), UserError> {
        self.each(|sink| sink.tick());
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Ends every output: nothing comes after it.
    ///
    /// # Errors
    /// As [`Self::tick`].
    pub fn finish(&mut self) -> Result<(), UserError> {
        self.each(|sink| sink.finish());
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

/// How standard output is called in messages.
const STDOUT: &str = "standard output";

/// Writes a text to standard output, for commands that print once and end. A closed pipe is no
/// failure.
///
/// # Errors
/// [`UserError::Output`].
pub fn print(text: &str) -> Result<(), UserError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(UserError::Output { path: STDOUT.to_owned(), cause: cause(&error) })
        }
        _ => Ok(()),
    }
}

/// What the system said, without its number.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn file(options: &OutputOptions, path: &Path) -> io::Result<Box<dyn Sink>> {
    let file = File::create(path)?;
    let format = Format::of_file(path).unwrap_or(options.format);
    Ok(sink(options, format, file))
}

fn standard(options: &OutputOptions, stream: DefaultOutput) -> Box<dyn Sink> {
    match stream {
        // Rust's own standard output flushes at each line; batches are flushed here.
        DefaultOutput::Stdout => sink(options, options.format, io::stdout()),
        DefaultOutput::Stderr => sink(options, options.format, io::stderr()),
    }
}

fn sink(
    options: &OutputOptions,
    format: &Format,
    stream: impl Write + IsTerminal + AsFd + 'static,
) -> Box<dyn Sink> {
    let look = Look {
        width: stream.is_terminal().then(|| width(&stream)).flatten(),
        color: color(options.color, stream.is_terminal()),
        stages: options.stages,
        summary: options.summary,
        utc: options.utc,
    };
    (format.open)(Box::new(BufWriter::new(stream)), look)
}

fn width(stream: &impl AsFd) -> Option<usize> {
    terminal_size_of(stream).map(|(Width(columns), _)| usize::from(columns))
}

fn color(color: Color, terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !set("NO_COLOR") && !dumb,
    }
}

#[cfg(test)]
mod tests {
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
        let sink = |kind: &io::ErrorKind| -> (String, Box<dyn Sink>) {
            ("x".to_owned(), Box::new(Failing(*kind)))
        };
        Outputs { open: kinds.iter().map(sink).collect(), notes: None, failed: None }
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_said_once() {
        let mut closed = outputs(&[io::ErrorKind::BrokenPipe]);
        assert!(closed.tick().is_ok());
        assert!(!closed.is_open());

        let mut full = outputs(&[io::ErrorKind::StorageFull, io::ErrorKind::BrokenPipe]);
        let error = full.tick().unwrap_err();
        assert_eq!(error.exit_status(), 1);
        assert!(full.tick().is_ok());
    }
}
