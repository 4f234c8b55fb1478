//! forker: makes each kind of fork, and of failed fork, and prints its own truth as JSON lines.
//!
//! In: scenario names. Out: one line for each attempt, with what the kernel was asked and what it
//! answered, then a line of totals. Live tests compare the tracer with it, so it knows nothing of
//! the tracer and shares no code with it.

#![expect(clippy::cast_precision_loss, reason = "benchmark figures stay far below 2^52 ns")]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("forker makes x86-64 system calls in assembler");

mod call;
mod cgroup;
mod failure;
mod host;
mod i386;
mod journal;
mod load;
mod process;
mod random;
mod raw;
mod refused;
mod scenarios;
mod standstill;
mod sys;
mod thread;
mod whole;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::scenarios::{SCENARIOS, Scenario};

/// Makes each kind of fork, and of failed fork, and prints its own truth as JSON lines.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    /// Scenarios to run; without any, all but the heavy ones. `all` is every one.
    scenarios: Vec<String>,
    /// Runs of the whole selection.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What forker does other than run scenarios.
#[derive(Subcommand)]
enum Command {
    /// Print the scenarios.
    List,
    /// Measure an operation and print one line of figures.
    Bench {
        #[arg(long)]
        op: load::Op,
        #[arg(long)]
        count: usize,
    },
    /// Fork, exit and wait in a tight loop; print the totals only.
    Loop {
        #[arg(long)]
        count: usize,
        /// Memory to touch before, in pages of 4 KiB.
        #[arg(long, default_value_t = 0)]
        touch_mib: usize,
        /// Threads that do it at once, by the raw system call: libc lets in one at a time.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Make children that vfork at the same time and are held.
    HoldVfork {
        /// How long each vfork child sleeps.
        #[arg(long)]
        ms: u32,
        #[arg(long)]
        count: usize,
    },
    /// Make random attempts by clone3.
    Random {
        /// The same seed makes the same attempts.
        #[arg(long)]
        seed: u64,
        #[arg(long, default_value_t = 200)]
        count: usize,
    },
    /// Make one fork that stands still, and print how long, by the caller's own clocks.
    Wait {
        #[arg(value_enum)]
        trouble: standstill::Trouble,
    },
    /// Do nothing: what an executed child is where there is no /bin/true.
    #[command(hide = true)]
    True,
}

/// The last line. Absent fields are left out.
#[derive(Default, Serialize)]
struct Done {
    r#type: &'static str,
    attempts: usize,
    succeeded: usize,
    failed: usize,
    skipped: Vec<Skipped>,
    /// Attempts made but not printed, because the journal was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<usize>,
    /// The signal that ended the run early.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_by: Option<i32>,
}

/// A scenario that this host cannot do.
#[derive(Serialize)]
struct Skipped {
    scenario: &'static str,
    why: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let errno = io::Error::from_raw_os_error;
    let _handlers = sys::stop_on_signals().map_err(errno).context("handle SIGTERM and SIGINT")?;
    sys::adopt_orphans().map_err(errno).context("become a subreaper")?;
    journal::open().map_err(errno).context("map the journal of attempts")?;
    match cli.command {
        None => run(&choose(&cli.scenarios)?, cli.repeat)?,
        Some(Command::List) => list()?,
        Some(Command::Bench { op, count }) => print(&load::bench(op, count))?,
        Some(Command::Loop { count, touch_mib, threads }) => {
            sys::touch(touch_mib << 20).map_err(errno).context("touch memory")?;
            let (succeeded, failed) = match threads {
                Some(threads) => load::storms(count, threads),
                None => load::storm(count, load::fork_and_exit),
            };
            let attempts = succeeded + failed;
            Done { attempts, succeeded, failed, ..Done::default() }.print()?;
        }
        Some(Command::HoldVfork { ms, count }) => {
            journal::set_scenario(SCENARIOS.len());
            load::hold_vforks(count, ms);
            let mut done = Done::default();
            done.print_attempts()?;
            done.print()?;
        }
        Some(Command::Random { seed, count }) => {
            journal::set_scenario(SCENARIOS.len());
            let made = random::run(seed, count);
            sys::reap_all();
            let mut done = Done::default();
            done.print_attempts()?;
            if let Err(call::Skip(why)) = made {
                done.skip("random", why);
            }
            done.print()?;
        }
        Some(Command::Wait { trouble }) => match standstill::run(trouble) {
            Ok(truth) => print(&truth)?,
            Err(call::Skip(why)) => {
                let mut done = Done::default();
                done.skip("wait", why);
                done.print()?;
            }
        },
        Some(Command::True) => {}
    }
    let stopped = sys::stop_signal().and_then(|signal| u8::try_from(128 + signal).ok());
    Ok(stopped.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// The rows of the table that were asked for, with their index.
fn choose(names: &[String]) -> anyhow::Result<Vec<(usize, &'static Scenario)>> {
    let table = || SCENARIOS.iter().enumerate();
    if names.is_empty() {
        return Ok(table().filter(|(_, row)| !row.heavy).collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(table().filter(|(_, row)| name == "all" || name == row.name));
        if chosen.len() == before {
            return Err(anyhow!("no scenario is called {name:?}; `forker list` has them all"));
        }
    }
    Ok(chosen)
}

/// Runs scenarios until done or asked to stop.
fn run(chosen: &[(usize, &'static Scenario)], repeat: usize) -> anyhow::Result<()> {
    let mut done = Done::default();
    for (index, row) in std::iter::repeat_n(chosen, repeat).flatten() {
        if sys::stop_signal().is_some() {
            break;
        }
        journal::set_scenario(*index);
        let outcome = (row.run)();
        sys::reap_all();
        done.print_attempts()?;
        if let Err(call::Skip(why)) = outcome {
            done.skip(row.name, why);
        }
    }
    done.print()
}

impl Done {
    /// Prints and counts what the journal has.
    fn print_attempts(&mut self) -> anyhow::Result<()> {
        let (lines, lost) = journal::drain();
        for line in &lines {
            print(line)?;
        }
        let failed = lines.iter().filter(|line| line.errno.is_some()).count();
        self.attempts += lines.len();
        self.failed += failed;
        self.succeeded += lines.len() - failed;
        if lost > 0 {
            self.lost = Some(self.lost.unwrap_or(0) + lost);
        }
        Ok(())
    }

    /// Notes a scenario that could not be done, once; one that was stopped is not such.
    fn skip(&mut self, scenario: &'static str, why: String) {
        let known = self.skipped.iter().any(|skipped| skipped.scenario == scenario);
        if !known && sys::stop_signal().is_none() {
            self.skipped.push(Skipped { scenario, why });
        }
    }

    fn print(self) -> anyhow::Result<()> {
        print(&Self { r#type: "done", stopped_by: sys::stop_signal(), ..self })
    }
}

fn print(line: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(line).context("write a line as JSON")?;
    writeln!(io::stdout(), "{text}").context("print a line")
}

fn list() -> anyhow::Result<()> {
    for row in &SCENARIOS {
        let heavy = if row.heavy { " (heavy)" } else { "" };
        writeln!(io::stdout(), "{:26} {}{heavy}", row.name, row.description)
            .context("print the scenarios")?;
    }
    Ok(())
}
