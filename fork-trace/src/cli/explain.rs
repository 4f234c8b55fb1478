//! `fork-trace explain`: prints a page about each word.

use std::io;

use anyhow::Result;
use clap::{Arg, Command};
use fork_trace_common::stage::Row;

use crate::{
    cause::{
        explain::{self, Page},
        failures,
    },
    cli::{doctor, help},
    error::UserError,
    event::{
        nearest::{did_you_mean, nearest},
        schema::{self, Described},
        start::Coverage,
    },
    output::{
        options::Color,
        outputs::{look, print},
        text::line::{BOLD, DIM, Line, PLAIN},
    },
};

/// Lines are this long where nothing says how wide the terminal is.
const WIDTH: usize = 100;

/// Where the text of a part begins.
const INDENT: usize = 13;

/// How many places of one field or value are named.
const PLACES: usize = 3;

/// Prints what is known of each of `words`, or everything as docs/FAILURES.md; returns the exit
/// status.
///
/// # Errors
/// [`UserError::Unexplained`] or [`UserError::Output`].
pub fn explain(words: &[String], markdown: bool) -> Result<u8> {
    if markdown {
        print(&failures::page())?;
        return Ok(0);
    }
    let known = Known::new();
    let mut pages = Vec::new();
    for word in words {
        let found = known.pages(word);
        if found.is_empty() {
            let words = known.words();
            let near = nearest(word, words.iter().map(String::as_str));
            return Err(
                UserError::Unexplained { word: word.clone(), near: did_you_mean(near) }.into()
            );
        }
        pages.extend(found);
    }
    if pages.iter().any(|page| stage_of(page).is_some()) {
        on_this_host(&mut pages);
    }
    print(&written(&pages)?)?;
    Ok(0)
}

/// What is known beside the tables of causes and stages.
struct Known {
    /// The command line.
    definition: Command,
    /// The fields of the JSON and their values.
    described: Vec<Described>,
}

impl Known {
    fn new() -> Self {
        Self { definition: help::definition(), described: schema::described() }
    }

    /// All pages about one word.
    fn pages(&self, word: &str) -> Vec<Page> {
        let mut pages = explain::explain(word);
        pages.extend(option(word, &self.definition));
        pages.extend(fields(word, &self.described));
        pages
    }

    /// Every word that has a page.
    fn words(&self) -> Vec<String> {
        let mut words = explain::words();
        let shown = commands(&self.definition).flat_map(Command::get_arguments);
        words.extend(shown.filter(|arg| !arg.is_hide_set()).filter_map(long));
        words.extend(help::subcommands(&self.definition));
        words.extend(self.described.iter().map(|one| {
            let name = one.path.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
            one.value.clone().unwrap_or_else(|| name.to_owned())
        }));
        words
    }
}

/// The whole command line, and each subcommand.
fn commands(definition: &Command) -> impl Iterator<Item = &Command> {
    [definition].into_iter().chain(definition.get_subcommands())
}

fn long(arg: &Arg) -> Option<String> {
    arg.get_long().map(|name| format!("--{name}"))
}

/// An option or a subcommand.
fn option(word: &str, definition: &Command) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    if let Some(command) = definition.get_subcommands().find(|command| command.get_name() == word) {
        let mut page = Page::new(format!("{word}: a subcommand"));
        let about = command.get_long_about().or(command.get_about());
        page.say("what", about.map(ToString::to_string).unwrap_or_default());
        page.say("help", format!("fork-trace help {word}"));
        pages.push(page);
    }
    for command in commands(definition) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            for value in arg.get_possible_values().iter().filter(|value| value.get_name() == word) {
                let mut page =
                    Page::new(format!("{word}: a value of {}", long(arg).unwrap_or_default()));
                page.say("what", value.get_help().map(ToString::to_string).unwrap_or_default());
                if arg.get_action().takes_values() && !pages.contains(&page) {
                    pages.push(page);
                }
            }
            let short = arg.get_short().map(|short| format!("-{short}"));
            let names: Vec<_> = short.into_iter().chain(long(arg)).collect();
            let bare = arg.get_long() == word.strip_prefix("--").or(Some(word));
            if !bare && !names.iter().any(|name| name == word) {
                continue;
            }
            let of = match command.get_name() {
                name if name == definition.get_name() => "an option".to_owned(),
                name => format!("an option of {name}"),
            };
            let mut page = Page::new(format!("{}: {of}", names.join(", ")));
            let help = arg.get_long_help().or(arg.get_help());
            page.say("what", help.map(ToString::to_string).unwrap_or_default());
            let values = arg.get_possible_values();
            let values =
                values.iter().filter(|value| !value.is_hide_set()).map(|value| {
                    match value.get_help() {
                        Some(help) => format!("{} ({help})", value.get_name()),
                        None => value.get_name().to_owned(),
                    }
                });
            let values: Vec<_> = values.collect();
            if arg.get_action().takes_values() {
                page.say("values", values.join(", "));
            }
            // The same option of several subcommands is told once.
            if !pages.iter().any(|other| other.parts == page.parts) {
                pages.push(page);
            }
        }
    }
    pages
}

/// Fields of the JSON of this name, and values that fields may have.
fn fields(word: &str, described: &[Described]) -> Vec<Page> {
    let mut pages: Vec<(String, Option<String>, Vec<String>)> = Vec::new();
    for one in described {
        let path = one.path.replace("[]", "");
        let is_field = path == word || path.ends_with(&format!(".{word}"));
        let is_meant = match &one.value {
            Some(value) => value == word,
            None => is_field,
        };
        if !is_meant {
            continue;
        }
        let same = |(what, value, _): &&mut (String, Option<String>, Vec<String>)| {
            *what == one.what && *value == one.value
        };
        match pages.iter_mut().find(same) {
            Some((.., places)) => places.push(one.path.clone()),
            None => pages.push((one.what.clone(), one.value.clone(), vec![one.path.clone()])),
        }
    }
    let page = |(what, value, places): (String, Option<String>, Vec<String>)| {
        let more = places.len().saturating_sub(PLACES);
        let more = if more > 0 { format!(" and {more} more places") } else { String::new() };
        let places = places.iter().take(PLACES).cloned().collect::<Vec<_>>().join(", ");
        let mut page = Page::new(match value {
            Some(_) => format!("{word}: a value in the JSON"),
            None => format!("{word}: a field of the JSON"),
        });
        page.say(if value.is_some() { "value of" } else { "where" }, places + &more);
        page.say("what", what);
        page
    };
    pages.into_iter().map(page).collect()
}

/// The stage that a page is about.
fn stage_of(page: &Page) -> Option<&'static Row> {
    page.title.split_once(": ").and_then(|(name, _)| Row::named(name))
}

/// Adds to the pages of stages how this host measures them.
fn on_this_host(pages: &mut [Page]) {
    let (coverage, problem) = doctor::coverage();
    for page in pages {
        let Some(row) = stage_of(page) else { continue };
        let Some(told) = coverage.iter().find(|told| told.name == row.name) else { continue };
        page.say("on this host", measured(told));
        if let Some(problem) = &problem {
            page.say("", format!("(as far as that is known: {problem})"));
        }
    }
}

/// How a host measures a stage, in words.
fn measured(told: &Coverage) -> String {
    let by = told.source.map_or_else(String::new, |source| format!(", by {}", source.name()));
    format!("{}{by}: {}", told.precision.name(), doctor::why(told))
}

/// The pages as text, as wide as the terminal.
fn written(pages: &[Page]) -> Result<String> {
    let (width, color) = look(Color::Auto);
    let mut text = Vec::new();
    let mut line = Line::new(Some(width.unwrap_or(WIDTH)), color);
    for (place, page) in pages.iter().enumerate() {
        if place > 0 {
            line.end(&mut text)?;
        }
        write(page, &mut line, &mut text)?;
    }
    Ok(String::from_utf8(text)?)
}

fn write(page: &Page, line: &mut Line, text: &mut Vec<u8>) -> io::Result<()> {
    line.push_words(text, BOLD, &page.title, 2)?;
    line.end(text)?;
    for part in &page.parts {
        line.pad_to(2);
        line.push(DIM, part.label);
        for (indent, paragraph) in &part.lines {
            line.pad_to(INDENT + 2 + indent);
            line.push_words(text, PLAIN, paragraph, INDENT + 2 + indent)?;
            line.end(text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a cell of a table, if it holds nothing but names between backticks.
    fn names(cell: &str) -> Vec<&str> {
        let (names, between): (Vec<_>, Vec<_>) =
            cell.split('`').enumerate().partition(|(place, _)| place % 2 == 1);
        let only = between.iter().all(|(_, text)| text.chars().all(|c| " ,?".contains(c)));
        if only { names.into_iter().map(|(_, name)| name).collect() } else { Vec::new() }
    }

    #[test]
    fn each_field_option_and_subcommand_has_a_page() {
        let known = Known::new();
        for word in known.words() {
            assert!(!known.pages(&word).is_empty(), "{word}");
        }
        for word in
            ["-x", "stages", "--stages", "fork.total_ns", "child_start.queued_ns", "bounded"]
        {
            assert!(!known.pages(word).is_empty(), "{word}");
        }
    }

    #[test]
    fn each_name_in_the_tables_of_the_contract_has_a_page() {
        let contract = include_str!("../../../docs/JSON.md");
        let rows = contract.lines().filter(|line| line.starts_with("| "));
        let names: Vec<_> = rows.flat_map(|row| row.split('|').take(3).flat_map(names)).collect();
        assert!(names.len() > 200, "{}", names.len());
        let known = Known::new();
        let unknown: Vec<_> =
            names.into_iter().filter(|word| known.pages(word).is_empty()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
