//! The table of formats: one row a format. `--format`, `-o`, the help and the tests read it.

use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
};

use crate::output::{
    compress::Compression,
    folded::Folded,
    json::Json,
    perfetto::Perfetto,
    sink::Sink,
    text::{Look, Text},
};

/// One format.
pub struct Format {
    /// Its name, as `--format` takes it.
    pub name: &'static str,
    /// Endings of files that are written in it, without the dot.
    pub endings: &'static [&'static str],
    /// What it is, for the help.
    pub help: &'static str,
    /// Whether it can draw the tree of processes.
    pub draws_tree: bool,
    /// Whether it is made of the callers' stacks, which are taken for it.
    pub needs_stacks: bool,
    /// Nobody can read it on a terminal, and no line of text may stand between its bytes.
    pub binary: bool,
    /// Opens a sink of this format onto a buffered writer.
    pub open: fn(Box<dyn Write>, Look) -> Box<dyn Sink>,
}

/// Every format; the first is the one that is used where nothing else is said.
pub static FORMATS: [Format; 4] = [
    Format {
        name: "text",
        endings: &["txt"],
        help: "For people: a line per attempt",
        draws_tree: true,
        needs_stacks: false,
        binary: false,
        open: |writer, look| Box::new(Text::new(writer, look)),
    },
    Format {
        name: "json",
        endings: &["json", "jsonl"],
        help: "For programs: one object a line",
        draws_tree: false,
        needs_stacks: false,
        binary: false,
        open: |writer, look| Box::new(Json::telling(writer, look.told)),
    },
    Format {
        name: "perfetto",
        endings: &["pftrace", "perfetto-trace"],
        help: "A timeline for the Perfetto viewer and its trace processor",
        draws_tree: false,
        needs_stacks: false,
        binary: true,
        open: |writer, _| Box::new(Perfetto::new(writer)),
    },
    Format {
        name: "folded",
        endings: &["folded"],
        help: "Callers' stacks and how often they forked, for flame graphs; tracing, it includes --stacks",
        draws_tree: false,
        needs_stacks: true,
        binary: false,
        open: |writer, _| Box::new(Folded::new(writer)),
    },
];

impl Format {
    /// The format that is used where nothing else is said: text.
    #[must_use]
    pub const fn text() -> &'static Self {
        let [text, ..] = &FORMATS;
        text
    }

    /// The format of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// Every ending, as messages and the help name them.
    #[must_use]
    pub fn all_endings() -> String {
        let endings = FORMATS.iter().flat_map(|format| format.endings);
        let endings = endings.map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(", ");
        format!("{endings}; {} after it compresses", Compression::all_endings())
    }

    /// Whether a file of this name can be written: one with an ending needs a format of that ending. The
    /// ending of a compression may follow.
    #[must_use]
    pub fn takes(path: &Path) -> bool {
        uncompressed(path).extension().is_none() || Self::of_file(path).is_some()
    }

    /// The format that a file's ending names, or the ending before that of a compression.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<&'static Self> {
        let name = uncompressed(path);
        let ending = name.extension()?.to_str()?;
        FORMATS.iter().find(|format| format.endings.contains(&ending))
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The name without the ending of a compression.
fn uncompressed(path: &Path) -> PathBuf {
    Compression::of_file(path).map_or_else(|| path.to_owned(), |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_and_no_ending_stands_twice() {
        let endings = || FORMATS.iter().flat_map(|format| format.endings);
        assert_eq!(endings().collect::<BTreeSet<_>>().len(), endings().count());
        let names: BTreeSet<_> = FORMATS.iter().map(|format| format.name).collect();
        assert_eq!(names.len(), FORMATS.len());
    }

    #[test]
    fn a_file_is_written_as_its_ending_says() {
        let name = |path: &str| Format::of_file(Path::new(path)).map(|format| format.name);
        assert_eq!(name("a/b.json"), Some("json"));
        assert_eq!(name("x.jsonl"), Some("json"));
        assert_eq!(name("x.txt"), Some("text"));
        assert_eq!((name("x.json.gz"), name("x.jsonl.zst")), (Some("json"), Some("json")));
        assert_eq!(name("x.pftrace"), Some("perfetto"));
        assert_eq!((name("x.folded"), name("x.folded.gz")), (Some("folded"), Some("folded")));
        assert_eq!((name("x.data"), name("x.gz")), (None, None));
        let taken = |path: &str| Format::takes(Path::new(path));
        assert!(taken("x.json") && taken("x") && taken("-") && taken("a.b/x") && taken(".hidden"));
        assert!(taken("x.gz") && taken("x.json.zst"), "--format says what is compressed");
        assert!(!taken("x.csv") && !taken("x.JSON") && !taken("x.csv.gz") && !taken("x.json.xz"));
        assert_eq!(name("txt"), None);
    }
}
