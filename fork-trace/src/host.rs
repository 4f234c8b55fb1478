//! Facts about this host, from `/sys` and `/proc`.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, BufRead, BufReader},
    ops::Range,
};

use anyhow::{Context as _, Result};
use fork_trace_common::{
    call_site::{ALLOCATING_FUNCTIONS, COPY_PROCESS},
    settings::{ABSENT, OFFSETS, TYPED_HELPER},
};
use nix::{
    sys::utsname,
    time::{ClockId, clock_gettime},
};

use crate::{
    btf::Btf,
    call_sites::{self, InnerMarks, Symbols},
    cause::Features,
    error::UserError,
    fork::HostInfo,
    functions::{self, Candidates, Counts, Probes},
    name_set::NameSet,
    plan::Tracepoint,
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
    /// ProbeKind each function of the table may be probed.
    pub candidates: Candidates,
    /// Where the functions lie whose allocations are marks, or why that is not known.
    pub symbols: Result<Symbols, String>,
    /// Which flags this kernel refuses, once that was learned.
    pub features: Features,
    /// ProbeKind many CPUs there may be, and where the kernel keeps each one's own memory: the second is
    /// 0 where it is not known.
    pub cpus: (u32, u64),
}

impl Host {
    /// Reads everything.
    ///
    /// # Errors
    /// [`UserError::NoBtf`], or [`UserError::KernelLacks`] where a needed field is not there.
    pub fn read() -> Result<Self> {
        let info = host_info()?;
        let btf = read_btf()?;
        let tracepoints =
            Tracepoint::ALL.iter().copied().filter(|at| btf.has_tracepoint(at.name())).collect();
        let facts = Facts {
            tracepoints,
            release: info.kernel.clone(),
            inner: call_sites::all_unknown("inner tracepoints are not used"),
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
    let data =
        fs::read(BTF).map_err(|error| UserError::NoBtf { cause: format!("{BTF}: {error}") })?;
    let structs = OFFSETS.iter().map(|offset| of_enum(offset.of).unwrap_or(offset.of));
    let tracepoints = Tracepoint::ALL.iter().map(|at| at.name());
    let names: NameSet =
        structs.chain(tracepoints).chain(functions::names()).chain([TYPED_HELPER]).collect();
    Btf::parse(data, |name| names.get(name).is_some())
        .with_context(|| format!("read the kernel's types in {BTF}"))
}

/// The name of the enumeration that an offset is a value of.
fn of_enum(of: &'static str) -> Option<&'static str> {
    of.strip_prefix("enum ")
}

fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u32)>> {
    let resolve = |offset: &fork_trace_common::settings::Offset| {
        let found = match of_enum(offset.of) {
            Some(name) => btf.value(name, offset.field)?,
            None => btf.offset(offset.of, offset.field)?,
        };
        if found.is_none() && offset.required {
            let what = format!("the field {}.{}", offset.of, offset.field);
            return Err(UserError::KernelLacks { what }.into());
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

/// Where the functions lie whose allocations are marks, and [`PER_CPU_OFFSETS`], or why that is not
/// known; and how many symbols there are of each name in the function table, if they can be read.
fn read_symbols() -> (Result<Symbols, String>, Option<Counts>) {
    let parsed = File::open("/proc/kallsyms").and_then(|file| parse_symbols(BufReader::new(file)));
    match parsed {
        Ok((symbols, counts)) => (symbols, Some(counts)),
        Err(error) => (Err(format!("kallsyms: {error}")), None),
    }
}

/// A name among the kernel's symbols: the first symbol, from its address to the next one, and how
/// many there are.
#[derive(Default)]
struct Symbol {
    place: Range<u64>,
    count: usize,
}

fn parse_symbols(mut kallsyms: impl BufRead) -> io::Result<(Result<Symbols, String>, Counts)> {
    let places = ALLOCATING_FUNCTIONS.iter().map(|(name, _)| *name);
    let places: Vec<_> =
        places.chain(COPY_PROCESS.iter().copied()).chain([PER_CPU_OFFSETS]).collect();
    let names: NameSet = places.iter().copied().chain(functions::names()).collect();
    let mut found: HashMap<&str, Symbol> = HashMap::new();
    // The kernel's own symbols are in the order of their addresses; several may be one's.
    let mut open: Vec<(&str, u64)> = Vec::new();
    let mut line = Vec::new();
    while kallsyms.read_until(b'\n', &mut line)? > 0 {
        let bytes = line.trim_ascii_end();
        if !open.is_empty() {
            let address = address(bytes);
            for (name, start) in open.extract_if(.., |(_, start)| address > *start) {
                found.entry(name).or_default().place = start..address;
            }
        }
        // A module's symbol has its name behind a tab, and so is not found.
        let name = bytes.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        if let Some(name) = names.get(name) {
            let symbol = found.entry(name).or_default();
            symbol.count += 1;
            if symbol.count == 1 {
                open.push((name, address(bytes)));
            }
        }
        line.clear();
    }
    let count = |name| found.get(name).map_or(0, |symbol| symbol.count);
    let counts = functions::names().map(|name| (name, count(name))).collect();
    let mut symbols = found.values();
    if symbols.all(|symbol| symbol.place.is_empty()) {
        let hidden = "kernel addresses are hidden: set kernel.kptr_restrict to 1 or 0, and run \
                      with CAP_SYSLOG";
        return Ok((Err(hidden.to_owned()), counts));
    }
    let place = |name: &&'static str| {
        let Symbol { place, count } = found.get(name)?;
        // Two functions of one name: neither is certain.
        Some((*name, if *count == 1 { place.clone() } else { 0..0 }))
    };
    Ok((Ok(places.iter().filter_map(place).collect()), counts))
}

/// The address that a line begins with; 0: hidden, or none.
fn address(line: &[u8]) -> u64 {
    let digits = line.iter().map_while(|digit| char::from(*digit).to_digit(16));
    digits.fold(0, |address, digit| address << 4 | u64::from(digit))
}

/// ProbeKind many CPUs there may be: one more than the last in `/sys/devices/system/cpu/possible`.
///
/// # Errors
/// The file cannot be read, or does not end in a number.
pub fn possible_cpus() -> Result<u32> {
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
        let text = "ffff1000 T copy_process\nffff1000 t dup_mm\nffff1800 t y\nffff2000 T dup_fd\n\
                    ffff3000 t dup_fd\t[btrfs]\nffff4000 T alloc_pid\nffff5000 t alloc_pid\n";
        let parse = |text: &str| parse_symbols(text.as_bytes()).unwrap();
        let (symbols, counts) = parse(text);
        let symbols = symbols.unwrap();
        assert_eq!(symbols["copy_process"], 0xffff_1000..0xffff_1800);
        assert_eq!(symbols["dup_mm"], symbols["copy_process"], "two names of one");
        assert_eq!(symbols["dup_fd"], 0xffff_2000..0xffff_3000);
        assert!(symbols["alloc_pid"].is_empty(), "two of one name");
        assert_eq!((counts["dup_fd"], counts["alloc_pid"], counts["copy_creds"]), (1, 2, 0));
        let (hidden, counts) = parse("0000000000000000 T copy_process\n");
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
