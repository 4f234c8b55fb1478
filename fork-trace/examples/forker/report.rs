//! The output: a line for each attempt, and a last line of totals.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::{call::Skip, journal, sys};

/// The last line; fields without a value are left out.
#[derive(Default, Serialize)]
pub(crate) struct Done {
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

impl Done {
    /// The totals of attempts that are only counted.
    pub(crate) fn counted(succeeded: usize, failed: usize) -> Self {
        Self { attempts: succeeded + failed, succeeded, failed, ..Self::default() }
    }

    /// Prints and counts what the journal has.
    pub(crate) fn print_attempts(&mut self) -> anyhow::Result<()> {
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

    /// Notes a scenario that could not be done, once. One that was stopped could have been.
    pub(crate) fn skip(&mut self, scenario: &'static str, Skip(why): Skip) {
        let known = self.skipped.iter().any(|skipped| skipped.scenario == scenario);
        if !known && sys::stop_signal().is_none() {
            self.skipped.push(Skipped { scenario, why });
        }
    }

    /// Prints the totals.
    pub(crate) fn print(self) -> anyhow::Result<()> {
        print(&Self { r#type: "done", stopped_by: sys::stop_signal(), ..self })
    }
}

/// Prints one line of JSON.
pub(crate) fn print(line: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(line).context("write a line as JSON")?;
    writeln!(io::stdout(), "{text}").context("print a line")
}
