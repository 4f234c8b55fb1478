//! Loads the eBPF object and attaches what the plan says; reads its maps.
//!
//! With `ring` the only module that knows aya. Links are kept here, so that detaching is a step of
//! its own and can be timed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, ProgramError, tp_btf::BtfTracePointLink},
};
use aya_log::EbpfLogger;
use fork_trace_common::{
    counter::Counter,
    life::{Born, state},
    record::{ForkRecord, TaskIds, bits},
    settings::{CPUS, FOLLOW_EXECS, FOLLOW_EXITS, FOLLOW_ONLY, PER_CPU_OFFSETS, TYPED},
    site::{self, LEARN_TGID, SITE_BITS, site_bit},
    wish::{FAILED_ONLY, KINDS, LEAST_NS, WISHES, Wish},
};

use zerocopy::FromBytes as _;

use crate::{
    advice::Advice,
    decode::{Record, decode},
    host::{Host, lockdown},
    plan::{Plan, Tracepoint},
    wishes::Wishes,
};

/// Aligned as ELF needs it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/fork-trace.x86_64.bpf.o"
));

/// Children whose life can be followed at once when all of them are: some 6 MiB.
const CHILDREN: u32 = 65_536;

/// Bytes of a record as a map value.
type FlightBytes = [u8; size_of::<ForkRecord>()];
/// Bytes of a child as a map value.
type BornBytes = [u8; size_of::<Born>()];

/// What is set before load.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which attempts are wanted.
    pub wishes: Wishes,
    /// Size of the ring; rounded up to a power of two of whole pages.
    pub ring_bytes: u32,
    /// Tell every child's execs.
    pub execs: bool,
    /// Tell every child's end.
    pub exits: bool,
    /// The kernel side's debug lines.
    pub kernel_log: bool,
}

/// The attached programs.
pub struct Tracer {
    /// Owns programs and maps.
    ebpf: Ebpf,
    links: BTreeMap<Tracepoint, BtfTracePointLink>,
    counters: PerCpuArray<MapData, u64>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Loads and attaches.
///
/// # Errors
/// [`Advice::Refused`] where the kernel says no; otherwise what was tried, and the end of the
/// verifier's log.
pub fn attach(host: &Host, plan: &Plan, settings: &Settings) -> Result<(Tracer, RingBuf<MapData>)> {
    let mut ebpf = load(host, plan, settings)?;
    let btf = Btf::from_sys_fs().context("read the kernel's types for attaching")?;
    let ring = ebpf.take_map("RING").context("find map RING in the eBPF object")?;
    let ring = RingBuf::try_from(ring).context("open the ring")?;
    let counters = ebpf.take_map("COUNTERS").context("find map COUNTERS in the eBPF object")?;
    let counters = PerCpuArray::try_from(counters).context("open the counters")?;
    let logger = settings.kernel_log.then(|| EbpfLogger::init(&mut ebpf)).transpose();
    let logger = logger.context("set up the kernel side's log")?;
    let map = ebpf.map_mut("FOLLOW").context("find map FOLLOW in the eBPF object")?;
    let mut follow: HashMap<_, u32, u8> = HashMap::try_from(map).context("open map FOLLOW")?;
    for (tgid, mode) in &settings.wishes.follow {
        follow.insert(tgid, mode, 0).context("follow a process")?;
    }
    let map = ebpf.map_mut("WISH").context("find map WISH in the eBPF object")?;
    let mut wishes: HashMap<_, Wish, u8> = HashMap::try_from(map).context("open map WISH")?;
    for wish in &settings.wishes.wishes {
        wishes.insert(wish, 1, 0).context("set a filter")?;
    }
    let mut tracer = Tracer { ebpf, links: BTreeMap::new(), counters, logger };
    for tracepoint in &plan.tracepoints {
        let link = attach_one(&mut tracer.ebpf, *tracepoint, &btf)?;
        tracer.links.insert(*tracepoint, link);
    }
    Ok((tracer, ring))
}

/// The programs of `inner`, writing down what happens inside this process's own forks.
pub struct Lesson {
    _ebpf: Ebpf,
    _links: Vec<BtfTracePointLink>,
    count: Array<MapData, u32>,
    lessons: Array<MapData, site::Lesson>,
}

impl Lesson {
    /// Loads and attaches every program that teaches something on this host.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn begin(host: &Host) -> Result<Self> {
        let tgid = std::process::id();
        let typed = u8::from(host.typed);
        let mut loader = loader(host);
        loader.override_global(TYPED, &typed, true);
        loader.override_global(LEARN_TGID, &tgid, true);
        loader.map_max_entries("RING", 4096);
        for unused in ["FOLLOW", "FLIGHTS", "ON_CPU", "BORN", "WAITS", "WISH"] {
            loader.map_max_entries(unused, 1);
        }
        let log_level = 0u8;
        loader.override_global(aya_log::LEVEL, &log_level, false);
        let loaded = loader.load(OBJECT);
        let mut ebpf = loaded.map_err(|error| refused_or("create the maps", anyhow!(error)))?;
        let btf = Btf::from_sys_fs().context("read the kernel's types for attaching")?;
        let mut take = |name: &str| {
            ebpf.take_map(name).with_context(|| format!("find map {name} in the eBPF object"))
        };
        let count = Array::try_from(take("LEARNED_COUNT")?).context("open map LEARNED_COUNT")?;
        let lessons = Array::try_from(take("LEARNED")?).context("open map LEARNED")?;
        let teachers = host.facts.tracepoints.iter().filter(|at| at.teaches());
        let links = teachers.map(|at| attach_one(&mut ebpf, *at, &btf)).collect::<Result<_>>()?;
        Ok(Self { _ebpf: ebpf, _links: links, count, lessons })
    }

    /// Forgets what was written.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.count.set(0, 0, 0).context("clear the lessons")
    }

    /// What was written since.
    ///
    /// # Errors
    /// The maps cannot be read, or there was more than fits.
    pub fn take(&self) -> Result<Vec<site::Lesson>> {
        let count = self.count.get(&0, 0).context("count the lessons")?;
        ensure!(count <= site::LESSONS, "{count} events inside one fork are too many");
        (0..count).map(|place| self.lessons.get(&place, 0).context("read a lesson")).collect()
    }
}

fn loader(host: &Host) -> EbpfLoader<'_> {
    let mut loader = EbpfLoader::new();
    for (global, offset) in &host.offsets {
        loader.override_global(global, offset, true);
    }
    loader.override_global(CPUS, &host.cpus.0, true);
    loader.override_global(PER_CPU_OFFSETS, &host.cpus.1, true);
    if !log::log_enabled!(log::Level::Debug) {
        loader.verifier_log_level(VerifierLogLevel::DISABLE);
    }
    loader
}

fn load(host: &Host, plan: &Plan, settings: &Settings) -> Result<Ebpf> {
    let (execs, exits) = (u8::from(settings.execs), u8::from(settings.exits));
    let wishes = &settings.wishes;
    let follow = u8::from(!wishes.follow.is_empty());
    let (failed_only, properties) = (u8::from(wishes.failed_only), wishes.properties());
    // aya-log's levels: 0 is off and lets the verifier remove the statements, 4 is debug.
    let log_level = if settings.kernel_log { 4u8 } else { 0 };
    let typed = u8::from(host.typed);
    let site_bits = plan.sites.iter().fold(0, |bits, (_, site)| bits | site_bit(*site));
    let mut loader = loader(host);
    loader.override_global(TYPED, &typed, true);
    loader.override_global(SITE_BITS, &site_bits, true);
    for (global, site) in &plan.sites {
        loader.override_global(global, site, true);
    }
    loader.override_global(FOLLOW_ONLY, &follow, true);
    loader.override_global(KINDS, &wishes.kinds, true);
    loader.override_global(WISHES, &properties, true);
    loader.override_global(FAILED_ONLY, &failed_only, true);
    loader.override_global(LEAST_NS, &wishes.least_ns, true);
    loader.override_global(FOLLOW_EXECS, &execs, true);
    loader.override_global(FOLLOW_EXITS, &exits, true);
    loader.override_global(aya_log::LEVEL, &log_level, false);
    loader.map_max_entries("RING", settings.ring_bytes);
    if settings.execs || settings.exits {
        loader.map_max_entries("BORN", CHILDREN);
    }
    if follow == 0 {
        loader.map_max_entries("FOLLOW", 1);
    }
    loader.load(OBJECT).map_err(|error| refused_or("create the maps", anyhow!(error)))
}

fn attach_one(ebpf: &mut Ebpf, tracepoint: Tracepoint, btf: &Btf) -> Result<BtfTracePointLink> {
    let name = tracepoint.name();
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("find program {name} in the object"))?;
    let program: &mut BtfTracePoint =
        program.try_into().with_context(|| format!("{name} is no BTF tracepoint"))?;
    let what = format!("load the program for tracepoint {name}");
    program.load(name, btf).map_err(|error| refused_or(&what, load_error(error)))?;
    let what = format!("attach to tracepoint {name}");
    let link = program.attach().map_err(|error| refused_or(&what, anyhow!(error)))?;
    let link = program.take_link(link).with_context(|| what.clone())?;
    log::info!("attached {name}");
    Ok(link)
}

impl Tracer {
    /// Detaches one tracepoint.
    pub fn detach(&mut self, tracepoint: Tracepoint) {
        drop(self.links.remove(&tracepoint));
    }

    /// A counter's value, all CPUs together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        let values = self.counters.get(&(counter as u32), 0);
        let values = values.with_context(|| format!("read counter {counter:?}"))?;
        Ok(values.iter().sum())
    }

    /// Attempts that made a task and have not been submitted.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn flights_with_child(&self) -> Result<u64> {
        let map = self.ebpf.map("FLIGHTS").context("find map FLIGHTS in the eBPF object")?;
        let flights: HashMap<_, u64, FlightBytes> =
            HashMap::try_from(map).context("open map FLIGHTS")?;
        let mut count = 0;
        for flight in flights.iter() {
            let (_, bytes) = flight.context("read map FLIGHTS")?;
            if let Ok(Record::Fork(record)) = decode(&bytes)
                && record.has(bits::CHILD)
            {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether a child of a process with threads lives and has not run another program.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn runs_on(&self, child: &TaskIds) -> Result<bool> {
        let map = self.ebpf.map("BORN").context("find map BORN in the eBPF object")?;
        let born: HashMap<_, u32, BornBytes> = HashMap::try_from(map).context("open map BORN")?;
        let bytes = match born.get(&child.tgid, 0) {
            Err(MapError::KeyNotFound) => return Ok(false),
            bytes => bytes.context("read map BORN")?,
        };
        let born = Born::read_from_bytes(&bytes).ok().context("decode a child")?;
        Ok(born.child.start_ns == child.start_ns && born.state & state::EXECED == 0)
    }

    /// Prints the kernel side's debug lines that have come.
    pub fn log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// [`Advice::Refused`] where the kernel does not permit it, else the error with what was tried.
fn refused_or(what: &str, error: anyhow::Error) -> anyhow::Error {
    let not_permitted = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    });
    if not_permitted {
        let what = format!("{what}: operation not permitted");
        return Advice::Refused { what, lockdown: lockdown() }.into();
    }
    error.context(what.to_owned())
}

/// The verifier's log is long and its reason comes last.
fn load_error(error: ProgramError) -> anyhow::Error {
    const LAST: usize = 5;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!(error);
    };
    let log = verifier_log.to_string();
    log::debug!("verifier log:\n{log}");
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("processed ")).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LAST)).copied();
    let last = last.collect::<Vec<_>>().join("\n");
    let error = anyhow::Error::new(io_error);
    if last.is_empty() { error } else { error.context(format!("the verifier says:\n{last}")) }
}
