//! Processes, as `/proc` shows them a moment later.

pub mod cgroup;
pub mod container;
pub mod stat;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::host::process::stat::Stat;

/// The program that this process runs.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Whether there is a process `pid` now.
#[must_use]
pub fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

/// The processes that descend from `pids` just now; `pids` themselves are not among them.
#[must_use]
pub fn descendants(pids: &[u32]) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> =
        all.filter_map(|pid| Some((pid, Stat::read(pid)?.ppid))).collect();
    let mut found = BTreeSet::new();
    let mut new: Vec<u32> = pids.to_vec();
    while let Some(parent) = new.pop() {
        let children = parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid);
        new.extend(children.filter(|child| found.insert(*child)));
    }
    found
}
