//! Parses, runs, and turns every ending into an exit code.

use std::{io::Write as _, process::ExitCode};

use fork_trace::{
    cli::{self, Task},
    error::UserError,
};
use log::LevelFilter;

fn main() -> ExitCode {
    let cli = cli::parse();
    let result = match &cli.task {
        None => {
            listen(cli.trace.output.verbose);
            cli::trace::trace(&cli.trace)
        }
        Some(Task::Replay { file, only, output }) => {
            listen(output.verbose);
            cli::replay::replay(file, only, output)
        }
        Some(Task::Explain { words, markdown }) => cli::explain::explain(words, *markdown),
        Some(Task::Doctor { json }) => cli::doctor::doctor(*json),
    };
    ExitCode::from(result.unwrap_or_else(|error| explain(&error)))
}

/// One line of cause, one of cure; returns the exit status.
fn explain(error: &anyhow::Error) -> u8 {
    let mut err = std::io::stderr().lock();
    let cured = error.downcast_ref::<UserError>();
    // Nobody listens: nothing to be done.
    writeln!(err, "fork-trace: {error:#}").ok();
    if let Some(cured) = cured {
        writeln!(err, "  hint: {}", cured.hint()).ok();
    }
    cured.map_or(1, UserError::exit_status)
}

/// `-v` and more: what is done, on standard error.
fn listen(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Error,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(LevelFilter::Error)
        .filter_module("fork_trace", level)
        .filter_module(
            "aya",
            level.min(if verbose > 1 { LevelFilter::Debug } else { LevelFilter::Warn }),
        )
        .format(|out, record| {
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "fork-trace: {level}: {}", record.args())
        })
        .init();
}
