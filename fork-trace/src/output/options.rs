//! What is wanted of the outputs.

use std::path::PathBuf;

use crate::{
    error::UserError,
    event::summary::By,
    output::{files::Owner, formats::Format, told::Told},
};

/// What is wanted of the outputs, whoever said so.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// The format where a file's ending does not tell it.
    pub format: &'static Format,
    /// Files to write to; `-` is standard output. Without any, data goes to [`DefaultOutput`].
    pub files: Vec<PathBuf>,
    /// To whom new files belong; `None`: to this process's user.
    pub owner: Option<Owner>,
    /// What is told.
    pub told: Told,
    /// Text: the stages stand below each fork.
    pub stages: bool,
    /// The summary has groups by this. As text it stands at the end, and where neither standard output nor
    /// standard error is text, it stands there alone.
    pub summary: Option<By>,
    /// Text: when to use colour.
    pub color: Color,
    /// Text: times are in UTC instead of local time.
    pub utc: bool,
    /// No notes go to standard error.
    pub quiet: bool,
}

impl OutputOptions {
    /// Looks for an output that tells what is wanted.
    ///
    /// # Errors
    /// [`UserError::NoTree`]: a tree is wanted, and no output is text.
    pub fn check(&self) -> Result<(), UserError> {
        let drawn = self.formats().any(|format| format.draws_tree);
        if self.told == Told::Tree && !drawn { Err(UserError::NoTree) } else { Ok(()) }
    }

    /// Whether an output is made of the callers' stacks.
    #[must_use]
    pub fn needs_stacks(&self) -> bool {
        self.summary == Some(By::Stack) || self.formats().any(|format| format.needs_stacks)
    }

    /// The format of each output.
    fn formats(&self) -> impl Iterator<Item = &'static Format> {
        let default = self.files.is_empty().then_some(self.format);
        let of_file = |path: &PathBuf| Format::of_file(path).unwrap_or(self.format);
        default.into_iter().chain(self.files.iter().map(of_file))
    }
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where data goes when no file is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultOutput {
    /// Standard output.
    Stdout,
    /// Standard error: standard output belongs to the traced command.
    Stderr,
}
