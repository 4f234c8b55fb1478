//! Loads the eBPF object: types, offsets, switches and map sizes are set before the kernel sees it.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use aya::{Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel};
use fork_trace_common::{
    call_site::{SITE_BITS, site_bit},
    filter::{FAILED_ONLY, FILTERED_BY, KINDS},
    function::{ARITY, FUNCTIONS_ON},
    settings::{CPUS, FOLLOW_EXECS, FOLLOW_EXITS, FOLLOW_ONLY, PER_CPU_OFFSETS, TASK_REGS, TYPED},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    bpf::{errors::refused_or, filter::Filter},
    host::Host,
};

/// Aligned as ELF needs it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/fork-trace.x86_64.bpf.o"
));

/// Children whose life can be followed at once when all of them are: some 6 MiB.
const CHILDREN: u32 = 65_536;

/// The kernel's types as aya reads them, once: all of them would take it some milliseconds.
pub(super) fn types(host: &Host) -> Result<&'static Btf> {
    static TYPES: OnceLock<Btf> = OnceLock::new();
    if let Some(types) = TYPES.get() {
        return Ok(types);
    }
    let types = Btf::parse(&host.attachable, Endianness::default());
    let types = types.context("read the kernel's types for attaching")?;
    Ok(TYPES.get_or_init(|| types))
}

/// What is set before load.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Call sites of inner marks: global of the object and address.
    pub sites: Vec<(&'static str, u64)>,
    /// Whether functions will be probed.
    pub functions: bool,
    /// Which attempts are wanted.
    pub filter: Filter,
    /// Size of the ring; rounded up to a power of two of whole pages.
    pub ring_bytes: u32,
    /// Tell every child's execs.
    pub execs: bool,
    /// Tell every child's end.
    pub exits: bool,
    /// The kernel side's debug lines.
    pub kernel_log: bool,
}

/// A loader without types. aya's first reads all of the kernel's, which takes half of the time that
/// this process itself needs to start, and is thrown away for [`types`]; it does without them where it
/// cannot open their file. No other thread of this process opens anything meanwhile.
fn bare_loader<'a>() -> Result<EbpfLoader<'a>> {
    let lower = |(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, 0, hard).map(|()| (soft, hard));
    let limits = getrlimit(Resource::RLIMIT_NOFILE).and_then(lower);
    let loader = EbpfLoader::new();
    let Ok((soft, hard)) = limits else { return Ok(loader) };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).context("set RLIMIT_NOFILE again")?;
    Ok(loader)
}

pub(super) fn loader(host: &Host) -> Result<EbpfLoader<'_>> {
    let mut loader = bare_loader()?;
    loader.btf(Some(types(host)?));
    for (global, offset) in &host.offsets {
        loader.override_global(global, offset, true);
    }
    loader.override_global(CPUS, &host.cpus.0, true);
    loader.override_global(PER_CPU_OFFSETS, &host.cpus.1, true);
    if !log::log_enabled!(log::Level::Debug) {
        loader.verifier_log_level(VerifierLogLevel::DISABLE);
    }
    Ok(loader)
}

pub(super) fn load(host: &Host, settings: &Settings) -> Result<Ebpf> {
    let (execs, exits) = (u8::from(settings.execs), u8::from(settings.exits));
    let filter = &settings.filter;
    let follow = u8::from(!filter.follow.is_empty());
    let (failed_only, properties) = (u8::from(filter.failed_only), filter.properties());
    // aya-log's levels: 0 is off and lets the verifier remove the statements, 4 is debug.
    let log_level = if settings.kernel_log { 4u8 } else { 0 };
    let (typed, task_regs) = (u8::from(host.typed), u8::from(host.task_regs));
    let functions = u8::from(settings.functions);
    let site_bits = settings.sites.iter().fold(0, |bits, (_, site)| bits | site_bit(*site));
    let arities: Vec<(String, u8)> = host
        .candidates
        .iter()
        .filter_map(|(function, candidate)| {
            Some((format!("{ARITY}{}", function.row().id), candidate.as_ref().ok()?.arity))
        })
        .collect();
    let mut loader = loader(host)?;
    loader.override_global(TYPED, &typed, true);
    loader.override_global(TASK_REGS, &task_regs, true);
    loader.override_global(SITE_BITS, &site_bits, true);
    for (global, site) in &settings.sites {
        loader.override_global(global, site, true);
    }
    loader.override_global(FOLLOW_ONLY, &follow, true);
    loader.override_global(KINDS, &filter.kinds, true);
    loader.override_global(FILTERED_BY, &properties, true);
    loader.override_global(FAILED_ONLY, &failed_only, true);
    loader.override_global(FOLLOW_EXECS, &execs, true);
    loader.override_global(FOLLOW_EXITS, &exits, true);
    loader.override_global(FUNCTIONS_ON, &functions, true);
    for (global, arity) in &arities {
        // Not in the object where the function returns nothing.
        loader.override_global(global, arity, false);
    }
    loader.override_global(aya_log::LEVEL, &log_level, false);
    loader.map_max_entries("RING", settings.ring_bytes);
    if settings.execs || settings.exits {
        loader.map_max_entries("BORN", CHILDREN);
    }
    for (map, used) in [("FOLLOW", follow), ("FUNCTION_TIMES", functions)] {
        if used == 0 {
            loader.map_max_entries(map, 1);
        }
    }
    loader.load(OBJECT).map_err(|error| refused_or("create the maps", anyhow!(error)))
}
