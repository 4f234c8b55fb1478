//! What forker has to know of the host: its own rights there, its number in /proc, the kernel's
//! release, and the control groups.

pub(crate) mod cgroup;

use std::{ffi::c_int, fs};

use crate::{
    call::{Outcome, Skip},
    sys,
};

/// `CAP_SYS_ADMIN`'s bit in the capability word.
const SYS_ADMIN: u64 = 1 << 21;

/// Whether this process may make namespaces.
fn is_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let word = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let word = word.and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
    word.is_some_and(|word| word & SYS_ADMIN != 0)
}

/// Skips what needs `CAP_SYS_ADMIN` where it is missing.
pub(crate) fn require_admin() -> Outcome {
    if is_admin() { Ok(()) } else { Err(Skip("needs CAP_SYS_ADMIN".to_owned())) }
}

/// Skips what needs to change its uid where that is not allowed.
pub(crate) fn require_root() -> Outcome {
    if sys::is_root() { Ok(()) } else { Err(Skip("needs root, to become another user".to_owned())) }
}

/// This process's id in the pid namespace that /proc was mounted in; 0 if unknown.
pub(crate) fn tid_in_proc() -> c_int {
    let link = fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(0)
}

/// Major and minor number of the kernel's release.
pub(crate) fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
