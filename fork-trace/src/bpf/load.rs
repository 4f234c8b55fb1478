//! Loads the eBPF object. Types, offsets, switches and map sizes are set in it before the kernel
//! sees it.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use aya::{Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel};
use fork_trace_common::{
    call_site::{SITE_BITS, site_bit},
    filter::{FAILED_ONLY, FILTERED_BY, KINDS},
    function::{ARITY, FUNCTIONS_ON},
    libc::{COOKIES, LIBC_ON},
    settings::{
        CPUS, FOLLOW_EXECS, FOLLOW_EXITS, FOLLOW_ONLY, MEASURE_WAITS, PER_CPU_OFFSETS, TASK_REGS,
        TYPED,
    },
    stack::STACKS_ON,
    task_seen::{PROC_LEVEL, PROC_NS},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    bpf::{errors::refused_or, filter::Filter},
    host::{Host, libc::Found},
};

/// The eBPF object of the machine that this is built for, with the alignment that reading ELF needs.
#[cfg(target_arch = "x86_64")]
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/fork-trace.x86_64.bpf.o"
));
#[cfg(target_arch = "aarch64")]
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/fork-trace.aarch64.bpf.o"
));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("fork-trace has no eBPF object for this machine");

/// aya-log's level at which no line is logged.
const NO_LOG: u8 = 0;

/// Processes that can be followed at once, besides those that are followed from the start.
const FOLLOWED: u32 = 32_768;

/// How many children can be followed at once where every child is, which takes some 6 MiB.
const CHILDREN: u32 = 65_536;

/// The kernel's types that programs attach to, in aya's form. They are read only once; to read all
/// types of the kernel would take aya some milliseconds.
pub(super) fn types(host: &Host) -> Result<&'static Btf> {
    static TYPES: OnceLock<Btf> = OnceLock::new();
    if let Some(types) = TYPES.get() {
        return Ok(types);
    }
    let types = Btf::parse(&host.attachable, Endianness::default());
    let types = types.context("read the kernel's types for attaching")?;
    Ok(TYPES.get_or_init(|| types))
}

/// What is set in the object before it is loaded.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The call sites of the inner marks: name of the global in the object, and address.
    pub sites: Vec<(&'static str, u64)>,
    /// Whether functions will be probed.
    pub functions: bool,
    /// Which attempts are recorded.
    pub filter: Filter,
    /// The size of the ring, in bytes: see [`ring_bytes`].
    pub ring_bytes: u32,
    /// Whether the execs of every child are reported.
    pub execs: bool,
    /// Whether the end of every child is reported.
    pub exits: bool,
    /// Whether it is not measured where a fork stands still. Samples need that measured: they tell what
    /// a fork did while it had a CPU.
    pub no_waits: bool,
    /// How many samples of kernel stacks are taken a second on each CPU; 0: none.
    pub sample_hz: u32,
    /// Whether the callers' stacks are taken.
    pub stacks: bool,
    /// The C libraries to probe; `None`: none, and no attempt is linked with a wrapper.
    pub libc: Option<Found>,
    /// Whether the kernel side writes debug lines.
    pub kernel_log: bool,
}

/// The size of the ring: the one that was asked for, rounded up to what the kernel takes, or else one
/// that grows with the CPUs on which forks can be made.
///
/// A plain fork, its child's start and its end have some 750 bytes together. One CPU makes 8,000 forks a
/// second at most where all of them do nothing else, so that the default holds a third of a second.
///
/// KERNEL: kernel/bpf/ringbuf.c `ringbuf_map_alloc`: a power of two, and whole pages. All of it is
/// allocated at once.
#[must_use]
pub fn ring_bytes(wanted: Option<u32>, cpus: usize) -> u32 {
    const FOR_EACH_CPU: usize = 2 << 20;
    const LEAST: usize = 4 << 20;
    const MOST: usize = 64 << 20;
    let default = || u32::try_from(cpus.saturating_mul(FOR_EACH_CPU).clamp(LEAST, MOST)).ok();
    let bytes = wanted.or_else(default).unwrap_or(u32::MAX);
    bytes.checked_next_power_of_two().unwrap_or(1 << 30)
}

/// A loader that has read no types. A new loader of aya first reads all types of the kernel, which
/// takes half of the time that this process needs to start, and [`types`] replaces them anyway. aya
/// does without them where it cannot open their file, so for that moment no file may be opened. No
/// other thread of this process opens a file then.
fn bare_loader<'a>() -> Result<EbpfLoader<'a>> {
    let lower = |(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, 0, hard).map(|()| (soft, hard));
    let limits = getrlimit(Resource::RLIMIT_NOFILE).and_then(lower);
    let loader = EbpfLoader::new();
    let Ok((soft, hard)) = limits else { return Ok(loader) };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).context("set RLIMIT_NOFILE again")?;
    Ok(loader)
}

/// A loader with everything set that does not depend on the trace: types, offsets, CPUs.
pub(super) fn loader(host: &Host) -> Result<EbpfLoader<'_>> {
    let mut loader = bare_loader()?;
    loader.btf(Some(types(host)?));
    for (global, offset) in &host.offsets {
        loader.override_global(global, offset, true);
    }
    loader.override_global(TYPED, if host.typed { &1u8 } else { &0u8 }, true);
    loader.override_global(TASK_REGS, if host.task_regs { &1u8 } else { &0u8 }, true);
    loader.override_global(CPUS, &host.cpus.0, true);
    loader.override_global(PER_CPU_OFFSETS, &host.cpus.1, true);
    if !log::log_enabled!(log::Level::Debug) {
        loader.verifier_log_level(VerifierLogLevel::DISABLE);
    }
    Ok(loader)
}

/// A loader whose maps are as small as can be: for programs that trace nothing yet.
pub(super) fn small_loader(host: &Host) -> Result<EbpfLoader<'_>> {
    const MAPS: [&str; 9] = [
        "FOLLOW",
        "ATTEMPTS",
        "FUNCTION_TIMES",
        "ON_CPU",
        "OFF_CPU",
        "BORN",
        "WAITS",
        "FILTER",
        "LIBC",
    ];
    let mut loader = loader(host)?;
    loader.map_max_entries("RING", 4096);
    for map in MAPS {
        loader.map_max_entries(map, 1);
    }
    loader.override_global(aya_log::LEVEL, &NO_LOG, false);
    Ok(loader)
}

/// Loads the object for a trace: creates its maps; programs are loaded when they are attached.
///
/// # Errors
/// [`UserError::Refused`](crate::error::UserError::Refused) where the kernel does not permit it.
pub(super) fn load(host: &Host, settings: &Settings) -> Result<Ebpf> {
    let (execs, exits) = (u8::from(settings.execs), u8::from(settings.exits));
    let filter = &settings.filter;
    let follow = u8::from(!filter.follow.is_empty());
    let (failed_only, properties) = (u8::from(filter.failed_only), filter.properties());
    // These are the levels of aya-log. 0 is off, with which the verifier removes the statements; 4
    // is debug.
    let log_level = if settings.kernel_log { 4u8 } else { NO_LOG };
    let (proc_level, proc_ns) = host.ids.of_proc();
    let functions = u8::from(settings.functions);
    let (libc, cookies) = (u8::from(settings.libc.is_some()), u8::from(host.cookies));
    let (measure_waits, stacks) = (u8::from(!settings.no_waits), u8::from(settings.stacks));
    let site_bits = settings.sites.iter().fold(0, |bits, (_, site)| bits | site_bit(*site));
    let arities: Vec<(String, u8)> = host
        .candidates
        .iter()
        .filter_map(|(function, candidate)| {
            Some((format!("{ARITY}{}", function.row().id), candidate.as_ref().ok()?.arity))
        })
        .collect();
    let mut loader = loader(host)?;
    loader.override_global(PROC_LEVEL, &proc_level, true);
    loader.override_global(PROC_NS, &proc_ns, true);
    loader.override_global(SITE_BITS, &site_bits, true);
    for (global, site) in &settings.sites {
        loader.override_global(global, site, true);
    }
    loader.override_global(FOLLOW_ONLY, &follow, true);
    loader.override_global(KINDS, &filter.kinds, true);
    loader.override_global(FILTERED_BY, &properties, true);
    loader.override_global(FAILED_ONLY, &failed_only, true);
    loader.override_global(MEASURE_WAITS, &measure_waits, true);
    loader.override_global(STACKS_ON, &stacks, true);
    loader.override_global(FOLLOW_EXECS, &execs, true);
    loader.override_global(FOLLOW_EXITS, &exits, true);
    loader.override_global(FUNCTIONS_ON, &functions, true);
    loader.override_global(LIBC_ON, &libc, true);
    loader.override_global(COOKIES, &cookies, true);
    for (global, arity) in &arities {
        // The object has no such global where the function returns nothing.
        loader.override_global(global, arity, false);
    }
    loader.override_global(aya_log::LEVEL, &log_level, false);
    loader.map_max_entries("RING", settings.ring_bytes);
    if settings.execs || settings.exits {
        loader.map_max_entries("BORN", CHILDREN);
    }
    let entries = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let followed = if follow == 0 { 1 } else { FOLLOWED + entries(filter.follow.len()) };
    loader.map_max_entries("FOLLOW", followed);
    loader.map_max_entries("FILTER", entries(filter.keys.len()).max(1));
    if settings.libc.is_none() {
        loader.map_max_entries("LIBC", 1);
    }
    if settings.no_waits {
        loader.map_max_entries("OFF_CPU", 1);
    }
    if functions == 0 {
        loader.map_max_entries("FUNCTION_TIMES", 1);
    }
    loader.load(OBJECT).map_err(|error| refused_or("create the maps", anyhow!(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_grows_with_the_cpus_and_is_a_power_of_two() {
        let sizes = [1, 2, 3, 16, 24, 32, 4096].map(|cpus| ring_bytes(None, cpus) >> 20);
        assert_eq!(sizes, [4, 4, 8, 32, 64, 64, 64]);
        assert_eq!(ring_bytes(Some(4097), 16), 8192);
        assert_eq!(ring_bytes(Some(1 << 30), 2), 1 << 30);
    }
}
