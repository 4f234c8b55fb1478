//! What this process may do: its capabilities, and the kernel's lockdown.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use std::{
    collections::HashSet,
    fs::{self},
};

use crate::error::UserError;

/// Whether this process may load and attach, by its effective capabilities.
///
/// # Errors
/// [`UserError::NotPermitted`].
pub fn check_capabilities() -> Result<()> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_PERFMON: u64 = 1 << 38;
    const CAP_BPF: u64 = 1 << 39;
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .context("find CapEff in /proc/self/status")?;
    let has = |capability| effective & capability != 0;
    if has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON)) {
        return Ok(());
    }
    let has = match (has(CAP_BPF), has(CAP_PERFMON)) {
        (true, _) => "only CAP_BPF",
        (_, true) => "only CAP_PERFMON",
        _ => "none of them",
    };
    Err(UserError::NotPermitted { has: has.to_owned() }.into())
}

/// Content of `/sys/kernel/security/lockdown`, the active mode in brackets; `None` where there is
/// no lockdown.
#[must_use]
pub fn lockdown() -> Option<String> {
    fs::read_to_string("/sys/kernel/security/lockdown").ok().map(|mode| mode.trim().to_owned())
}

/// Gives up what is no longer needed: reading maps, `/proc/PID/exe` of others and passing signals
/// on to the command remain.
///
/// # Errors
/// The capabilities cannot be read or set.
pub fn drop_capabilities() -> Result<()> {
    const KEPT: [Capability; 5] = [
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_KILL,
    ];
    let permitted = caps::read(None, CapSet::Permitted).context("read own capabilities")?;
    let mut kept: HashSet<_> =
        KEPT.into_iter().filter(|capability| permitted.contains(capability)).collect();
    if !kept.contains(&Capability::CAP_BPF) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context("drop capabilities")?;
    }
    caps::clear(None, CapSet::Inheritable).context("drop inheritable capabilities")
}
