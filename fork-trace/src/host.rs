//! Facts about this host. The only reader of `/sys` and of `/proc` outside `enrich`.

use std::{collections::BTreeSet, fs, io};

use anyhow::{Context as _, Result};
use fork_trace_common::settings::{ABSENT, OFFSETS};
use nix::{
    sys::utsname,
    time::{ClockId, clock_gettime},
};

use crate::{advice::Advice, btf::Btf, fork::HostInfo, plan::Tracepoint};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the plan needs to know: no I/O behind it, so that tests can make one up.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Tracepoints to which BTF programs can attach.
    pub tracepoints: BTreeSet<Tracepoint>,
    /// Kernel release, for messages.
    pub release: String,
}

/// The host as seen at start.
pub struct Host {
    /// Name, kernel, CPUs.
    pub info: HostInfo,
    /// For the plan.
    pub facts: Facts,
    /// Offsets to inject: global of the object and value.
    pub offsets: Vec<(&'static str, u32)>,
}

impl Host {
    /// Reads everything.
    ///
    /// # Errors
    /// [`Advice::NoBtf`], or [`Advice::KernelLacks`] where a needed field is not there.
    pub fn read() -> Result<Self> {
        let info = host_info()?;
        let btf = read_btf()?;
        let tracepoints =
            Tracepoint::ALL.iter().copied().filter(|at| btf.has_tracepoint(at.name())).collect();
        let facts = Facts { tracepoints, release: info.kernel.clone() };
        Ok(Self { info, facts, offsets: offsets(&btf)? })
    }
}

fn read_btf() -> Result<Btf> {
    let data = fs::read(BTF).map_err(|error| Advice::NoBtf { cause: format!("{BTF}: {error}") })?;
    Btf::parse(data).with_context(|| format!("read the kernel's types in {BTF}"))
}

fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u32)>> {
    let resolve = |offset: &fork_trace_common::settings::Offset| {
        let found = btf.offset(offset.of, offset.field)?;
        if found.is_none() && offset.required {
            let what = format!("the field {}.{}", offset.of, offset.field);
            return Err(Advice::KernelLacks { what }.into());
        }
        Ok((offset.global, found.unwrap_or(ABSENT)))
    };
    OFFSETS.iter().map(resolve).collect()
}

fn host_info() -> Result<HostInfo> {
    let uname = utsname::uname().context("ask for the system's name (uname)")?;
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Ok(HostInfo {
        name: text(uname.nodename()),
        kernel: text(uname.release()),
        arch: text(uname.machine()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        boot_id: boot_id.context("read /proc/sys/kernel/random/boot_id")?.trim().to_owned(),
    })
}

/// Whether this process may load and attach, by its effective capabilities.
///
/// # Errors
/// [`Advice::NotPermitted`].
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
    Err(Advice::NotPermitted { has: has.to_owned() }.into())
}

/// Content of `/sys/kernel/security/lockdown`, the active mode in brackets; `None` where there is
/// no lockdown.
#[must_use]
pub fn lockdown() -> Option<String> {
    fs::read_to_string("/sys/kernel/security/lockdown").ok().map(|mode| mode.trim().to_owned())
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

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of every record.
///
/// # Errors
/// The clock cannot be read.
pub fn monotonic_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(ns).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_can_be_read() {
        let host = Host::read().unwrap();
        assert_eq!(host.offsets.len(), OFFSETS.len());
        assert_eq!(host.facts.tracepoints.len(), Tracepoint::ALL.len());
        assert!(!host.info.boot_id.is_empty());
        assert!(kernel_forks().unwrap() > 0);
        assert!(monotonic_ns().unwrap() > 0);
    }
}
