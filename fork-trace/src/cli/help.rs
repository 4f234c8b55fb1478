//! The help: one screen of what most tasks need, and all of it on request.

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};

use crate::{
    cli::Cli,
    error::UserError,
    event::nearest::{did_you_mean, nearest},
};

/// The word that asks for all of the help.
pub(super) const ALL: &str = "all";

/// The options on the one screen; `help all` has the others as well.
const ONE_SCREEN: [&str; 15] = [
    "pids",
    "follow",
    "users",
    "comms",
    "cgroups",
    "failed",
    "min_duration",
    "stages",
    "exec",
    "exit",
    "json",
    "files",
    "summary",
    "duration",
    "help",
];

/// Subcommands that are not on the one screen: they are needed once.
const ONCE: [&str; 3] = ["completions", "man", "schema"];

/// The command line's definition.
#[must_use]
pub fn definition() -> Command {
    Cli::command().mut_args(|arg| {
        let is_shown = ONE_SCREEN.contains(&arg.get_id().as_str());
        let is_hidden = arg.is_hide_set();
        arg.hide_short_help(is_hidden || !is_shown)
    })
}

/// Whether this is the name of a subcommand.
pub(super) fn is_subcommand(word: &str) -> bool {
    subcommands(&definition()).iter().any(|name| name == word)
}

/// The names of the subcommands.
#[must_use]
pub fn subcommands(definition: &Command) -> Vec<String> {
    definition.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Prints the help about `topic`: a subcommand, `all`, or, without a topic, the one screen; returns
/// the exit status.
///
/// # Errors
/// [`UserError::NoTopic`]; or nobody takes what is printed.
pub fn help(topic: Option<&str>) -> Result<u8> {
    match topic {
        None => print(None, false),
        Some(ALL) => print(None, true),
        Some(topic) if is_subcommand(topic) => print(Some(topic), true),
        Some(topic) => {
            let names = subcommands(&definition());
            let near = nearest(topic, names.iter().map(String::as_str).chain([ALL]));
            Err(UserError::NoTopic { word: topic.to_owned(), near: did_you_mean(near) }.into())
        }
    }
}

/// Prints the help of a subcommand or of the whole, all of it or what a screen takes.
pub(super) fn print(subcommand: Option<&str>, all: bool) -> Result<u8> {
    let mut whole = definition();
    if !all {
        for name in ONCE {
            whole = whole.mut_subcommand(name, |command| command.hide(true));
        }
    }
    // Only then do the subcommands know how they are called.
    whole.build();
    let command = match subcommand.filter(|name| whole.find_subcommand(name).is_some()) {
        Some(name) => whole.find_subcommand_mut(name).context("find the subcommand again")?,
        None => &mut whole,
    };
    if all { command.print_long_help() } else { command.print_help() }.context("print the help")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option of this command, and of those below it, as it is typed, with its help.
    fn documented(command: &Command, help: &str) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let name = match arg.get_long() {
                Some(long) => format!("--{long}"),
                None => arg.get_value_names().unwrap()[0].to_string(),
            };
            assert!(help.contains(&name), "{name} of {}", command.get_name());
            let first = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!first.is_empty(), "{name} of {} has no help", command.get_name());
        }
    }

    #[test]
    fn every_option_is_in_the_help() {
        let mut whole = definition();
        whole.build();
        documented(&whole.clone(), &whole.render_long_help().to_string());
        for name in subcommands(&whole) {
            let command = whole.find_subcommand_mut(&name).unwrap();
            let help = command.render_long_help().to_string();
            documented(&command.clone(), &help);
            assert!(command.get_about().is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_on_the_one_screen_exists_and_is_on_it() {
        let help = definition().render_help().to_string();
        for id in ONE_SCREEN {
            let command = definition();
            let arg = command.get_arguments().find(|arg| arg.get_id() == id);
            let long = arg.unwrap_or_else(|| panic!("no option {id}")).get_long().unwrap();
            assert!(help.contains(&format!("--{long}")), "{long}");
        }
        assert!(!help.contains("--backend"), "{help}");
    }
}
