//! The loaded object, and which of its programs are attached.
//!
//! The links are kept here, so that detaching is a step of its own and can be timed. `functions`
//! attaches the probes of kernel functions, and `maps` reads the object's maps.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Btf, Ebpf,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, Program, tp_btf::BtfTracePointLink, uprobe::UProbeLink},
};
use aya_log::EbpfLogger;
use fork_trace_common::filter::FilterKey;

use crate::{
    bpf::{
        errors::{load_error, refused_or},
        load::{Settings, load, types},
        ring::UnpolledRing,
        run_stats, skipped_runs,
    },
    host::{Host, tracepoint::Tracepoint},
    plan::Plan,
};

/// The loaded object, and which of its programs are attached.
pub struct Tracer {
    /// The programs and maps, and the links of functions.
    pub(super) ebpf: Ebpf,
    /// The kernel's types that programs attach to.
    pub(super) types: &'static Btf,
    /// The links of the attached tracepoints.
    pub(super) links: BTreeMap<Tracepoint, BtfTracePointLink>,
    /// The timers that take samples.
    pub(super) timers: Vec<OwnedFd>,
    /// The links of the probes of C libraries.
    pub(super) libc_links: Vec<UProbeLink>,
    /// The kernel side's counters.
    pub(super) counters: PerCpuArray<MapData, u64>,
    /// Reads the kernel side's debug lines, where they are wanted.
    pub(super) logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// The names of the attached programs of functions.
    pub(super) functions: Vec<String>,
    /// The time that loading them took.
    pub(super) loading: Duration,
}

impl Tracer {
    /// Loads the object, opens its maps and puts the filter into them. Nothing is attached.
    ///
    /// # Errors
    /// [`UserError::Refused`](crate::error::UserError::Refused) where the kernel does not permit
    /// it.
    pub(super) fn load(host: &Host, settings: &Settings) -> Result<(Self, UnpolledRing)> {
        let mut ebpf = load(host, settings)?;
        let ring = ebpf.take_map("RING").context("find map RING in the eBPF object")?;
        let ring = UnpolledRing::new(RingBuf::try_from(ring).context("open the ring")?);
        let counters = ebpf.take_map("COUNTERS").context("find map COUNTERS in the eBPF object")?;
        let counters = PerCpuArray::try_from(counters).context("open the counters")?;
        let logger = settings.kernel_log.then(|| EbpfLogger::init(&mut ebpf)).transpose();
        let logger = logger.context("set up the kernel side's log")?;
        let map = ebpf.map_mut("FOLLOW").context("find map FOLLOW in the eBPF object")?;
        let mut follow: HashMap<_, u32, u8> = HashMap::try_from(map).context("open map FOLLOW")?;
        for (tgid, mode) in &settings.filter.follow {
            follow.insert(tgid, mode, 0).context("follow a process")?;
        }
        let map = ebpf.map_mut("FILTER").context("find map FILTER in the eBPF object")?;
        let mut filter: HashMap<_, FilterKey, u8> =
            HashMap::try_from(map).context("open map FILTER")?;
        for key in &settings.filter.keys {
            filter.insert(key, 1, 0).context("set a filter")?;
        }
        let links = BTreeMap::new();
        Ok((
            Self {
                ebpf,
                types: types(host)?,
                links,
                timers: Vec::new(),
                libc_links: Vec::new(),
                counters,
                logger,
                functions: Vec::new(),
                loading: Duration::ZERO,
            },
            ring,
        ))
    }

    /// Attaches the plan's tracepoints, in the plan's order, as long as `stop` is not true: on a busy host
    /// it may take seconds.
    ///
    /// # Errors
    /// [`UserError::Refused`](crate::error::UserError::Refused) where the kernel does not permit
    /// it; otherwise an error that names the program and has the end of the verifier's log.
    pub fn attach(&mut self, plan: &Plan, stop: &dyn Fn() -> bool) -> Result<()> {
        let links = attach_all(&mut self.ebpf, self.types, &plan.tracepoints, stop)?;
        self.links.extend(links);
        Ok(())
    }

    /// Detaches one tracepoint.
    pub fn detach(&mut self, tracepoint: Tracepoint) {
        drop(self.links.remove(&tracepoint));
    }

    /// Whether detaching takes the kernel long: it does where functions are probed, the kernel's or a C
    /// library's.
    #[must_use]
    pub(super) fn is_slow_to_close(&self) -> bool {
        !self.functions.is_empty() || !self.libc_links.is_empty()
    }

    /// How many runs of each program the kernel skipped; only of programs that had any.
    #[must_use]
    pub fn missed_runs(&self) -> BTreeMap<String, u64> {
        skipped_runs::by_program(self.attached())
    }

    /// Says in the log how often each program ran, where the kernel counts that.
    pub fn log_runs(&self) {
        if log::log_enabled!(log::Level::Info) {
            run_stats::log(self.attached());
        }
    }

    /// The programs that are attached, or were: their names and descriptors.
    fn attached(&self) -> impl Iterator<Item = (&str, RawFd)> {
        fn fd<'a>((name, program): (&'a str, &'a Program)) -> Option<(&'a str, RawFd)> {
            let fd = match program {
                Program::BtfTracePoint(program) => program.fd(),
                Program::FEntry(program) => program.fd(),
                Program::FExit(program) => program.fd(),
                Program::KProbe(program) => program.fd(),
                Program::UProbe(program) => program.fd(),
                _ => return None,
            };
            Some((name, fd.ok()?.as_fd().as_raw_fd()))
        }
        self.ebpf.programs().filter_map(fd)
    }

    /// Prints the debug lines that the kernel side has written since the last call.
    pub fn log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// Loads the programs of these tracepoints, all at once, and attaches them in this order. No more are
/// attached once `stop` says so.
///
/// The kernel takes most of the time until a trace begins to verify the programs, and it does so on as many
/// CPUs as it is asked on.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    types: &Btf,
    tracepoints: &[Tracepoint],
    stop: &dyn Fn() -> bool,
) -> Result<Vec<(Tracepoint, BtfTracePointLink)>> {
    let mut programs: BTreeMap<_, _> = ebpf.programs_mut().collect();
    let mut found = Vec::new();
    for tracepoint in tracepoints {
        let name = tracepoint.name();
        let program = programs.remove(name);
        let program = program.with_context(|| format!("find program {name} in the object"))?;
        let program: &mut BtfTracePoint =
            program.try_into().with_context(|| format!("{name} is no BTF tracepoint"))?;
        found.push((*tracepoint, program));
    }
    thread::scope(|scope| {
        let load = |(tracepoint, program): &mut (Tracepoint, &mut BtfTracePoint)| {
            let name = tracepoint.name();
            let what = format!("load the program for tracepoint {name}");
            program.load(name, types).map_err(|error| refused_or(&what, load_error(error)))
        };
        let loading: Vec<_> =
            found.iter_mut().map(|found| scope.spawn(move || load(found))).collect();
        loading.into_iter().try_for_each(|loading| {
            loading.join().map_err(|_panic| anyhow!("loading a program panicked"))?
        })
    })?;
    let attached = found.into_iter().take_while(|_| !stop()).map(|(tracepoint, program)| {
        let what = format!("attach to tracepoint {}", tracepoint.name());
        let link = program.attach().map_err(|error| refused_or(&what, anyhow!(error)))?;
        let link = program.take_link(link).with_context(|| what.clone())?;
        log::info!("attached {}", tracepoint.name());
        Ok((tracepoint, link))
    });
    attached.collect()
}
