//! What this process may do: its capabilities, and the kernel's lockdown.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use std::{
    collections::HashSet,
    fs::{self},
};

use nix::{
    sys::resource::{RLIM_INFINITY, Resource, getrlimit},
    unistd::Uid,
};

use crate::{error::UserError, host::namespaces};

/// Whether this process may load and attach, by its effective capabilities.
///
/// # Errors
/// [`UserError::NotPermitted`].
pub fn check_capabilities() -> Result<()> {
    let effective = caps::read(None, CapSet::Effective).context("read own capabilities")?;
    let has = |capability| effective.contains(&capability);
    let (bpf, perfmon) = (has(Capability::CAP_BPF), has(Capability::CAP_PERFMON));
    if has(Capability::CAP_SYS_ADMIN) || (bpf && perfmon) {
        return Ok(());
    }
    let has = match (bpf, perfmon) {
        (true, _) => "only CAP_BPF",
        (_, true) => "only CAP_PERFMON",
        _ => "none of them",
    };
    let in_container = Uid::effective().is_root() && !namespaces::is_initial("pid");
    Err(UserError::NotPermitted { has: has.to_owned(), in_container }.into())
}

/// Content of `/sys/kernel/security/lockdown`, the active mode in brackets; `None` where there is
/// no lockdown, or where that cannot be seen.
#[must_use]
pub fn lockdown() -> Option<String> {
    fs::read_to_string("/sys/kernel/security/lockdown").ok().map(|mode| mode.trim().to_owned())
}

/// How much memory this process may lock; `None` where it may lock all, or raise the limit.
#[must_use]
pub fn locked_bytes() -> Option<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let may_raise = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE);
    (hard != RLIM_INFINITY && !may_raise.unwrap_or(false)).then_some(hard)
}

/// Whether it can be seen what protects this kernel: a container seldom has that file system.
///
/// KERNEL: security/inode.c makes the file `lsm` wherever securityfs is mounted.
#[must_use]
pub fn shows_lockdown() -> bool {
    fs::exists("/sys/kernel/security/lsm").unwrap_or(false)
}

/// Whether this process may attach uprobes.
///
/// KERNEL: kernel/events/core.c `perf_uprobe_event_init`: `CAP_SYS_ADMIN` before 5.8 and from 6.18 on, `CAP_PERFMON`
/// between.
#[must_use]
pub fn has_admin() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false)
}

/// Gives up what is no longer needed: reading maps, `/proc/PID/exe` of others and passing signals
/// on to the command remain. With `probes` uprobes can still be attached.
///
/// # Errors
/// The capabilities cannot be read or set.
pub fn drop_capabilities(probes: bool) -> Result<()> {
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
    let admin = Capability::CAP_SYS_ADMIN;
    if !kept.contains(&Capability::CAP_BPF) || probes && permitted.contains(&admin) {
        kept.insert(admin);
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context("drop capabilities")?;
    }
    caps::clear(None, CapSet::Inheritable).context("drop inheritable capabilities")
}
