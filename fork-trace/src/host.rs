//! Facts about this host. The only reader of `/sys` and of `/proc` outside `enrich`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
};

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
    cause::Features,
    fork::HostInfo,
    functions::{self, Candidates, Counts, Probes},
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
    /// What came of probing functions, once that was tried.
    pub probes: Probes,
    /// Why no function at all can be probed.
    pub no_functions: Option<String>,
}

/// The host as seen at start.
pub struct Host {
    /// Name, kernel, CPUs.
    pub info: HostInfo,
    /// For the plan.
    pub facts: Facts,
    /// Offsets to inject: global of the object and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// The kernel's types as far as programs attach to them, as data.
    pub attachable: Vec<u8>,
    /// Whether fields of the calling task can be loaded directly.
    pub typed: bool,
    /// How each function of the table may be probed.
    pub candidates: Candidates,
    /// Where the functions lie whose allocations are marks, or why that is not known.
    pub symbols: Result<Symbols, String>,
    /// Which flags this kernel refuses, once that was learned.
    pub features: Features,
    /// How many CPUs there may be, and where the kernel keeps each one's own memory: the second is
    /// 0 where it is not known.
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
        let facts = Facts {
            tracepoints,
            release: info.kernel.clone(),
            inner: sites::nothing("inner tracepoints are not used"),
            ..Facts::default()
        };
        let typed = btf.has_function(TYPED_HELPER);
        let features = Features::default();
        let (symbols, counts) = read_symbols();
        let place = symbols.as_ref().ok().and_then(|symbols| symbols.get(PER_CPU_OFFSETS));
        let cpus = (possible_cpus()?, place.map_or(0, |place| place.start));
        let candidates = functions::candidates(&btf, counts.as_ref())?;
        Ok(Self {
            info,
            facts,
            offsets: offsets(&btf)?,
            attachable: btf.attachable(),
            typed,
            candidates,
            symbols,
            features,
            cpus,
        })
    }

    /// Whether this kernel has the field whose offset global `name` holds.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.offsets.iter().any(|(global, offset)| *global == name && *offset != ABSENT)
    }
}

fn read_btf() -> Result<Btf> {
    let data = fs::read(BTF).map_err(|error| Advice::NoBtf { cause: format!("{BTF}: {error}") })?;
    let names: HashSet<&str> = functions::names().chain([TYPED_HELPER]).collect();
    Btf::parse(data, |name| names.contains(name))
        .with_context(|| format!("read the kernel's types in {BTF}"))
}

fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u32)>> {
    let resolve = |offset: &fork_trace_common::settings::Offset| {
        let found = match offset.of.strip_prefix("enum ") {
            Some(name) => btf.value(name, offset.field)?,
            None => btf.offset(offset.of, offset.field)?,
        };
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

/// Where the functions lie whose allocations are marks, and [`PER_CPU_OFFSETS`], or why that is not known; and how many
/// symbols there are of each name in the function table, if they can be read.
fn read_symbols() -> (Result<Symbols, String>, Option<Counts>) {
    match fs::read_to_string("/proc/kallsyms") {
        Ok(text) => {
            let (symbols, counts) = parse_symbols(&text);
            (symbols, Some(counts))
        }
        Err(error) => (Err(format!("kallsyms: {error}")), None),
    }
}

fn parse_symbols(kallsyms: &str) -> (Result<Symbols, String>, Counts) {
    let places = FUNCTIONS.iter().map(|(name, _)| name).chain(COPY_PROCESS);
    let places: HashSet<&'static str> = places.chain(&[PER_CPU_OFFSETS]).copied().collect();
    let names = places.iter().copied().chain(functions::names());
    // Of each name the first address, and how many there are.
    let mut found: HashMap<&'static str, (u64, u64, usize)> =
        names.map(|name| (name, (0, 0, 0))).collect();
    // Of each first letter, how long names are: most of the many are told from ours by that.
    let mut lengths = [0_u64; 256];
    for name in found.keys() {
        if let Some(lengths) = name.bytes().next().and_then(|first| lengths.get_mut(first as usize))
        {
            *lengths |= 1 << (name.len() % 64);
        }
    }
    let mut lines = kallsyms.lines();
    while let Some(line) = lines.next() {
        // A module's symbol has its name behind a tab, and so is not found.
        let name = line.rsplit_once(' ').map_or("", |(_, name)| name);
        let lengths = name.bytes().next().and_then(|first| lengths.get(first as usize));
        if lengths.is_none_or(|lengths| lengths >> (name.len() % 64) & 1 == 0) {
            continue;
        }
        if let Some((start, end, count)) = found.get_mut(name) {
            *count += 1;
            *start = hex(line.split(' ').next().unwrap_or_default());
            // The kernel's own symbols are in the order of their addresses; several may be one's.
            let later = kallsyms_after(&lines, *start);
            *end = later.unwrap_or(*start);
        }
    }
    let counts = functions::names()
        .map(|name| (name, found.get(name).map_or(0, |(_, _, count)| *count)))
        .collect();
    if found.values().all(|(start, ..)| *start == 0) {
        let hidden = "kernel addresses are hidden: set kernel.kptr_restrict to 1 or 0, and run \
                      with CAP_SYSLOG";
        return (Err(hidden.to_owned()), counts);
    }
    let place = |name: &&'static str| {
        let (start, end, count) = found.get(name)?;
        // Two functions of one name: neither is certain.
        Some((*name, if *count == 1 { *start..*end } else { 0..0 })).filter(|_| *count > 0)
    };
    (Ok(places.iter().filter_map(place).collect()), counts)
}

/// The first address beyond `start` in the lines that follow, if it is near.
fn kallsyms_after<'a>(lines: &(impl Iterator<Item = &'a str> + Clone), start: u64) -> Option<u64> {
    const NEAR: usize = 64;
    let addresses =
        lines.clone().take(NEAR).map(|line| hex(line.split(' ').next().unwrap_or_default()));
    addresses.into_iter().find(|address| *address > start)
}

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap_or_default()
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
        let text = "ffff1000 T copy_process\nffff1000 t alias\nffff1800 t y\nffff2000 T dup_fd\n\
                    ffff3000 t dup_fd\t[btrfs]\nffff4000 T alloc_pid\nffff5000 t alloc_pid\n";
        let (symbols, counts) = parse_symbols(text);
        let symbols = symbols.unwrap();
        assert_eq!(symbols["copy_process"], 0xffff_1000..0xffff_1800);
        assert_eq!(symbols["dup_fd"], 0xffff_2000..0xffff_3000);
        assert!(symbols["alloc_pid"].is_empty(), "two of one name");
        assert_eq!((counts["dup_fd"], counts["alloc_pid"], counts["copy_creds"]), (1, 2, 0));
        let (hidden, counts) = parse_symbols("0000000000000000 T copy_process\n");
        assert!(hidden.unwrap_err().contains("kptr_restrict"));
        assert_eq!(counts["copy_process"], 1, "names are not hidden");
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
