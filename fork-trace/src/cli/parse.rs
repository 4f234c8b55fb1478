//! Values as they are typed: each function reads one, or says what would have been right.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use clap::builder::{
    PathBufValueParser, PossibleValue, PossibleValuesParser, RangedI64ValueParser, TypedValueParser,
};
use fork_trace_common::stage::{Row, STAGES};
use jiff::SignedDuration;

use crate::{
    event::{
        bytes::{bytes, text},
        errno::{errno_names, parse_errno},
        nearest::{did_you_mean, nearest},
    },
    output::formats::Format,
    plan::stages::Stages,
};

/// A parser of one word out of a table: a name, its help line, and what it means.
pub(super) fn word<T: Clone + Send + Sync + 'static>(
    rows: impl IntoIterator<Item = (&'static str, &'static str, T)>,
) -> impl TypedValueParser<Value = T> {
    let rows: Vec<_> = rows.into_iter().collect();
    let values = rows.iter().map(|(name, help, _)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values.collect::<Vec<_>>()).try_map(move |typed: String| {
        let row = rows.iter().find(|(name, ..)| *name == typed);
        row.map(|(_, _, meaning)| meaning.clone()).ok_or("it is not in the table")
    })
}

/// A parser of a file to write to, whose ending has to be one that a format has.
pub(super) fn output_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if Format::takes(&path) {
            return Ok(path);
        }
        let endings = Format::all_endings();
        Err(format!("no format has this ending: give one of {endings}, or none and say --format"))
    })
}

/// A file to record to, which `replay` has to be able to read.
pub(super) fn recording() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let is_json = Format::of_file(&path).is_some_and(|format| format.name == "json");
        let no_ending = Format::takes(&path) && Format::of_file(&path).is_none();
        let is_file = path.as_os_str() != "-";
        if is_file && (is_json || no_ending) {
            return Ok(path);
        }
        Err("a recording is JSON: give a file with the ending .json or .jsonl; .gz or .zst after it compresses")
    })
}

/// The stages to measure: `default`, `all`, `none`, or names.
pub(super) fn stages(text: &str) -> Result<Stages, String> {
    match text {
        "default" => return Ok(Stages::Default),
        "all" => return Ok(Stages::All),
        "none" => return Ok(Stages::Only(BTreeSet::new())),
        _ => {}
    }
    let stage = |name: &str| {
        Row::named(name).map(|row| row.stage).ok_or_else(|| {
            match nearest(name, STAGES.iter().map(|row| row.name).chain(["default", "all", "none"]))
            {
                Some(near) => format!("there is no stage {name}{}", did_you_mean(Some(near))),
                None => format!("there is no stage {name}; `fork-trace doctor` lists them all"),
            }
        })
    };
    text.split(',').map(stage).collect::<Result<_, _>>().map(Stages::Only)
}

/// The id of a process: one that the kernel may give.
pub(super) fn pid() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// A task's name as the kernel keeps it.
///
/// KERNEL: include/linux/sched.h: `TASK_COMM_LEN` is 16, with the NUL.
pub(super) fn comm(typed: &str) -> String {
    const KEPT: usize = 15;
    bytes(typed).get(..KEPT).filter(|_| bytes(typed).len() > KEPT).map_or(typed.to_owned(), text)
}

/// An error's name or number, as it was typed, if there is such an error.
pub(super) fn errno(text: &str) -> Result<String, String> {
    match parse_errno(text) {
        Some(_) => Ok(text.to_owned()),
        None => {
            let names = errno_names();
            let cure = match nearest(text, names.iter().map(String::as_str)) {
                Some(near) => did_you_mean(Some(near)),
                None => ": give a name such as EAGAIN, or its number".to_owned(),
            };
            Err(format!("there is no error {text}{cure}"))
        }
    }
}

/// A time: seconds, or with units; not longer than what every clock can count to.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let friendly = || {
        let parsed = text.parse::<SignedDuration>().ok()?;
        Duration::try_from(parsed).ok()
    };
    match seconds.or_else(friendly) {
        Some(duration) if duration > LONGEST => {
            Err("that is more than a hundred years: leave it out".to_owned())
        }
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("give a time such as 5 (seconds), 5s, 500ms or 1m30s".to_owned()),
    }
}

/// A duration in nanoseconds; [`duration`] has seen to it that it fits.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A size in bytes, with a unit or without.
pub(super) fn size(text: &str) -> Result<u32, String> {
    const LEAST: u64 = 4096;
    const MOST: u64 = 1 << 30;
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..) {
        Some("") => Some(1),
        Some("K" | "k" | "KiB") => Some(1 << 10),
        Some("M" | "m" | "MiB") => Some(1 << 20),
        Some("G" | "g" | "GiB") => Some(1 << 30),
        _ => None,
    };
    let bytes = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    match bytes.filter(|bytes| (LEAST..=MOST).contains(bytes)).map(u32::try_from) {
        Some(Ok(bytes)) => Ok(bytes),
        _ => Err("give a size from 4K to 1G, such as 64M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use fork_trace_common::stage::Stage;

    use super::*;

    #[test]
    fn stages_are_named_or_refused() {
        assert_eq!(stages("all"), Ok(Stages::All));
        assert!(stages("none").unwrap().is_none() && !stages("default").unwrap().is_none());
        let only = stages("copy_mm,alloc_pid").unwrap();
        assert!(only.wants(Stage::CopyMm) && !only.wants(Stage::CopyFs));
        assert!(stages("copy_mm,nothing").unwrap_err().contains("no stage nothing; `fork-trace"));
        assert!(stages("copy_mn").unwrap_err().ends_with("; did you mean copy_mm?"));
        assert!(stages("dfault").unwrap_err().ends_with("; did you mean default?"));
    }

    #[test]
    fn times_and_sizes_are_read_or_refused() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in [
            "",
            "0",
            "0s",
            "-1s",
            "5 parsecs",
            "ten",
            "1e400",
            "NaN",
            "1e19",
            "1e10",
            "99999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("5"), duration("5s"));
        assert_eq!(duration("500us").map(nanoseconds), Ok(500_000));
        assert_eq!(nanoseconds(Duration::MAX), u64::MAX);
        assert_eq!(size("4M"), Ok(4 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "4095", "2G", "4X", "M", "-4K", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_are_known_or_refused() {
        assert_eq!(errno("EAGAIN"), Ok("EAGAIN".to_owned()));
        assert_eq!(errno("22"), Ok("22".to_owned()));
        assert!(errno("EWHAT").unwrap_err().contains("there is no error EWHAT"));
        assert_eq!(
            errno("EAGIAN"),
            Err("there is no error EAGIAN; did you mean EAGAIN?".to_owned())
        );
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        assert_eq!(comm("sh"), "sh");
        assert_eq!(comm("123456789012345"), "123456789012345");
        assert_eq!(comm("1234567890123456"), "123456789012345");
        assert_eq!(comm("12345678901234\u{e4}"), "12345678901234\\xc3", "half a letter");
        assert_eq!(comm("\\xff2345678901234"), "\\xff2345678901234", "a byte that is no text");
    }
}
