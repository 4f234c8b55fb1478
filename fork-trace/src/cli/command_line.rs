//! Reads the command line: which word begins the traced command, and what help is asked for.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
};

use clap::{
    Error, FromArgMatches as _,
    error::{ErrorKind, Result},
};

use crate::{
    cli::{
        Cli, by, failure,
        help::{self, ALL, definition, is_subcommand},
    },
    output::{notes::Stderr, text::line::printable},
};

/// What was typed. A wrong option, `--help` or `--version` ends this process here.
#[must_use]
pub fn parse() -> Cli {
    let args: Vec<_> = std::env::args_os().collect();
    read(&args).unwrap_or_else(|error| end(&error, &args))
}

/// What these words mean; the first one is the name of this program.
fn read(args: &[OsString]) -> Result<Cli> {
    let args = &by::joined(args.iter().cloned(), definition());
    let mut matches = definition().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches_mut(&mut matches)?;
    let conflict = |text: &str| Err(definition().error(ErrorKind::ArgumentConflict, text));
    if let Some(name) = misplaced(&cli.trace.command.cmd, args) {
        return conflict(&format!(
            "the subcommand '{name}' has to come first, before any option; to trace a program of \
             that name, write -- before it"
        ));
    }
    if cli.trace.measure.no_waits && cli.trace.measure.sample.is_some_and(|hz| hz > 0) {
        return conflict(
            "'--sample' cannot be used with '--no-waits': samples tell what a fork did while it did \
             not wait",
        );
    }
    Ok(cli)
}

/// The first word of the command, if it is the name of a subcommand without `--` before it. The command
/// is the rest of the line, so what was typed before its first word is known.
fn misplaced<'a>(command: &'a [OsString], args: &[OsString]) -> Option<&'a str> {
    let name = command.first()?.to_str().filter(|name| is_subcommand(name))?;
    let before = args.len().checked_sub(command.len() + 1).and_then(|place| args.get(place));
    (before.map(OsString::as_os_str) != Some(OsStr::new("--"))).then_some(name)
}

/// Says what clap has to say, and ends this process.
fn end(error: &Error, args: &[OsString]) -> ! {
    if error.kind() == ErrorKind::DisplayHelp {
        let is_help = |arg: &OsString| arg == "-h" || arg == "--help";
        let after = args.iter().skip_while(|arg| !is_help(arg)).nth(1);
        let subcommand = args.get(1).and_then(|arg| arg.to_str());
        let printed = help::print(subcommand, after.is_some_and(|word| word == ALL));
        exit(printed.unwrap_or_else(|error| failure::tell(&error)).into())
    }
    // clap quotes what was typed as it is; then its message goes out as text and without colours.
    if args.iter().any(|arg| arg.to_str().is_none_or(|arg| printable(arg) != arg)) {
        let message = error.render().to_string();
        let lines: Vec<_> = message.lines().map(printable).collect();
        // Nobody listens: nothing to be done.
        writeln!(Stderr::patient(), "{}", lines.join("\n")).ok();
        exit(error.exit_code())
    }
    error.exit()
}

/// Ends this process.
#[expect(clippy::disallowed_methods, clippy::exit, reason = "as clap does it after its messages")]
fn exit(status: i32) -> ! {
    std::process::exit(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Cli> {
        let words = ["fork-trace"].into_iter().chain(line.split_whitespace());
        read(&words.map(OsString::from).collect::<Vec<_>>())
    }

    /// The command that is traced, in one line.
    fn command(line: &str) -> String {
        let cli = typed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(cli.task.is_none(), "{line}");
        let words = cli.trace.command.cmd.iter().map(|word| word.to_str().unwrap());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_word_that_is_no_option_begins_the_command() {
        for (line, wanted) in [
            ("make", "make"),
            ("-- make", "make"),
            ("-x make -j8", "make -j8"),
            ("-x -- make -j8", "make -j8"),
            ("-xS make -x --json -o y", "make -x --json -o y"),
            ("--stages make all", "make all"),
            ("--stages=all make --stages=default", "make --stages=default"),
            ("-o a.json -D 5 sh -c ls -- -x", "sh -c ls -- -x"),
            ("-p 1 -f make --help", "make --help"),
            ("make --version", "make --version"),
            ("make replay", "make replay"),
            ("make -h", "make -h"),
            ("-- replay x", "replay x"),
            ("-x -- replay", "replay"),
            ("-- -x", "-x"),
            ("-- -- x", "-- x"),
            ("sh -- help", "sh -- help"),
            ("--as-root id", "id"),
            ("", ""),
        ] {
            assert_eq!(command(line), wanted, "{line}");
        }
        let cli = typed("-x make -S").unwrap();
        assert!(cli.trace.filter.failed && cli.trace.output.summary.is_none());
    }

    #[test]
    fn a_subcommand_comes_first_or_is_a_program_after_two_dashes() {
        assert!(typed("replay x -x").unwrap().task.is_some());
        for line in ["-x replay f", "--stages stuck", "-o a.json doctor", "-D 5 help"] {
            let error = typed(line).unwrap_err();
            assert!(error.to_string().contains("has to come first"), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        for line in ["-y make", "--no-such make", "--as-root"] {
            assert!(typed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn samples_need_waits() {
        assert!(typed("--no-waits --sample 100").is_err());
        assert!(typed("--no-waits --min-duration 1ms").is_err());
        assert!(typed("--no-waits --sample 0").unwrap().trace.measure.no_waits);
        assert!(!typed("--no-waits --waits").unwrap().trace.measure.no_waits);
    }
}
