//! Numbers that the kernel keeps of itself: tasks made since boot, CPUs there may be.

use anyhow::{Context as _, Result};
use std::fs::{self};

/// How many CPUs there may be: one more than the last in `/sys/devices/system/cpu/possible`.
///
/// # Errors
/// The file cannot be read, or does not end in a number.
pub fn possible_cpus() -> Result<u32> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let text = fs::read_to_string(POSSIBLE).with_context(|| format!("read {POSSIBLE}"))?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<u32>().ok());
    Ok(last.with_context(|| format!("{POSSIBLE} says {text:?}"))? + 1)
}

/// Tasks made since boot: `processes` in `/proc/stat`.
///
/// KERNEL: fs/proc/stat.c `show_stat`: `total_forks`, counted in kernel/fork.c `copy_process`.
///
/// # Errors
/// The file cannot be read, or has no such line.
pub fn kernel_forks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let count = stat.lines().find_map(|line| line.strip_prefix("processes "));
    count.and_then(|count| count.trim().parse().ok()).context("find `processes` in /proc/stat")
}
