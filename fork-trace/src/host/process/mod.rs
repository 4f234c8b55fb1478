//! Processes, as `/proc` shows them a moment later.

pub mod cgroup;
pub mod container;
pub mod forking;
pub mod id_holder;
pub mod identity;
pub mod ids;
pub mod mappings;
pub mod stat;

use std::{fs, sync::LazyLock};

use crate::{event::bytes::text, host::namespaces};

/// The program that this process runs.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// The name of the thread now that `/proc` shows as `tid`, as [`text`] tells it; `None` if it is gone.
#[must_use]
pub fn task_name(tid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{tid}/comm")).ok()?;
    Some(text(name.strip_suffix(b"\n").unwrap_or(&name)))
}

/// Whether `/proc` shows tasks by their ids of the initial pid namespace, which the kernel side gives:
/// elsewhere such an id may be a stranger's.
#[must_use]
pub fn shows_initial_ids() -> bool {
    // This process stays in its pid namespace.
    static SHOWS: LazyLock<bool> = LazyLock::new(|| namespaces::is_initial("pid"));
    *SHOWS
}

/// The name of the task that the kernel side calls `tid`; `None` where it cannot be looked up.
#[must_use]
pub fn initial_task_name(tid: u32) -> Option<String> {
    shows_initial_ids().then(|| task_name(tid))?
}
