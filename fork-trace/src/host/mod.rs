//! Facts about this host, from `/sys` and `/proc`.

pub mod btf;
pub mod call_sites;
pub mod clock;
pub mod counts;
pub mod descriptors;
pub mod facts;
pub mod features;
pub mod functions;
pub mod limits;
pub mod lookup;
pub mod name_set;
pub mod offsets;
pub mod process;
pub mod rights;
pub mod stacks;
pub mod symbols;
pub mod tracepoint;

use anyhow::{Context as _, Result};
use fork_trace_common::settings::{ABSENT, OFFSETS, TASK_REGS_HELPER, TYPED_HELPER};
use nix::sys::utsname;
use std::fs::{self};

use crate::{
    error::UserError,
    event::start::HostInfo,
    host::{
        btf::Btf,
        call_sites::Symbols,
        counts::possible_cpus,
        facts::Facts,
        features::Features,
        functions::Candidates,
        name_set::NameSet,
        offsets::of_enum,
        symbols::{PER_CPU_OFFSETS, read_symbols},
        tracepoint::Tracepoint,
    },
};

const BTF: &str = "/sys/kernel/btf/vmlinux";

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
    /// Whether the kernel has a helper that finds a task's registers.
    pub task_regs: bool,
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
        let task_regs = btf.has_function(TASK_REGS_HELPER);
        let features = Features::default();
        let (symbols, counts) = read_symbols();
        let place = symbols.as_ref().ok().and_then(|symbols| symbols.get(PER_CPU_OFFSETS));
        let cpus = (possible_cpus()?, place.map_or(0, |place| place.start));
        let candidates = functions::candidates(&btf, counts.as_ref())?;
        Ok(Self {
            info,
            facts,
            offsets: offsets::offsets(&btf)?,
            attachable: btf.attachable(),
            typed,
            task_regs,
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
    let names: NameSet = structs
        .chain(tracepoints)
        .chain(functions::names())
        .chain([TYPED_HELPER, TASK_REGS_HELPER])
        .collect();
    Btf::parse(data, |name| names.get(name).is_some())
        .with_context(|| format!("read the kernel's types in {BTF}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{clock::monotonic_ns, counts::kernel_forks};

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
