//! The clock of every record.

use nix::time::{ClockId, clock_gettime};
use std::io::{self};

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of every record.
///
/// # Errors
/// The clock cannot be read.
pub fn monotonic_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(ns).map_err(io::Error::other)
}
