//! A breach of a rule, and how it is written down.

use std::{fmt, path::PathBuf};

/// Which rule was broken, in the order in which the breaches of one line are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// Every file is Rust.
    Syntax,
    /// A room imports only what the table in `rooms` says.
    Rooms,
    /// No file imports itself through others.
    Circles,
    /// Some crates are named in one room only.
    Crates,
    /// Paths of `/proc` and `/sys` are in one room only.
    KernelFiles,
    /// Standard output is written in few rooms.
    Stdout,
    /// The names of stages and kernel functions are in tables only.
    KernelNames,
    /// A file can be read in one sitting.
    Length,
}

impl Rule {
    /// The word that stands for it in a report.
    const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Rooms => "rooms",
            Self::Circles => "circles",
            Self::Crates => "crates",
            Self::KernelFiles => "kernel files",
            Self::Stdout => "stdout",
            Self::KernelNames => "kernel names",
            Self::Length => "length",
        }
    }
}

/// One breach. The fields are in the order by which breaches are sorted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Breach {
    /// The file, from the workspace's root.
    pub(super) path: PathBuf,
    /// The line, from 1.
    pub(super) line: usize,
    /// The rule.
    pub(super) rule: Rule,
    /// What is wrong, as one sentence.
    pub(super) what: String,
    /// What to do about it, in the imperative.
    pub(super) cure: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, what, cure } = self;
        write!(f, "{}:{line}: {}: {what} Cure: {cure}", path.display(), rule.name())
    }
}
