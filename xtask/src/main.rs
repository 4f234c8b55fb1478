//! `cargo xtask TASK`: every development task of fork-trace that is more than one cargo command.
//!
//! This file knows the tasks' names and arguments. The rooms below it: `command` starts other
//! programs, `build` makes what is built, `check` and `vm` try it, `run` and `bench` use it,
//! `dist` packs it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks report to people")]

mod bench;
mod build;
mod check;
mod command;
mod deploy;
mod dist;
mod fuzz;
mod rules;
mod run;
mod vm;

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    build::{ebpf, setup},
    check::{deny, docs, test},
};

/// fork-trace's development tasks
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    /// The task to run.
    #[command(subcommand)]
    task: Task,
}

/// The tasks.
#[derive(Subcommand)]
enum Task {
    /// Fetch what the eBPF build lacks on this machine: bpf-linker and rust-src
    Setup,
    /// Compile the kernel side and write it to fork-trace/bpf/
    BuildEbpf {
        /// Write nothing; fail if the committed object is not what the source gives
        #[arg(long)]
        check: bool,
    },
    /// Build fork-trace and run it as root with these arguments, unchanged
    Run {
        /// fork-trace's own arguments
        #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Check the rules of the house: who imports whom, and what is named where
    Rules {
        /// The workspace to check instead of this one
        #[arg(value_name = "FOLDER")]
        root: Option<PathBuf>,
    },
    /// Check formatting, lints, the rules of the house, docs, the eBPF object, and run every test
    Test,
    /// Write docs/STAGES.md and docs/FAILURES.md from the tables
    Docs {
        /// Write nothing; fail if a file is not what the tables give
        #[arg(long)]
        check: bool,
    },
    /// Check licenses, sources and known weaknesses of dependencies with cargo-deny
    Deny,
    /// Try what deploy/ holds with the real engines: Prometheus, ClickHouse, and Kubernetes' schemas
    Deploy {
        /// Only this part
        part: Option<deploy::Part>,
        /// Also time ClickHouse's queries on so many rows, made of a recording
        #[arg(long)]
        rows: Option<u64>,
    },
    /// Fuzz every parser for some minutes each: names, recordings, records, the kernel's symbols and
    /// types, the command line
    Fuzz {
        /// Minutes of CPU time for each target
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// Fewer minutes for a target that has had so many cases
        #[arg(long)]
        cases: Option<u64>,
        /// The first seed; each run of a target takes the next
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only targets whose name contains this
        target: Option<String>,
    },
    /// Measure what tracing costs other programs, and what an attempt costs the tool itself
    Bench {
        /// Only this part
        part: Option<bench::Part>,
        /// Runs of each kind, in turn
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Make the artefacts of a release in target/dist/: a static program, packages, checksums
    Dist {
        /// Also install Debian's package in a bare root, trace with it and remove it
        #[arg(long)]
        test: bool,
    },
    /// Run the live tests on other kernels, in virtual machines, and compare each kernel's plan
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match task() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line asks for.
fn task() -> Result<()> {
    // `run` is looked for before clap, which would swallow the `--` before a command to trace.
    let mut words = env::args_os().skip(1);
    if words.next().is_some_and(|task| task == "run") {
        return run::run(words.collect());
    }
    match Cli::parse().task {
        Task::Setup => setup::setup()?,
        Task::BuildEbpf { check } => println!("{}", ebpf::build(check)?),
        Task::Run { args } => run::run(args)?,
        Task::Rules { root } => println!("{}", rules::rules(&root.unwrap_or_else(command::root))?),
        Task::Test => test::test()?,
        Task::Docs { check } => println!("{}", docs::docs(check)?),
        Task::Deny => println!("{}", deny::deny()?),
        Task::Deploy { part, rows } => println!("{}", deploy::deploy(part, rows)?),
        Task::Fuzz { minutes, cases, seed, target } => {
            let enough = fuzz::Enough { minutes, cases };
            fuzz::fuzz(enough, seed, target.as_deref().unwrap_or_default())?;
        }
        Task::Bench { part, rounds } => bench::bench(part, rounds)?,
        Task::Dist { test } => dist::dist(test)?,
        Task::Vm(options) => vm::vm(&options)?,
    }
    Ok(())
}
