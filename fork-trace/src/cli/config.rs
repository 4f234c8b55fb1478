//! The configuration file of `export`: TOML whose keys are called as the options are. It becomes words of the
//! command line, which clap reads, so a file can say what can be typed, and is held to the same rules.

use std::{collections::BTreeSet, ffi::OsString, fs, io::Read as _, ops::Range, path::Path};

use clap::{
    ArgMatches, Args as _, Command, FromArgMatches as _, error::ErrorKind, parser::ValueSource,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    cli::export_args::ExportArgs,
    error::UserError,
    event::nearest::{did_you_mean, nearest},
};

/// The longest file that is read.
const LONGEST: u64 = 64 << 10;

/// The table of filters, and the heading of their options.
const FILTERS: (&str, &str) = ("filters", "Filters");

/// The headings of the options that may stand outside of tables.
const TOP: [&str; 3] = ["Metrics", "Flight recorder", "OpenTelemetry"];

/// The subcommand as it is typed.
const SUBCOMMAND: &str = "export";

/// A key of the file, as words of the command line.
#[derive(Debug)]
struct Setting {
    /// The option's name.
    name: String,
    words: Vec<OsString>,
    line: usize,
}

/// The options that `words`, with the program's name first, and the file say together: what is typed wins.
pub(super) fn with_file(words: &[OsString], file: &Path) -> Result<ExportArgs, UserError> {
    let name = file.display().to_string();
    let wrong = |cause| UserError::Configuration { place: name.clone(), cause };
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(|error| wrong(told(&error)))?;
    opened.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| wrong(told(&error)))?;
    if text.len() > usize::try_from(LONGEST).unwrap_or(usize::MAX) {
        return Err(wrong(format!("it is longer than {LONGEST} bytes")));
    }
    merged(words, &text, &name)
}

fn told(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The command as clap knows it by itself.
fn command() -> Command {
    ExportArgs::augment_args(Command::new(SUBCOMMAND)).disable_help_flag(true)
}

fn merged(words: &[OsString], text: &str, name: &str) -> Result<ExportArgs, UserError> {
    let at = |line: usize, cause| UserError::Configuration {
        place: format!("{name}, line {line}"),
        cause,
    };
    let settings = settings(text).map_err(|(line, cause)| at(line, cause))?;
    for setting in &settings {
        let alone = [OsString::from(SUBCOMMAND)].into_iter().chain(setting.words.iter().cloned());
        match command().try_get_matches_from(alone) {
            // Another key may be what it needs.
            Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                return Err(at(setting.line, cause(&error)));
            }
            _ => {}
        }
    }
    // What was typed has been read before, and so is right.
    let typed: Vec<_> =
        words.iter().skip(1).skip_while(|word| *word != SUBCOMMAND).cloned().collect();
    let matches = command().try_get_matches_from(&typed);
    let given = matches.map(|matches| given(&matches)).unwrap_or_default();
    let kept = settings.iter().filter(|setting| !given.contains(&setting.name));
    let of_file = kept.flat_map(|setting| setting.words.iter().cloned());
    let all = [OsString::from(SUBCOMMAND)].into_iter().chain(of_file);
    let all = all.chain(typed.into_iter().skip(1));
    let read = command().try_get_matches_from(all);
    let read = read.and_then(|matches| ExportArgs::from_arg_matches(&matches));
    read.map_err(|error| UserError::Configuration { place: name.to_owned(), cause: cause(&error) })
}

/// The names of the options that were typed.
fn given(matches: &ArgMatches) -> BTreeSet<String> {
    let command = command();
    let typed = command.get_arguments().filter(|arg| {
        matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    });
    typed.filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

/// What clap says, in one line: what is wrong, and what would be right.
fn cause(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with("Usage:")).collect();
    let text = lines.into_iter().filter(|line| !line.starts_with("For more")).collect::<Vec<_>>();
    text.join("; ").trim_start_matches("error: ").to_owned()
}

/// What is wrong, and in which line.
type Wrong = (usize, String);

fn settings(text: &str) -> Result<Vec<Setting>, Wrong> {
    let line =
        |span: Range<usize>| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        (error.span().map_or(1, line), message)
    })?;
    let (filters, heading) = FILTERS;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(table) if key.get_ref() == filters => {
                add(&mut settings, table, &[heading], &line)?;
            }
            _ => add_one(&mut settings, key, value, &TOP, &line)?,
        }
    }
    settings.sort_by_key(|setting| setting.line);
    Ok(settings)
}

fn add(
    settings: &mut Vec<Setting>,
    table: &DeTable<'_>,
    headings: &[&str],
    line: &impl Fn(Range<usize>) -> usize,
) -> Result<(), Wrong> {
    table.iter().try_for_each(|(key, value)| add_one(settings, key, value, headings, line))
}

fn add_one(
    settings: &mut Vec<Setting>,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    headings: &[&str],
    line: &impl Fn(Range<usize>) -> usize,
) -> Result<(), Wrong> {
    let (name, at) = (key.get_ref().to_string(), line(key.span()));
    let command = command();
    let is_here = |heading: &str| headings.contains(&heading);
    let options = command.get_arguments().filter(|arg| arg.get_help_heading().is_some_and(is_here));
    let mut known: Vec<_> = options.filter_map(|arg| arg.get_long()).collect();
    if headings == TOP {
        known.push(FILTERS.0);
    }
    if !known.contains(&name.as_str()) {
        let near = nearest(&name, known.iter().copied());
        let cure = match near {
            Some(near) => did_you_mean(Some(near)),
            None => format!("; there are {}", known.join(", ")),
        };
        return Err((at, format!("there is no key {name} here{cure}")));
    }
    let mut words = Vec::new();
    let values = match value.get_ref() {
        DeValue::Array(values) => values.iter().collect(),
        _ => vec![value],
    };
    for value in values {
        let option = format!("--{name}");
        words.extend(match value.get_ref() {
            DeValue::Boolean(true) => Some(option.into()),
            DeValue::Boolean(false) => None,
            DeValue::String(text) => Some(format!("{option}={text}").into()),
            DeValue::Integer(number) => Some(format!("{option}={number}").into()),
            _ => {
                let cause =
                    format!("{name} takes a text, a number, true or false, or a list of these");
                return Err((line(value.span()), cause));
            }
        });
    }
    settings.push(Setting { name, words, line: at });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::values::Kind, output::recorder::Trigger};

    fn read(typed: &str, text: &str) -> Result<ExportArgs, String> {
        let words = ["fork-trace", "export"].into_iter().chain(typed.split_whitespace());
        let words: Vec<_> = words.map(OsString::from).collect();
        merged(&words, text, "x.toml").map_err(|error| error.to_string())
    }

    const WHOLE: &str = "listen = \"127.0.0.1:9999\"\ntop = 7\nstages = \"copy_mm\"\nbuffer = \"8M\"\n\
        [filters]\npid = [1, 2]\nfollow = true\nkind = [\"process\", \"vfork\"]\n\
        min-duration = \"1ms\"\nfailed = false\ncomm = \"a b\"\n";

    #[test]
    fn keys_are_options_and_what_is_typed_wins() {
        let args = read("", WHOLE).unwrap();
        assert_eq!((args.listen.port(), args.top, args.buffer), (9999, 7, 8 << 20));
        assert_eq!((args.filter.pids, args.filter.follow), (vec![1, 2], true));
        assert_eq!(args.filter.kinds, [Kind::Process, Kind::Vfork]);
        assert_eq!((args.filter.comms, args.filter.failed), (vec!["a b".to_owned()], false));
        let args = read("--top 9 -p 3 --listen=127.0.0.1:1 -x --config x.toml", WHOLE).unwrap();
        assert_eq!((args.listen.port(), args.top, args.filter.pids), (1, 9, vec![3]));
        assert!(args.filter.failed && args.filter.follow && args.filter.kinds.len() == 2);
        assert_eq!(read("", "").unwrap().listen.port(), 9464);
        let text = "record = \"/a\"\nrecord-last = \"90s\"\nrecord-on = [\"stuck\", \"limit\"]\nrecord-size = \"1M\"";
        let record = read("--record-keep 3", text).unwrap().record.settings().unwrap();
        assert_eq!((record.last.as_secs(), record.size, record.keep), (90, 1 << 20, 3));
        assert_eq!((record.folder.to_str(), record.storm), (Some("/a"), 2000));
        assert_eq!(record.on, [Trigger::Stuck, Trigger::Limit]);
        let all = read("", "record = \"/a\"").unwrap().record.settings().unwrap().on;
        assert_eq!(all, [Trigger::Failure, Trigger::Limit, Trigger::Stuck, Trigger::Storm]);
        assert!(read("", WHOLE).unwrap().record.settings().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, wanted) in [
            ("lisen = \"x\"", "x.toml, line 1: there is no key lisen here; did you mean listen?"),
            (
                "\nzebra = 1",
                "x.toml, line 2: there is no key zebra here; there are listen, top, stages, buffer, record, ",
            ),
            ("[filters]\ncom = \"x\"", "line 2: there is no key com here; did you mean comm?"),
            (
                "[filter]\ncomm = \"x\"",
                "line 1: there is no key filter here; did you mean filters?",
            ),
            ("check = true", "line 1: there is no key check here"),
            ("top = 0", "line 1: invalid value '0' for '--top <N>': 0 is not in 1..=1000"),
            ("top = 5\nlisten = \"here\"", "line 2: invalid value 'here'"),
            ("stages = \"copy_mn\"", "did you mean copy_mm?"),
            ("[filters]\n\nkind = [\"proces\"]", "line 3: invalid value 'proces'"),
            (
                "[filters]\nfollow = true",
                "x.toml: the following required arguments were not provided",
            ),
            ("record-last = \"9m\"", "x.toml: the following required arguments were not provided"),
            ("record-on = \"failures\"", "line 1: invalid value 'failures'"),
            ("top = 1.5", "line 1: top takes a text, a number"),
            ("top = [1, [2]]", "line 1: top takes a text, a number"),
            ("top = 1\ntop = 2", "line 2: duplicate key"),
            ("top = ", "line 1: "),
            ("filters = 1", "line 1: "),
            ("top = true", "line 1: "),
        ] {
            let error = read("", text).unwrap_err();
            assert!(error.contains(wanted) && !error.contains('\n'), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\\n]{0,200}") {
            read("", &text).ok();
        }
    }
}
