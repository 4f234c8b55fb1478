//! Facts about this host. The only reader of `/sys` and of `/proc` outside `enrich`.

use std::{collections::BTreeSet, fs, io};

use anyhow::{Context as _, Result};
use fork_trace_common::{
    settings::{ABSENT, OFFSETS, TYPED_HELPER},
    site::{COPY_PROCESS, FUNCTIONS},
};
use nix::{
    sys::utsname,
    time::{ClockId, clock_gettime},
};

use crate::{
    advice::Advice,
    btf::Btf,
    fork::HostInfo,
    plan::Tracepoint,
    sites::{self, InnerMarks, Symbols},
};

/// The kernel's array of per-CPU offsets; a kernel without `CONFIG_KALLSYMS_ALL` does not show it.
/// KERNEL: `arch/x86/kernel/setup_percpu.c`.
pub const PER_CPU_OFFSETS: &str = "__per_cpu_offset";

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the plan needs to know: no I/O behind it, so that tests can make one up.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Tracepoints to which BTF programs can attach.
    pub tracepoints: BTreeSet<Tracepoint>,
    /// Kernel release, for messages.
    pub release: String,
    /// Where the inner marks are, once that was learned.
    pub inner: InnerMarks,
}

/// The host as seen at start.
pub struct Host {
    /// Name, kernel, CPUs.
    pub info: HostInfo,
    /// For the plan.
    pub facts: Facts,
    /// Offsets to inject: global of the object and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// Whether fields of the calling task can be loaded directly.
    pub typed: bool,
    /// How many CPUs there may be, and where the kernel keeps each one's own memory: the second is
    /// 0 until it was learned, and where it is not known.
    pub cpus: (u32, u64),
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
        let inner = sites::nothing("inner tracepoints are not used");
        let facts = Facts { tracepoints, release: info.kernel.clone(), inner };
        let typed = btf.has_function(TYPED_HELPER);
        let cpus = (possible_cpus()?, 0);
        Ok(Self { info, facts, offsets: offsets(&btf)?, typed, cpus })
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

/// Where the functions lie whose allocations are marks, and [`PER_CPU_OFFSETS`].
///
/// # Errors
/// Why not: kallsyms cannot be read, or hides addresses.
pub fn symbols() -> Result<Symbols, String> {
    let text =
        fs::read_to_string("/proc/kallsyms").map_err(|error| format!("kallsyms: {error}"))?;
    parse_symbols(&text)
}

fn parse_symbols(kallsyms: &str) -> Result<Symbols, String> {
    let wanted = FUNCTIONS.iter().map(|(name, _)| name).chain(COPY_PROCESS);
    let wanted = wanted.chain(&[PER_CPU_OFFSETS]);
    let wanted: Vec<&'static str> = wanted.copied().collect();
    let mut starts = Vec::new();
    let mut found = Vec::new();
    for line in kallsyms.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else { continue };
        starts.push(address);
        // A module's symbol has a fourth word.
        if let Some(name) = wanted.iter().find(|wanted| **wanted == name)
            && words.next().is_none()
        {
            found.push((*name, address));
        }
    }
    if starts.iter().all(|address| *address == 0) {
        return Err(
            "kernel addresses are hidden: set kernel.kptr_restrict to 1 or 0, and run with \
                    CAP_SYSLOG"
                .to_owned(),
        );
    }
    starts.sort_unstable();
    let mut symbols = Symbols::new();
    for (name, start) in found {
        let after = starts.partition_point(|other| *other <= start);
        let end = starts.get(after).copied().unwrap_or(start);
        // Two functions of one name: neither is certain.
        if symbols.insert(name, start..end).is_some() {
            symbols.insert(name, 0..0);
        }
    }
    Ok(symbols)
}

/// How many CPUs there may be: one more than the last in `/sys/devices/system/cpu/possible`.
fn possible_cpus() -> Result<u32> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let text = fs::read_to_string(POSSIBLE).with_context(|| format!("read {POSSIBLE}"))?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<u32>().ok());
    Ok(last.with_context(|| format!("{POSSIBLE} says {text:?}"))? + 1)
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
    fn symbols_end_where_the_next_begins() {
        let text = "ffff1000 T copy_process\nffff0f00 t x\nffff1800 t y\nffff2000 T dup_fd\n\
                    ffff3000 t dup_fd [btrfs]\nffff4000 T alloc_pid\nffff5000 t alloc_pid\n";
        let symbols = parse_symbols(text).unwrap();
        assert_eq!(symbols["copy_process"], 0xffff_1000..0xffff_1800);
        assert_eq!(symbols["dup_fd"], 0xffff_2000..0xffff_3000);
        assert!(symbols["alloc_pid"].is_empty(), "two of one name");
        let hidden = parse_symbols("0000000000000000 T copy_process\n").unwrap_err();
        assert!(hidden.contains("kptr_restrict"), "{hidden}");
    }

    #[test]
    fn this_host_can_be_read() {
        let host = Host::read().unwrap();
        assert_eq!(host.offsets.len(), OFFSETS.len());
        assert!(host.facts.tracepoints.contains(&Tracepoint::TaskNewtask));
        assert!(!host.info.boot_id.is_empty());
        assert!(kernel_forks().unwrap() > 0);
        assert!(monotonic_ns().unwrap() > 0);
    }
}
