//! `bench`: what tracing costs, and what the tool itself costs for each attempt.
//!
//! Nothing is judged here. Times drift with the host, so they are medians of many runs in turn; counts of
//! instructions do not, and are printed where valgrind is installed.

mod consumer;
mod host;
mod median;
mod programs;

use anyhow::Result;
use clap::ValueEnum;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What tracing costs a program that forks, and one that does not. This needs root
    Host,
    /// How often each program of the kernel side runs for a fork, and for how long. This needs root
    Programs,
    /// What an attempt costs from the ring to a file, and from a file to another
    Consumer,
}

/// Measures one part, or all of them.
pub(crate) fn bench(part: Option<Part>, rounds: u32) -> Result<()> {
    let wanted = |this| part.is_none_or(|part| part == this);
    if wanted(Part::Consumer) {
        consumer::bench(rounds)?;
    }
    if wanted(Part::Programs) {
        programs::bench()?;
    }
    if wanted(Part::Host) {
        host::bench(rounds)?;
    }
    Ok(())
}
