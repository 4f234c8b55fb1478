//! Facts about this host, from `/sys` and `/proc`. No other room reads these file systems.

mod btf;
pub mod call_sites;
pub mod callers_path;
pub mod clock;
pub mod counts;
pub mod descriptors;
pub mod facts;
pub mod features;
pub mod fill;
pub mod functions;
pub mod heap;
pub mod hurry;
pub mod libc;
pub mod limits;
pub mod lookup;
mod name_set;
pub mod namespaces;
mod offsets;
pub mod process;
pub mod rights;
pub mod stacks;
pub mod surroundings;
mod symbols;
pub mod tracepoint;
pub mod user_stacks;
pub mod users;

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, Result};
use fork_trace_common::{
    arch::ARCH,
    libc::COOKIE_HELPER,
    settings::{ABSENT, OFFSETS, TASK_REGS_HELPER, TYPED_HELPER},
    task_seen::TASK_ITERATOR,
};
use nix::{
    sys::utsname,
    unistd::{SysconfVar, sysconf},
};

use crate::{
    error::UserError,
    event::{bytes::text, memory::PAGE_BYTES, start::HostInfo},
    host::{
        btf::Btf,
        call_sites::Symbols,
        counts::possible_cpus,
        facts::Facts,
        features::Features,
        functions::Candidates,
        name_set::NameSet,
        offsets::of_enum,
        process::ids::Ids,
        symbols::{PER_CPU_OFFSETS, read_symbols},
        tracepoint::Tracepoint,
    },
};

/// The kernel's own types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What was read of the host at the start.
pub struct Host {
    /// The host's name, kernel and CPUs, for the `start` line.
    pub info: HostInfo,
    /// What the plan needs to know.
    pub facts: Facts,
    /// The offsets that are set in the object before it is loaded: name of the global, and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// The lines of functions of `/proc/kallsyms`, for names of kernel stacks.
    pub kernel_functions: Vec<u8>,
    /// BTF data that holds only the types that programs attach to.
    pub attachable: Vec<u8>,
    /// Whether programs can load fields of the calling task directly: the kernel has
    /// [`TYPED_HELPER`].
    pub typed: bool,
    /// Whether the kernel has a helper that finds a task's registers.
    pub task_regs: bool,
    /// Whether the kernel tells a program which attachment ran: it has [`COOKIE_HELPER`].
    pub cookies: bool,
    /// How each function of the table may be probed.
    pub candidates: Candidates,
    /// The addresses of the functions whose allocations are marks, or the reason why they are not
    /// known.
    pub symbols: Result<Symbols, String>,
    /// How this process's pid namespace gives ids. Where it is not the initial one, the tasks in it
    /// are listed later.
    pub ids: Ids,
    /// What this kernel refuses where kernels differ, once that was learned.
    pub features: Features,
    /// How many CPUs there may be, and the address of the kernel's array of per-CPU offsets, 0
    /// where it is not known.
    pub cpus: (u32, u64),
}

impl Host {
    /// Reads all facts but those that are learned later, by calls or attempts of this process.
    ///
    /// # Errors
    /// [`UserError::NoBtf`], [`UserError::KernelLacks`] where a required field is absent, or
    /// [`UserError::Surroundings`] where pages have another size.
    pub fn read() -> Result<Self> {
        let info = host_info()?;
        if sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map(i64::cast_unsigned) != Some(PAGE_BYTES)
        {
            // An arm64 kernel may have larger ones. Every count of pages would be told in wrong bytes.
            let what = format!("this kernel's pages have no {PAGE_BYTES} bytes");
            let cure = "boot a kernel with pages of 4 KiB: fork-trace counts in those".to_owned();
            return Err(UserError::Surroundings { what, cure }.into());
        }
        let btf = read_btf()?;
        let tracepoints =
            Tracepoint::ALL.iter().copied().filter(|at| btf.has_tracepoint(at.name())).collect();
        let facts = Facts {
            tracepoints,
            no_child_exit: !ARCH.child_passes_exit,
            release: info.kernel.clone(),
            inner: call_sites::all_unknown("inner tracepoints are not used"),
            ..Facts::default()
        };
        let typed = btf.has_function(TYPED_HELPER);
        let task_regs = btf.has_function(TASK_REGS_HELPER);
        let cookies = btf.has_function(COOKIE_HELPER);
        let features = Features::default();
        let mut kernel_functions = Vec::new();
        let (symbols, counts) = read_symbols(&mut kernel_functions);
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
            cookies,
            candidates,
            symbols,
            kernel_functions,
            ids: Ids::Initial,
            features,
            cpus,
        })
    }

    /// Whether this kernel has the field whose offset the global `name` of the object holds.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.offsets.iter().any(|(global, offset)| *global == name && *offset != ABSENT)
    }
}

fn read_btf() -> Result<Btf> {
    let data = fs::read(BTF).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => UserError::NoBtf { cause: format!("{BTF}: {error}") }.into(),
        _ => anyhow::Error::new(error).context(format!("read the kernel's types in {BTF}")),
    })?;
    let structs = OFFSETS.iter().map(|offset| of_enum(offset.of).unwrap_or(offset.of));
    let tracepoints = Tracepoint::ALL.iter().map(|at| at.name());
    let names: NameSet = structs
        .chain(tracepoints)
        .chain(functions::names())
        .chain([TYPED_HELPER, TASK_REGS_HELPER, COOKIE_HELPER, TASK_ITERATOR])
        .collect();
    Btf::parse(data, |name| names.get(name).is_some())
        .with_context(|| format!("read the kernel's types in {BTF}"))
}

fn online_cpus() -> Result<usize> {
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).context("ask for the CPUs (sysconf)")?;
    let cpus = cpus.and_then(|cpus| usize::try_from(cpus).ok());
    cpus.context("the system does not say how many CPUs are online")
}

fn host_info() -> Result<HostInfo> {
    let uname = utsname::uname().context("ask for the system's name (uname)")?;
    let text = |name: &OsStr| text(name.as_bytes());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Ok(HostInfo {
        name: text(uname.nodename()),
        kernel: text(uname.release()),
        arch: text(uname.machine()),
        cpus: online_cpus()?,
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
