//! What was typed.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fork_trace_common::stage::{STAGES, Stage};
use jiff::SignedDuration;

use crate::{cause::explain::parse_errno, filter::Wanted, fork::Fork, plan::Backend};

/// Shows what this Linux host really does when a process forks: every fork, vfork, clone and
/// clone3, stage by stage, also those that fail.
///
/// Without a command it traces the whole host until Ctrl-C. With one it traces the command and all
/// its descendants, ends with it and exits with its status.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(override_usage = "fork-trace [OPTIONS] [-- CMD ARGS...]\n       \
    fork-trace replay FILE [OPTIONS]\n       fork-trace doctor [--json]\n       \
    fork-trace explain WHAT...")]
#[command(after_help = "Examples:\n  \
    sudo fork-trace                          every fork of the host, one line each\n  \
    sudo fork-trace --stages -- make -j8     a build, each fork as a waterfall of stages\n  \
    sudo fork-trace -o forks.json -S -D 10s  ten seconds into a file, a summary at the end\n  \
    fork-trace replay forks.json --stages    the same again, on any machine\n\n\
    Exit status: 0 fine; 1 failed; 2 bad usage; 3 this host or user cannot trace; 4 records lost\n\
    (with --fail-on-loss); with CMD its own, 128+n if a signal ended it.")]
pub struct Cli {
    /// Another task than tracing.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Options of tracing.
    #[command(flatten)]
    pub live: Live,
}

/// Tasks other than tracing.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Read the tool's own JSON and show it in any format; no root, any machine
    Replay {
        /// What --json or -o FILE.json wrote; - for standard input
        file: PathBuf,
        /// Which attempts.
        #[command(flatten)]
        only: Only,
        /// Options of output.
        #[command(flatten)]
        output: Output,
    },
    /// What the kernel does at a stage, with a flag, for an error: a few lines from the tables
    Explain {
        /// A stage, a CLONE_ flag, a flags word (0x1200011), an errno, a rule or a kind of cause
        #[arg(value_name = "WHAT", required_unless_present = "markdown")]
        words: Vec<String>,
        /// Everything, as docs/FAILURES.md
        #[arg(long, hide = true)]
        markdown: bool,
    },
    /// What this host lets us see: each stage's precision, source, and why
    Doctor {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Options of tracing.
#[derive(Args, Debug)]
pub struct Live {
    /// Options of output.
    #[command(flatten)]
    pub output: Output,
    /// Stop after this time: 10s, 500ms, 1m30s, or seconds
    #[arg(short = 'D', long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Stop after N attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// Room for records that were not read yet: 4M, 64M, 512K, up to 1G
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = size)]
    pub buffer: u32,
    /// Where stage boundaries come from
    #[arg(long, value_name = "BACKEND", value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// Which attempts to show.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Tell when a child runs another program, which, and with which arguments
    #[arg(long)]
    pub exec: bool,
    /// Tell when a child process ends, and how
    #[arg(long)]
    pub exit: bool,
    /// Exit with 4 if a record was lost
    #[arg(long)]
    pub fail_on_loss: bool,
    /// Run CMD as root instead of as the user who called sudo
    #[arg(long, requires = "cmd")]
    pub as_root: bool,
    /// Trace this command and all its descendants
    #[arg(last = true, value_name = "CMD ARGS")]
    pub cmd: Vec<OsString>,
}

/// Which attempts are shown.
#[derive(Args, Clone, Debug, Default)]
pub struct Only {
    /// Only attempts that failed
    #[arg(short = 'x', long)]
    pub failed: bool,
    /// Only attempts that failed with this error, by name or number; repeatable
    #[arg(short = 'e', long = "errno", value_name = "NAME", value_parser = errno)]
    pub errnos: Vec<u32>,
}

impl Only {
    /// Whether `fork` is among them.
    #[must_use]
    pub fn shows(&self, fork: &Fork) -> bool {
        let is = |errno: &u32| fork.errno == Some(*errno);
        (!self.failed || !fork.succeeded())
            && (self.errnos.is_empty() || self.errnos.iter().any(is))
    }
}

/// Options of output.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Text: the stages as an indented waterfall under each fork; SET says which to measure:
    /// default, all (also those whose functions run often outside of forks), or names separated by
    /// commas
    #[arg(long, value_name = "SET", num_args = 0..=1, require_equals = true,
        default_missing_value = "default", value_parser = stages)]
    pub stages: Option<Stages>,
    /// Format where a file's ending does not tell it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write to FILE, its format taken from the ending (.txt, .json, .jsonl); - is standard
    /// output; repeatable
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Text: at the end, counts and percentiles by kind and stage, failures, loss
    #[arg(short = 'S', long)]
    pub summary: bool,
    /// Text: when to use colour
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Text: times in UTC instead of local time
    #[arg(long)]
    pub utc: bool,
    /// No notes on standard error, errors apart
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is done; twice: also the verifier's words; three times: also the kernel side's
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Which stages to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stages {
    /// All whose cost outside of forks is small.
    Default,
    /// All that this host can show.
    All,
    /// These only.
    Only(BTreeSet<Stage>),
}

impl Stages {
    /// Whether `stage` is among them.
    #[must_use]
    pub fn wants(&self, stage: Stage) -> bool {
        match self {
            Self::Default | Self::All => true,
            Self::Only(stages) => stages.contains(&stage),
        }
    }
}

fn stages(text: &str) -> Result<Stages, String> {
    match text {
        "default" => return Ok(Stages::Default),
        "all" => return Ok(Stages::All),
        _ => {}
    }
    let stage = |name: &str| {
        let row = STAGES.iter().find(|row| row.name == name);
        row.map(|row| row.stage)
            .ok_or_else(|| format!("there is no stage {name}; `fork-trace doctor` lists them all"))
    };
    text.split(',').map(stage).collect::<Result<_, _>>().map(Stages::Only)
}

/// An error by name or number.
pub(crate) fn errno(text: &str) -> Result<u32, String> {
    let known = parse_errno(text).ok_or_else(|| {
        format!("there is no error {text}: give a name such as EAGAIN, or its number")
    })?;
    u32::try_from(known as i32).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let friendly = || {
        let parsed = text.parse::<SignedDuration>().ok()?;
        Duration::try_from(parsed).ok()
    };
    match seconds.or_else(friendly) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("give a time such as 10s, 500ms or 1m30s".to_owned()),
    }
}

fn size(text: &str) -> Result<u32, String> {
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
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn stages_are_named_or_refused() {
        assert_eq!(stages("all"), Ok(Stages::All));
        let only = stages("copy_mm,alloc_pid").unwrap();
        assert!(only.wants(Stage::CopyMm) && !only.wants(Stage::CopyFs));
        assert!(stages("copy_mm,nothing").unwrap_err().contains("no stage nothing"));
    }

    #[test]
    fn times_and_sizes_are_read_or_refused() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "-1s", "ten", "1e400", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(size("4M"), Ok(4 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "4095", "2G", "4X", "M", "-4K", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
