//! What was typed, and an outline for each command.
//!
//! clap is known here only: what was typed becomes the plain structs that the other rooms take.
//! `trace`, `top`, `replay`, `export`, `explain`, `schema`, `stuck`, `doctor`, and what is `generated` from the definitions
//! here, are one command each.

mod by;
pub mod command_line;
pub mod compare;
mod config;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod export_args;
pub mod failure;
pub mod filter_args;
pub mod generated;
pub mod help;
mod parse;
pub mod replay;
pub mod schema;
pub mod stuck;
pub mod top;
pub mod top_args;
pub mod trace;
mod words;

use std::{ffi::OsString, io::Write as _, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    cli::{
        export_args::ExportArgs,
        filter_args::FilterArgs,
        top_args::TopArgs,
        words::{BACKENDS, COLORS, GROUPS, Order, SHELLS, SORTS},
    },
    error::UserError,
    event::summary::By,
    output::{
        formats::{FORMATS, Format},
        notes::Stderr,
        options::{Color, OutputOptions},
        told::Told,
    },
    plan::{backend::Backend, stages::Stages},
};

/// Shows where every fork of this host spends its time, and why some fail.
///
/// Without a command it traces the whole host until Ctrl-C. With one it traces the command and all
/// its descendants, ends with it and exits with its status. The first word that is no option begins
/// the command, and all that follows belongs to it; a program that is called like one of the
/// subcommands needs -- before it.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(disable_help_subcommand = true, disable_help_flag = true, disable_version_flag = true)]
#[command(override_usage = "fork-trace [OPTIONS] [--] [CMD ARGS...]\n       \
    fork-trace COMMAND [...]")]
#[command(after_help = "Examples:\n  \
    sudo fork-trace                          every fork of the host, one line each\n  \
    sudo fork-trace --stages make -j8        a build, with the stages of each fork\n  \
    sudo fork-trace -o forks.json -S -D 10s  ten seconds to a file, a summary\n  \
    fork-trace replay forks.json --stages    the same again, on any machine\n\n\
    Exit status: 0 fine; 1 failed; 2 bad usage; 3 this host or user cannot trace;\n\
    4 records lost (--fail-on-loss); with CMD its own, 128+n if a signal ended it.")]
pub struct Cli {
    /// Another task than tracing.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Options of tracing.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Print this screen; --help all: every option
    #[arg(short, long, action = ArgAction::HelpShort, global = true, help_heading = "Run")]
    pub help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "Run")]
    pub version: Option<bool>,
}

/// Tasks other than tracing.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Show a recording again, in any format; this needs no root
    ///
    /// It reads the tool's own JSON, and works on any machine.
    Replay(Box<ReplayArgs>),
    /// Show who forks on this host, live on a terminal
    ///
    /// It tells how often, for how long callers are held, what they wait for, and why forks fail. The key ? tells all keys: sort, filter, groups, details of one program, pause, record.
    Top(Box<TopArgs>),
    /// Serve the metrics of this host to Prometheus, until it is stopped
    ///
    /// It traces every fork of the host with light stages, and answers GET /metrics and GET /healthz.
    Export(Box<ExportArgs>),
    /// Say what a word means: a stage, a call, a flag, an error, a field
    Explain {
        /// A stage, a function, a call (fork, clone3), a CLONE_ flag, a flags word (0x1200011), an
        /// errno, a rule, a kind of cause, the reason of a wait, the code of a warning, a field or value of the
        /// JSON, an option or a subcommand
        #[arg(
            value_name = "WHAT",
            required_unless_present = "markdown",
            allow_hyphen_values = true
        )]
        words: Vec<String>,
        /// Everything, as docs/FAILURES.md
        #[arg(long, hide = true)]
        markdown: bool,
    },
    /// Show the tasks of the host that stand still inside a fork
    ///
    /// Nothing is traced for that. The exit status is 1 if there is such a task.
    Stuck {
        /// Print one JSON object for each
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the lines that --json writes
    Schema,
    /// Print what completes this command line in a shell
    Completions {
        /// The shell
        #[arg(value_parser = parse::word(SHELLS))]
        shell: Shell,
    },
    /// Print the manual page
    Man,
    /// Say what this host lets us see of each stage, and why not more
    ///
    /// Of each stage it says how precisely it is seen, by which source, and why.
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print this help, or that of a subcommand; all: everything
    Help {
        /// A subcommand, or all
        #[arg(value_name = "TOPIC")]
        topic: Option<String>,
    },
}

/// Options of tracing, by intent.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// The traced command.
    #[command(flatten)]
    pub command: CommandArgs,
    /// Which attempts to show.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// What to measure.
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Options of output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// When to stop, and losses.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The traced command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Command")]
pub struct CommandArgs {
    /// Trace this command and all its descendants
    #[arg(trailing_var_arg = true, value_name = "CMD ARGS", help_heading = "Arguments")]
    pub cmd: Vec<OsString>,
    /// Run CMD as root instead of as the user who called sudo
    #[arg(long, requires = "cmd")]
    pub as_root: bool,
}

/// Options of showing a recording again.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// What --json or -o FILE.json wrote; - is standard input
    pub file: PathBuf,
    /// Which attempts to show.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// In which order, how many, and beside what.
    #[command(flatten)]
    pub arrange: ArrangeArgs,
    /// Options of output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How the attempts of a recording are arranged.
#[derive(Args, Debug)]
#[command(next_help_heading = "Arrangement")]
pub struct ArrangeArgs {
    /// The attempts with the largest of this first, each followed by what became of its child
    ///
    /// Those of which it is not known come last.
    #[arg(long, value_name = "FIELD", default_value = "time", conflicts_with = "tree",
        value_parser = parse::word(SORTS))]
    pub sort: Order,
    /// Only the first N attempts; with --sort those with the largest figures, 20000 unless it is said
    /// otherwise
    ///
    /// The others count as filtered out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// Compare FILE with this other recording: rates, times by kind and by stage, failures
    ///
    /// Filters apply to both. It is text, or with --json one object.
    #[arg(long, value_name = "OTHER", conflicts_with_all = ["sort", "max_events", "stages",
        "per_stage", "tree", "format", "files", "summary"])]
    pub against: Option<PathBuf>,
}

/// How often samples are taken, unless it is said otherwise.
pub const SAMPLE_HZ: u32 = 1000;

/// What to measure.
#[derive(Args, Debug)]
#[command(next_help_heading = "What to measure")]
pub struct MeasureArgs {
    /// Where stage boundaries come from
    #[arg(long, value_name = "BACKEND", default_value = "auto",
        value_parser = parse::word(BACKENDS))]
    pub backend: Backend,
    /// Look HZ times a second what a fork is doing, on each CPU on which one runs, and split the time
    /// of its stages by that; 0: never; 1000 unless it is said otherwise
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub sample: Option<u32>,
    /// Measure where forks stand still, and why, which is done unless --no-waits says otherwise
    #[arg(long, overrides_with = "no_waits")]
    pub waits: bool,
    /// Do not measure where forks stand still
    ///
    /// Then nothing is told that follows from it: waits, time off the CPU, how long the caller was
    /// held, why a fork was slow, and which attempts are stuck. No samples are taken either.
    #[arg(long, overrides_with = "waits", conflicts_with = "min_duration")]
    pub no_waits: bool,
    /// Measure the C library's side too; PATH adds a library that no process maps yet; repeatable
    ///
    /// That is what the library's functions do around the system call, and what the child does before it
    /// returns from fork.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true,
        default_missing_value = "")]
    pub libc: Vec<OsString>,
    /// Take the caller's user-space stack, by frame pointers
    ///
    /// Its frames have names where files of the caller have symbols. Code that was built without frame
    /// pointers hides its callers.
    #[arg(long)]
    pub stacks: bool,
    /// Tell when a child runs another program, and which
    #[arg(long)]
    pub exec: bool,
    /// Tell when a child process ends, and how
    #[arg(long)]
    pub exit: bool,
}

/// When to stop, and what to do about losses.
#[derive(Args, Debug)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    /// Stop after this time: 5, 5s, 500ms, 1m30s
    ///
    /// A number without a unit is in seconds.
    #[arg(short = 'D', long, value_name = "TIME", value_parser = parse::duration)]
    pub duration: Option<Duration>,
    /// Stop after N attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// Room for records that were not read yet: 512K, 64M, up to 1G; without this, 2M for each CPU, and
    /// from 4M to 64M
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub buffer: Option<u32>,
    /// Exit with 4 if a record was lost
    #[arg(long)]
    pub fail_on_loss: bool,
}

/// Options of output.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Text: show the stages of each fork as a waterfall
    ///
    /// SET says which to measure: default, all (also those whose functions run often outside of
    /// forks), none (which costs the traced programs least), or names separated by commas.
    #[arg(long, value_name = "SET", num_args = 0..=1, require_equals = true,
        default_missing_value = "default", value_parser = parse::stages)]
    pub stages: Option<Stages>,
    /// One event for each stage in place of one for each attempt: in JSON of the type stage, in text one line
    #[arg(long)]
    pub per_stage: bool,
    /// Text: in place of the attempts, at the end the tree of processes, with command lines, lifetimes, exit
    /// codes, and what their forks cost; tracing, this includes --exec and --exit
    #[arg(long, conflicts_with = "per_stage")]
    pub tree: bool,
    /// Format where a file's ending does not tell it
    #[arg(long, value_name = "FORMAT", default_value = "text",
        value_parser = parse::word(FORMATS.iter().map(|row| (row.name, row.help, row))))]
    pub format: &'static Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    #[arg(short = 'o', long = "output", value_name = "FILE", help = "Write to FILE; repeatable",
        long_help = files_help(), value_parser = parse::output_file())]
    /// Files to write to.
    pub files: Vec<PathBuf>,
    /// At the end, on the terminal whatever -o says: who forks most and for how long, by kind or BY; the
    /// slowest forks and why; stages, failures, loss. -S takes the next word where it is a BY: for a
    /// command of such a name put -- before it
    #[arg(short = 'S', long, value_name = "BY", num_args = 0..=1, require_equals = true,
        default_missing_value = "kind", value_parser = parse::word(GROUPS))]
    pub summary: Option<By>,
    /// Text: when to use colour
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = parse::word(COLORS))]
    pub color: Color,
    /// Text: times in UTC instead of local time
    #[arg(long)]
    pub utc: bool,
    /// No notes on standard error, errors apart
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is done; twice: also the verifier's words; three times: also the kernel side's
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

fn files_help() -> String {
    format!(
        "Write to FILE, its format taken from the ending ({}), or --format without one; - is \
         standard output; repeatable",
        Format::all_endings()
    )
}

impl OutputArgs {
    /// What is wanted of the outputs.
    fn options(&self) -> OutputOptions {
        let json = FORMATS.iter().find(|format| self.json && format.name == "json");
        let told = match (self.per_stage, self.tree) {
            (true, _) => Told::Stages,
            (_, true) => Told::Tree,
            _ => Told::Forks,
        };
        OutputOptions {
            told,
            format: json.unwrap_or(self.format),
            files: self.files.clone(),
            owner: None,
            stages: self.stages.is_some(),
            summary: self.summary,
            color: self.color,
            utc: self.utc,
            quiet: self.quiet,
        }
    }
}

/// The last of the outputs that failed, as the error that a command ends with; the others are told to the
/// user here.
fn reported(mut failed: Vec<UserError>) -> Result<(), UserError> {
    let Some(last) = failed.pop() else { return Ok(()) };
    for error in failed {
        // Nobody listens: nothing to be done.
        writeln!(Stderr::patient(), "fork-trace: {error}").ok();
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
