//! `bench`: what tracing costs, and what the tool itself costs for each attempt.
//!
//! Nothing is judged here. Times drift with the host, so they are medians of many runs in turn; counts of
//! instructions do not, and are printed where valgrind is installed.

mod consumer;
mod host;
mod median;

use anyhow::Result;
use clap::ValueEnum;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What tracing costs a program that forks, and one that does not. This needs root
    Host,
    /// What an attempt costs from the ring to a file, and from a file to another
    Consumer,
}

/// Measures one part, or both.
pub(crate) fn bench(part: Option<Part>, rounds: u32) -> Result<()> {
    if part != Some(Part::Host) {
        consumer::bench(rounds)?;
    }
    if part != Some(Part::Consumer) {
        host::bench(rounds)?;
    }
    Ok(())
}
