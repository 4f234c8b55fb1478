//! `-S BY`: a word behind the option is its value if it is one that it takes, and otherwise whatever it would be
//! without the option, such as the command that is traced.
//!
//! To clap a value that may be absent is either any next word or only one behind `=`; so such words are joined
//! here before clap reads them.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The option.
const OPTION: &str = "summary";

/// What is typed behind a word.
enum Next {
    /// Another word of its own.
    Word,
    /// The value of the option before.
    Value,
    /// A value of [`OPTION`], or another word.
    By,
}

/// `words` with `=` between that option and its value.
pub(super) fn joined(
    words: impl IntoIterator<Item = OsString>,
    mut command: Command,
) -> Vec<OsString> {
    command.build();
    let mut command = &command;
    let mut words = words.into_iter().peekable();
    let mut out: Vec<OsString> = words.next().into_iter().collect();
    let mut in_task = false;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text.starts_with('-') && text != "-" && text != "--" {
            let next = next(&text, command);
            let by = words.peek().and_then(|by| by.to_str()).filter(|by| is_value(command, by));
            match (next, by) {
                (Next::By, Some(by)) => {
                    let both = format!("{text}={by}");
                    words.next();
                    out.push(both.into());
                }
                (Next::Value, _) => out.extend([Some(word), words.next()].into_iter().flatten()),
                _ => out.push(word),
            }
            continue;
        }
        // The first word of a command, or a task, which may have options behind its words.
        let task = command.find_subcommand(&*text).filter(|_| !in_task);
        let over = text == "--" || task.is_none() && !in_task;
        out.push(word);
        if over {
            break;
        }
        in_task = true;
        command = task.unwrap_or(command);
    }
    out.extend(words);
    out
}

/// What comes behind the option or options of `word`.
fn next(word: &str, command: &Command) -> Next {
    let of = |arg: Option<&Arg>| match arg {
        Some(arg) if arg.get_id() == OPTION => Next::By,
        Some(arg) if arg.get_action().takes_values() && !arg.is_require_equals_set() => Next::Value,
        _ => Next::Word,
    };
    if let Some(name) = word.strip_prefix("--") {
        return of(command.get_arguments().find(|arg| arg.get_long() == Some(name)));
    }
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        let next = of(command.get_arguments().find(|arg| arg.get_short() == Some(letter)));
        if !matches!(next, Next::Word) {
            // What stands behind the letter is the value.
            return if letters.next().is_none() { next } else { Next::Word };
        }
    }
    Next::Word
}

/// Whether the option takes this value.
fn is_value(command: &Command, word: &str) -> bool {
    let option = command.get_arguments().find(|arg| arg.get_id() == OPTION);
    option
        .is_some_and(|arg| arg.get_possible_values().iter().any(|value| value.matches(word, false)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn only_what_is_surely_its_value_is_joined() {
        for (typed, want) in [
            ("-S", "-S"),
            ("-S comm", "-S=comm"),
            ("--summary exe -D 1s", "--summary=exe -D 1s"),
            ("-qS uid", "-qS=uid"),
            ("-S=comm kind", "-S=comm kind"),
            ("-S -- comm a b", "-S -- comm a b"),
            ("-S make -j8", "-S make -j8"),
            ("-S -D 1s", "-S -D 1s"),
            ("-oS comm", "-oS comm"),
            ("-o -S comm", "-o -S comm"),
            ("-o x -S comm", "-o x -S=comm"),
            ("--stages -S comm", "--stages -S=comm"),
            ("--backend auto -S comm", "--backend auto -S=comm"),
            ("ls -S comm", "ls -S comm"),
            ("-- ls -S comm", "-- ls -S comm"),
            ("replay - -S comm", "replay - -S=comm"),
            ("replay -S cgroup x.json", "replay -S=cgroup x.json"),
            ("replay x.json -S --json", "replay x.json -S --json"),
            ("explain -S comm", "explain -S comm"),
        ] {
            let words = |text: &str| -> Vec<OsString> {
                format!("fork-trace {text}").split(' ').map(OsString::from).collect()
            };
            assert_eq!(joined(words(typed), Cli::command()), words(want), "{typed}");
        }
    }
}
