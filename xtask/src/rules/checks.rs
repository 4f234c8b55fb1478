//! The rules, one function each, but for that of circles.
//!
//! Knows how each breach is found; the lists are in `rooms` and `tables`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use fork_trace_common::{function::FUNCTIONS, stage::STAGES};

use super::{
    breach::{Breach, Rule},
    layout::{Import, Layout},
    rooms::{ALL, HOUSES, House, Room},
    source::Source,
    tables::{
        CONFINED, KERNEL_FILE_SYSTEMS, KERNEL_FILES, LONG_TABLES, MOST_LINES, NAMED_BY_TABLES,
        ORDINARY_WORDS, STDOUT, TABLES_OF_NAMES, TOOL,
    },
    tokens::{Followed, Name},
};

/// Every name of a stage or a kernel function that only a table may hold.
static KERNEL_NAMES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let functions = FUNCTIONS.iter().flat_map(|row| row.names.iter().copied().chain([row.id]));
    let all = STAGES.iter().map(|row| row.name).chain(functions);
    all.filter(|name| ORDINARY_WORDS.iter().all(|(word, _)| word != name)).collect()
});

/// Files that are in no room, and imports against the table of rooms.
pub(super) fn rooms(
    sources: &BTreeMap<PathBuf, Source>,
    layout: &Layout,
    imports: &[Import],
) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for house in &HOUSES {
        let inside = sources.keys().filter(|path| path.starts_with(house.folder));
        for path in inside.filter(|path| room(house, path).is_none()) {
            let what = format!("This file is in no room of {}.", house.folder);
            let cure = "Move it into the room that its topic belongs to; a new room is a new row in \
                        xtask/src/rules/rooms.rs.";
            breaches.push(breach(path, 1, Rule::Rooms, what, cure));
        }
        breaches
            .extend(imports.iter().filter_map(|import| against_the_table(house, layout, import)));
    }
    breaches
}

/// The breach that an import is, if both files are in rooms of this house.
fn against_the_table(house: &House, layout: &Layout, import: &Import) -> Option<Breach> {
    let from = room(house, &import.from)?;
    let to = room(house, &import.to)?;
    let (_, module) = layout.place(&import.to)?;
    if from.name == to.name || allows(from, module) {
        return None;
    }
    let may = match from.may {
        [] => "no other room".to_owned(),
        rooms => format!("only {}", rooms.join(", ")),
    };
    let what = format!(
        "The room `{}` imports `{}` from the room `{}`; it may import {may}.",
        from.name, import.written, to.name
    );
    Some(breach(&import.from, import.line, Rule::Rooms, what, from.cure))
}

/// Whether a room's row allows an import from this module of another room.
pub(super) fn allows(room: &Room, module: &[String]) -> bool {
    room.may.iter().any(|entry| {
        let words = entry.split("::").count();
        *entry == ALL || entry.split("::").eq(module.iter().take(words))
    })
}

/// The room of a file in this house.
fn room<'a>(house: &'a House, path: &Path) -> Option<&'a Room> {
    let first = path.strip_prefix(house.folder).ok()?.iter().next()?;
    let name = Path::new(first).with_extension("");
    house.rooms.iter().find(|room| Path::new(room.name) == name)
}

/// Every breach that one file shows by itself.
pub(super) fn file(path: &Path, source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    confined_crates(path, source, &mut breaches);
    kernel_files(path, source, &mut breaches);
    standard_output(path, source, &mut breaches);
    kernel_names(path, source, &mut breaches);
    length(path, source, &mut breaches);
    breaches
}

/// Crates that only one room may name: the first name in each line.
fn confined_crates(path: &Path, source: &Source, breaches: &mut Vec<Breach>) {
    for rule in CONFINED.iter().filter(|rule| path.starts_with(rule.within)) {
        if is_in(path, rule.place) {
            continue;
        }
        let is_named = |name: &&Name| name.words.first().is_some_and(|word| word == rule.name);
        let mut named = source.found.names.iter().filter(is_named).collect::<Vec<_>>();
        named.dedup_by_key(|name| name.line);
        for name in named {
            let what = format!("`{}` is named outside {}.", name.words.join("::"), rule.place);
            breaches.push(breach(path, name.line, Rule::Crates, what, rule.cure));
        }
    }
}

/// Paths of the kernel's file systems. A text with a space in it is a sentence, not a path.
fn kernel_files(path: &Path, source: &Source, breaches: &mut Vec<Breach>) {
    if !path.starts_with(TOOL) || is_in_any(path, &KERNEL_FILES) {
        return;
    }
    let is_path = |value: &str| {
        !value.contains(char::is_whitespace)
            && KERNEL_FILE_SYSTEMS.iter().any(|root| {
                value
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    };
    for text in source.found.texts.iter().filter(|text| is_path(&text.value)) {
        let what =
            format!("The path \"{}\" stands outside {}.", text.value, KERNEL_FILES.join(", "));
        let cure = "Read the file in host/, and pass on what was read.";
        breaches.push(breach(path, text.line, Rule::KernelFiles, what, cure));
    }
}

/// Writers of standard output.
fn standard_output(path: &Path, source: &Source, breaches: &mut Vec<Breach>) {
    if !path.starts_with(TOOL) || is_in_any(path, &STDOUT) {
        return;
    }
    for name in source.found.names.iter().filter(|name| writes_stdout(name)) {
        let written = name.words.join("::");
        let what = format!("`{written}` is standard output, outside {}.", STDOUT.join(" and "));
        let cure = "Return what is to be written, and write it in output/ or cli/.";
        breaches.push(breach(path, name.line, Rule::Stdout, what, cure));
    }
}

/// Whether a name is `print!`, `println!`, `stdout()` or `io::stdout`.
fn writes_stdout(name: &Name) -> bool {
    let mut from_last = name.words.iter().rev().map(String::as_str);
    match (from_last.next(), from_last.next(), name.followed) {
        (Some("print" | "println"), _, Followed::Macro) => true,
        (Some("stdout"), before, followed) => {
            before == Some("io") || before.is_none() && followed == Followed::Arguments
        }
        _ => false,
    }
}

/// Texts that are the name of a stage or a kernel function.
fn kernel_names(path: &Path, source: &Source, breaches: &mut Vec<Breach>) {
    let holds = NAMED_BY_TABLES.iter().any(|within| path.starts_with(within));
    if !holds || TABLES_OF_NAMES.iter().any(|(table, _)| is_in(path, table)) {
        return;
    }
    let is_name = |value: &str| KERNEL_NAMES.contains(value);
    for text in source.found.texts.iter().filter(|text| is_name(&text.value)) {
        let what =
            format!("\"{}\" names a stage or a kernel function outside the tables.", text.value);
        let cure = "Take the name from its row in fork-trace-common: `Stage::X.row().name`, \
                    `Function::X.row().names`.";
        breaches.push(breach(path, text.line, Rule::KernelNames, what, cure));
    }
}

/// Files that are too long. The programs in a `tests` folder are tests as a whole.
fn length(path: &Path, source: &Source, breaches: &mut Vec<Breach>) {
    let is_test = path.iter().any(|word| word == "tests");
    let is_table = LONG_TABLES.iter().any(|(table, _)| is_in(path, table));
    if source.lines <= MOST_LINES || is_test || is_table {
        return;
    }
    let what =
        format!("This file has {} lines without its tests, more than {MOST_LINES}.", source.lines);
    let cure = "Move one of its topics into a file of its own.";
    breaches.push(breach(path, MOST_LINES + 1, Rule::Length, what, cure));
}

/// Whether a file is this place, or in it.
fn is_in(path: &Path, place: &str) -> bool {
    path.starts_with(place) || path.with_extension("") == Path::new(place)
}

/// Whether a file is in one of these places.
fn is_in_any(path: &Path, places: &[&str]) -> bool {
    places.iter().any(|place| is_in(path, place))
}

/// A breach at a line of a file.
fn breach(path: &Path, line: usize, rule: Rule, what: String, cure: &str) -> Breach {
    Breach { path: path.to_path_buf(), line, rule, what, cure: cure.to_owned() }
}
