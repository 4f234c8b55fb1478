//! `fork-trace stuck`: the tasks of the whole host that stand still inside a fork, without tracing.
//!
//! A fork takes microseconds, and under load some may be seen half way: only a task that did not run
//! between two looks is stuck.

use std::{fmt::Write as _, thread::sleep, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    error::UserError,
    event::{Event, stuck::Stuck},
    host::{clock, process::forking},
    live::stuck::standing,
    output::{outputs::print, text::stuck::words},
};

/// Between the two looks.
const BETWEEN: Duration = Duration::from_millis(200);

/// Prints what stands still; returns the exit status: 1 if there is something, else 0.
///
/// # Errors
/// [`UserError::CannotLook`] where the system calls of other users' tasks are not shown;
/// [`UserError::Output`].
pub fn stuck(json: bool) -> Result<u8> {
    let began_ns = clock::monotonic_ns().context("read the monotonic clock")?;
    let first =
        forking::all().map_err(|error| UserError::CannotLook { cause: error.to_string() })?;
    let mut found: Vec<Stuck> = Vec::new();
    if !first.is_empty() {
        sleep(BETWEEN);
        let now_ns = clock::monotonic_ns().context("read the monotonic clock")?;
        for one in &first {
            if one.stands_still() {
                found.push(standing(one, now_ns - began_ns, now_ns));
            }
        }
    }
    let mut text = String::new();
    for stuck in &found {
        if json {
            let line = serde_json::to_string(&Event::Stuck(stuck.clone()));
            text.push_str(&line.context("write a line as JSON")?);
            text.push('\n');
        } else {
            // Writing to a string does not fail.
            _ = writeln!(text, "{}", words(stuck));
        }
    }
    if found.is_empty() && !json {
        text.push_str("no task stands still inside a fork\n");
    }
    print(&text)?;
    Ok(u8::from(!found.is_empty()))
}
