//! Processes, as `/proc` shows them a moment later.

pub mod cgroup;
pub mod container;
pub mod forking;
pub mod id_holder;
pub mod identity;
pub mod ids;
pub mod mappings;
pub mod stat;

use std::fs;

/// The program that this process runs.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// The name of the thread `tid` now; `None` if it is gone.
#[must_use]
pub fn task_name(tid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}
