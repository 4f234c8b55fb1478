//! Feeds recorded bytes of the ring through the chain that a live trace uses, from decoding to the
//! output, without root and without the kernel: so the cost of one fork in user space can be measured,
//! profiled, and counted by instructions.
//!
//! - `consumer feed RECORDING FORKS -o FILE` feeds the recording again and again until so many attempts
//!   went through, each round with ids and times of its own, and prints one line of JSON: the attempts,
//!   the CPU time of each, the time that passed, and the memory that was resident at most.
//! - `consumer record RECORDING -- CMD ...` makes a recording: what the kernel side wrote while CMD ran, of
//!   the process that forked most. It needs root.
#![expect(clippy::print_stdout, reason = "it answers on standard output")]

mod feed;
mod record;
mod recording;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;
use clap::Parser;

/// Feeds recorded bytes of the ring through the chain of a live trace
#[derive(Parser)]
enum Task {
    /// Feed a recording, and say what each attempt cost
    Feed {
        /// Made by `record`
        recording: PathBuf,
        /// How many attempts to feed
        forks: u64,
        /// Where to write: the ending tells the format
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Record what the kernel side writes of a command's forks
    Record {
        /// The file to write
        recording: PathBuf,
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        cmd: Vec<OsString>,
    },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Feed { recording, forks, output } => {
            println!("{}", feed::feed(&recording, forks, output)?);
            Ok(())
        }
        Task::Record { recording, cmd } => record::record(&recording, &cmd),
    }
}
