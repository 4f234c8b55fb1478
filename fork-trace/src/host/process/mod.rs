//! Processes, as `/proc` shows them a moment later.

pub mod cgroup;
pub mod container;
pub mod id_holder;
pub mod identity;
pub mod ids;
pub mod mappings;
pub mod stat;

/// The program that this process runs.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
