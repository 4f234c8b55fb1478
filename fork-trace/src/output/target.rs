//! One place that is written to, from its name to what makes its sink.

use std::{
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd,
    path::Path,
};

use terminal_size::{Width, terminal_size_of};

use crate::{
    error::UserError,
    output::{
        compress::Compression,
        files::{self, FileId, Opened, Standard},
        formats::Format,
        options::{Color, DefaultOutput, OutputOptions},
        sink::Sink,
        text::Look,
        writer::{Lines, Unwritten},
    },
};

/// How standard output is called in messages.
pub(super) const STDOUT: &str = "standard output";
/// How standard error is called in messages.
const STDERR: &str = "standard error";

/// Makes a sink, in the thread that will write with it; what it has not written yet is counted.
pub(super) type Making = Box<dyn FnOnce(Unwritten) -> Box<dyn Sink> + Send>;

/// An output that is open and has no thread yet.
pub(super) struct Target<'a> {
    /// How it is called in messages.
    pub(super) name: String,
    format: Option<&'static Format>,
    compression: Option<&'static Compression>,
    /// `None`: the system does not say, and so it is like no other.
    pub(super) id: Option<FileId>,
    place: Place<'a>,
    /// It takes the summary and nothing else.
    only_summary: bool,
}

enum Place<'a> {
    File(&'a Path, Opened),
    Standard(Standard),
}

impl<'a> Target<'a> {
    /// Opens `path`, and leaves what is in it.
    pub(super) fn open(
        path: &'a Path,
        options: &OutputOptions,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, UserError> {
        let name = path.display().to_string();
        if name == "-" {
            return Ok(Self::standard(DefaultOutput::Stdout));
        }
        let opened = files::open(path, options.owner, stop);
        let opened = opened.map_err(|error| output_error(&name, &error))?;
        let (id, format) = (Some(opened.id), Format::of_file(path));
        let compression = Compression::of_file(path).map(|(compression, _)| compression);
        let place = Place::File(path, opened);
        Ok(Self { name, format, compression, id, place, only_summary: false })
    }

    /// Standard output or error.
    pub(super) fn standard(stream: DefaultOutput) -> Self {
        let (name, standard) = match stream {
            DefaultOutput::Stdout => (STDOUT, Standard::output()),
            DefaultOutput::Stderr => (STDERR, Standard::error()),
        };
        let id = FileId::of(standard).ok();
        let (name, place) = (name.to_owned(), Place::Standard(standard));
        Self { name, format: None, compression: None, id, place, only_summary: false }
    }

    /// Where the summary goes by itself: the place that data goes to where no file is named, or standard error
    /// where that place has lines of another format. `None` where it has text, which ends in a summary anyway.
    pub(super) fn summary(
        targets: &[Self],
        default: DefaultOutput,
        options: &OutputOptions,
    ) -> Option<Self> {
        let standard = targets.iter().find(|target| matches!(target.place, Place::Standard(_)));
        let is_text = |target: &Self| target.format(options).name == Format::text().name;
        // Nor may it stand between the bytes of a format without lines.
        let no_lines = |target: &Self| target.name == STDERR && target.is_binary(options);
        if standard.is_some_and(|target| is_text(target) || no_lines(target)) {
            return None;
        }
        let place = if standard.is_some() { DefaultOutput::Stderr } else { default };
        let text = Some(Format::text());
        Some(Self { format: text, only_summary: true, ..Self::standard(place) })
    }

    /// Throws the old content away.
    pub(super) fn empty(&self) -> Result<(), UserError> {
        match &self.place {
            Place::File(_, opened) => {
                opened.empty().map_err(|error| output_error(&self.name, &error))
            }
            Place::Standard(_) => Ok(()),
        }
    }

    /// Removes a file that was made for nothing.
    pub(super) fn undo(&self) {
        if let Place::File(path, opened) = &self.place {
            opened.undo(path);
        }
    }

    fn format(&self, options: &OutputOptions) -> &'static Format {
        self.format.unwrap_or(options.format)
    }

    /// Whether only programs can read what is written.
    pub(super) fn is_binary(&self, options: &OutputOptions) -> bool {
        self.compression.is_some() || self.format(options).binary
    }

    /// Why it is not written, if it is not: nobody can read such bytes on a terminal, and some of them it
    /// would obey.
    pub(super) fn unfit(&self, options: &OutputOptions) -> Option<UserError> {
        let terminal = match &self.place {
            Place::File(_, opened) => opened.file.is_terminal(),
            Place::Standard(standard) => standard.as_fd().is_terminal(),
        };
        let format = self.format(options);
        (terminal && self.is_binary(options)).then(|| UserError::Terminal {
            path: self.name.clone(),
            format: format.name,
            ending: format.endings.first().copied().unwrap_or_default(),
        })
    }

    /// How its sink is made.
    pub(super) fn making(self, options: &OutputOptions) -> Making {
        let (format, compression) = (self.format(options), self.compression);
        match self.place {
            Place::File(_, opened) => making(options, format, compression, false, opened.file),
            Place::Standard(standard) => {
                making(options, format, compression, self.only_summary, standard)
            }
        }
    }
}

/// Two outputs of one file, or one of the file that is read.
pub(super) fn clash(targets: &[Target<'_>], input: Option<FileId>) -> Option<UserError> {
    let clashes = |target: &Target<'_>, other: Option<FileId>| {
        target.id.zip(other).is_some_and(|(id, other)| id.clashes(other))
    };
    targets.iter().enumerate().find_map(|(place, target)| {
        let other = if clashes(target, input) {
            "the file that is read".to_owned()
        } else {
            let before = targets.get(..place)?;
            before.iter().find(|before| clashes(target, before.id))?.name.clone()
        };
        Some(UserError::SameFile { path: target.name.clone(), other })
    })
}

/// The error of an output.
pub(super) fn output_error(name: &str, error: &io::Error) -> UserError {
    // What the system said, without its number.
    let text = error.to_string();
    let cause = text.split(" (os error").next().unwrap_or(&text).to_owned();
    UserError::Output { path: name.to_owned(), cause }
}

fn making(
    options: &OutputOptions,
    format: &'static Format,
    compression: Option<&'static Compression>,
    only_summary: bool,
    stream: impl Write + AsFd + Send + 'static,
) -> Making {
    let terminal = stream.as_fd().is_terminal();
    let look = Look {
        width: terminal.then(|| width(&stream)).flatten(),
        color: color(options.color, terminal),
        told: options.told,
        stages: options.stages,
        summary: options.summary.is_some(),
        only_summary,
        utc: options.utc,
    };
    Box::new(move |unwritten| {
        let open = |to| (format.open)(to, look);
        match compression {
            Some(compression) => {
                let to = Lines::binary(stream, unwritten.clone());
                compression.sink(Box::new(to), unwritten, open)
            }
            None if format.binary => open(Box::new(Lines::binary(stream, unwritten))),
            None => open(Box::new(Lines::new(stream, unwritten))),
        }
    })
}

/// How many columns the terminal has, if this is one that says it.
pub(super) fn width(stream: &impl AsFd) -> Option<usize> {
    terminal_size_of(stream).map(|(Width(columns), _)| usize::from(columns))
}

/// Whether there are colours, on a terminal or not.
pub(super) fn color(color: Color, terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !set("NO_COLOR") && !dumb,
    }
}
