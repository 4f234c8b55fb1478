//! forker: makes each kind of fork, and of failed fork, and prints its own truth as JSON lines.
//!
//! It takes names of scenarios and prints one line for each attempt, with what the kernel was asked
//! and what it answered, then a line of totals. Live tests compare the tracer with it, so it knows
//! nothing of the tracer and shares no code with it.
//!
//! The rooms, from the bottom up: `sys` makes the system calls, `call` says what is asked of the
//! kernel, `journal` keeps what came of it, `host` answers what a scenario has to know, `attempt`
//! makes and records one call. On these stand the scenarios, the loads, `memory`, `stack` and the random calls; this
//! file is the command line.

#![expect(clippy::cast_precision_loss, reason = "benchmark figures stay far below 2^52 ns")]

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("forker makes system calls in assembler, which it has not for this machine");

mod attempt;
mod call;
mod handlers;
mod held;
mod host;
mod journal;
mod load;
mod memory;
mod random;
mod report;
mod scenarios;
mod shortage;
mod stack;
mod standstill;
mod sys;
mod work;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand};

use crate::{
    report::{Done, print},
    scenarios::{SCENARIOS, Scenario},
};

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

/// What stands for the name of a scenario where there is none.
const NO_SCENARIO: &str = "-";

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
    /// Fork once with memory of one kind, and print what parent and child say of theirs.
    Memory {
        #[arg(long)]
        kind: memory::Kind,
        /// How much, in MiB; of mappings, how many.
        #[arg(long)]
        amount: usize,
    },
    /// Fork once; the child works, and what it used is printed as `wait4` tells it.
    Usage {
        /// How long it works, on a CPU.
        #[arg(long)]
        cpu_ms: u64,
        /// Memory that it touches.
        #[arg(long)]
        mib: usize,
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
        trouble: held::Trouble,
        /// How many forks; more than one only beside `hogs`
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Make one fork that works for long, and print how long, by the caller's CPU time.
    Work {
        #[arg(value_enum)]
        work: work::Work,
    },
    /// Fork once by libc with handlers that take their time, and print how long each took by its own clock.
    Handlers {
        /// Threads that allocate meanwhile.
        #[arg(default_value_t = 0)]
        threads: usize,
        /// Milliseconds between registering them and the fork.
        #[arg(default_value_t = 0)]
        pause_ms: u64,
    },
    /// Fork once from three functions that call each other, and print their names.
    Stack {
        /// How long to stay after that.
        ms: u64,
    },
    /// Do nothing: what an executed child is where there is no /bin/true.
    #[command(hide = true)]
    True,
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
            sys::memory::touch(touch_mib << 20).map_err(errno).context("touch memory")?;
            let (succeeded, failed) = match threads {
                Some(threads) => load::storms(count, threads),
                None => load::storm(count, load::fork_and_exit),
            };
            Done::counted(succeeded, failed).print()?;
        }
        Some(Command::Memory { kind, amount }) => {
            memory::fork_with(kind, amount).map_err(errno).context("fork with memory")?;
        }
        Some(Command::Usage { cpu_ms, mib }) => {
            memory::use_up(cpu_ms, mib).map_err(errno).context("fork and use memory")?;
        }
        Some(Command::HoldVfork { ms, count }) => {
            journal::set_scenario(NO_SCENARIO);
            load::hold_vforks(count, ms);
            let mut done = Done::default();
            done.print_attempts()?;
            done.print()?;
        }
        Some(Command::Random { seed, count }) => {
            journal::set_scenario(NO_SCENARIO);
            let made = random::run(seed, count);
            sys::reap_all();
            let mut done = Done::default();
            done.print_attempts()?;
            if let Err(why) = made {
                done.skip("random", why);
            }
            done.print()?;
        }
        Some(Command::Wait { trouble, count }) => match standstill::run(trouble, count) {
            Ok(truths) => truths.iter().try_for_each(print)?,
            Err(why) => {
                let mut done = Done::default();
                done.skip("wait", why);
                done.print()?;
            }
        },
        Some(Command::Work { work }) => match work::run(work) {
            Ok(truth) => truth.iter().try_for_each(print)?,
            Err(why) => {
                let mut done = Done::default();
                done.skip("work", why);
                done.print()?;
            }
        },
        Some(Command::Handlers { threads, pause_ms }) => match handlers::run(threads, pause_ms) {
            Ok(truth) => print(&truth)?,
            Err(why) => {
                let mut done = Done::default();
                done.skip("handlers", why);
                done.print()?;
            }
        },
        Some(Command::Stack { ms }) => print(&stack::run(Duration::from_millis(ms)))?,
        Some(Command::True) => {}
    }
    let stopped = sys::stop_signal().and_then(|signal| u8::try_from(128 + signal).ok());
    Ok(stopped.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// The rows of the table that were asked for.
fn choose(names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().filter(|row| !row.heavy).collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(SCENARIOS.iter().filter(|row| name == "all" || name == row.name));
        if chosen.len() == before {
            return Err(anyhow!("no scenario is called {name:?}; `forker list` has them all"));
        }
    }
    Ok(chosen)
}

/// Runs scenarios until done or asked to stop.
fn run(chosen: &[&'static Scenario], repeat: usize) -> anyhow::Result<()> {
    let mut done = Done::default();
    for row in std::iter::repeat_n(chosen, repeat).flatten() {
        if sys::stop_signal().is_some() {
            break;
        }
        journal::set_scenario(row.name);
        let outcome = (row.run)();
        sys::reap_all();
        done.print_attempts()?;
        if let Err(why) = outcome {
            done.skip(row.name, why);
        }
    }
    done.print()
}

fn list() -> anyhow::Result<()> {
    for row in &SCENARIOS {
        let heavy = if row.heavy { " (heavy)" } else { "" };
        writeln!(io::stdout(), "{:26} {}{heavy}", row.name, row.description)
            .context("print the scenarios")?;
    }
    Ok(())
}
