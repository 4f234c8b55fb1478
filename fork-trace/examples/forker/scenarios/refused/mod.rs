//! Scenarios in which the kernel refuses a fork. Each says with which errno and why, and whatever
//! it sets up ends with the process that set it up.

pub(super) mod ended;
pub(super) mod group;
mod held;
pub(super) mod invalid;
pub(super) mod limit;
pub(super) mod machine;
pub(super) mod namespace;
pub(super) mod permission;
pub(super) mod seccomp;
pub(super) mod sharing;
pub(super) mod tracer;
mod why;
