//! Parses, runs, and turns every ending into an exit code.

use std::{io::Write as _, process::ExitCode};

use env_logger::Target;
use fork_trace::{
    cli::{self, Task},
    output::{notes::Stderr, text::line::printable},
};
use log::LevelFilter;

fn main() -> ExitCode {
    let cli = cli::command_line::parse();
    let result = match &cli.task {
        None => {
            listen(cli.trace.output.verbose);
            cli::trace::trace(&cli.trace)
        }
        Some(Task::Replay(args)) => {
            listen(args.output.verbose);
            match &args.arrange.against {
                Some(other) => cli::compare::compare(args, other),
                None => cli::replay::replay(args),
            }
        }
        Some(Task::Export(args)) => {
            listen(args.verbose);
            cli::export::export(args)
        }
        // What is logged would be written over the picture.
        Some(Task::Top(args)) => cli::top::top(args),
        Some(Task::Explain { words, markdown }) => cli::explain::explain(words, *markdown),
        Some(Task::Schema) => cli::schema::schema(),
        Some(Task::Completions { shell }) => cli::generated::completions(*shell),
        Some(Task::Man) => cli::generated::man(),
        Some(Task::Stuck { json }) => cli::stuck::stuck(*json),
        Some(Task::Help { topic }) => cli::help::help(topic.as_deref()),
        Some(Task::Doctor { json }) => cli::doctor::doctor(*json),
    };
    ExitCode::from(result.unwrap_or_else(|error| cli::failure::tell(&error)))
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
        .target(Target::Pipe(Box::new(Stderr::busy())))
        .format(|out, record| {
            let level = record.level().as_str().to_lowercase();
            let text = record.args().to_string();
            let lines: Vec<_> = text.lines().map(printable).collect();
            writeln!(out, "fork-trace: {level}: {}", lines.join("\n"))
        })
        .init();
}
