//! Loads the eBPF object and attaches what the plan says; reads its maps.
//!
//! With `ring` the only module that knows aya. Links are kept here, so that detaching is a step of
//! its own and can be timed.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, Program, ProgramError, tp_btf::BtfTracePointLink},
};
use aya_log::EbpfLogger;
use fork_trace_common::{
    call_site::{self, LEARN_TGID, SITE_BITS, site_bit},
    counter::Counter,
    filter::{FAILED_ONLY, FILTERED_BY, FilterKey, KINDS, MIN_DURATION_NS},
    follow_up::{Born, state},
    function::{ARITY, FUNCTIONS_ON, Function},
    record::{ForkRecord, TaskIds, bits},
    settings::{CPUS, FOLLOW_EXECS, FOLLOW_EXITS, FOLLOW_ONLY, PER_CPU_OFFSETS, TYPED},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use zerocopy::FromBytes as _;

use crate::{
    cli::Stages,
    decode::{Record, decode},
    error::UserError,
    filter::Filter,
    functions::{Candidate, Probe, ProbeKind, assumed},
    host::{Host, lockdown},
    missed,
    plan::{self, Backend, Ends, Plan, Tracepoint},
};

/// Aligned as ELF needs it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bpf/fork-trace.x86_64.bpf.o"
));

/// The kernel's types as aya reads them, once: all of them would take it some milliseconds.
fn types(host: &Host) -> Result<&'static Btf> {
    static TYPES: OnceLock<Btf> = OnceLock::new();
    if let Some(types) = TYPES.get() {
        return Ok(types);
    }
    let types = Btf::parse(&host.attachable, Endianness::default());
    let types = types.context("read the kernel's types for attaching")?;
    Ok(TYPES.get_or_init(|| types))
}

/// Children whose life can be followed at once when all of them are: some 6 MiB.
const CHILDREN: u32 = 65_536;

/// Bytes of a record as a map value.
type AttemptBytes = [u8; size_of::<ForkRecord>()];
/// Bytes of a child as a map value.
type BornBytes = [u8; size_of::<Born>()];

/// What is set before load.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Call sites of inner marks: global of the object and address.
    pub sites: Vec<(&'static str, u64)>,
    /// Whether functions will be probed.
    pub functions: bool,
    /// Which attempts are wanted.
    pub wishes: Filter,
    /// Size of the ring; rounded up to a power of two of whole pages.
    pub ring_bytes: u32,
    /// Tell every child's execs.
    pub execs: bool,
    /// Tell every child's end.
    pub exits: bool,
    /// The kernel side's debug lines.
    pub kernel_log: bool,
}

/// The loaded object, and what is attached of it.
pub struct Tracer {
    /// Owns programs and maps, and the links of functions.
    ebpf: Ebpf,
    types: &'static Btf,
    links: BTreeMap<Tracepoint, BtfTracePointLink>,
    counters: PerCpuArray<MapData, u64>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Names of the attached function programs.
    functions: Vec<String>,
    /// Time spent on loading them.
    loading: Duration,
}

impl Tracer {
    /// Loads the object and opens its maps; nothing is attached.
    ///
    /// # Errors
    /// [`UserError::Refused`] where the kernel says no.
    pub fn load(host: &Host, settings: &Settings) -> Result<(Self, RingBuf<MapData>)> {
        let mut ebpf = load(host, settings)?;
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
        let map = ebpf.map_mut("FILTER").context("find map FILTER in the eBPF object")?;
        let mut wishes: HashMap<_, FilterKey, u8> =
            HashMap::try_from(map).context("open map FILTER")?;
        for wish in &settings.wishes.wishes {
            wishes.insert(wish, 1, 0).context("set a filter")?;
        }
        let links = BTreeMap::new();
        Ok((
            Self {
                ebpf,
                types: types(host)?,
                links,
                counters,
                logger,
                functions: Vec::new(),
                loading: Duration::ZERO,
            },
            ring,
        ))
    }

    /// Attaches to the functions that bound a stage, each in the first way of `backend` that the
    /// kernel accepts, and notes in `host` what came of it.
    ///
    /// # Errors
    /// Why no function at all can be probed.
    pub fn probe(
        &mut self,
        host: &mut Host,
        backend: Backend,
        stages: &Stages,
    ) -> Result<(), String> {
        let ways = backend.functions();
        let began = Instant::now();
        self.loading = Duration::ZERO;
        let mut refused = BTreeMap::new();
        let mut done = BTreeMap::new();
        host.facts.probes = assumed(&host.candidates, &plan::functions(stages), ways);
        // What is refused changes what the other stages are bounded by, until nothing more is.
        loop {
            let plan =
                Plan::new(&host.facts, backend, stages).map_err(|error| error.to_string())?;
            let mut calls = plan.calls();
            calls.retain(|function, ends| done.get(function) != Some(ends));
            if calls.is_empty() {
                break;
            }
            for (function, ends) in calls {
                let Some(Ok(candidate)) = host.candidates.get(&function) else { continue };
                let had = done.get(&function).copied().unwrap_or_default();
                let probe = self.probe_one(function, candidate, ways, (had, ends), &mut refused);
                if ways.iter().all(|how| refused.contains_key(how)) {
                    let all = refused.iter().map(|(how, why)| format!("{}: {why}", how.name()));
                    return Err(all.collect::<Vec<_>>().join("; "));
                }
                if probe.is_ok() {
                    done.insert(function, ends);
                }
                host.facts.probes.insert(function, probe);
            }
        }
        host.facts.probes.retain(|function, probe| probe.is_err() || done.contains_key(function));
        let (count, loading) = (self.functions.len(), self.loading);
        let all = began.elapsed();
        log::info!("{count} programs of functions: loading {loading:.1?} of {all:.1?}");
        Ok(())
    }

    /// Attaches to those ends of one function that are wanted and were not had before; a way that
    /// the kernel does not have is put into `refused`.
    fn probe_one(
        &mut self,
        function: Function,
        candidate: &Candidate,
        ways: &[ProbeKind],
        (had, wanted): (Ends, Ends),
        refused: &mut BTreeMap<ProbeKind, String>,
    ) -> Result<Probe, String> {
        let mut reasons = Vec::new();
        for how in ways {
            if refused.contains_key(how) {
                continue;
            }
            let probe = candidate.probe(function, *how);
            let [enter, leave] = how.programs().map(|kind| format!("{kind}{}", function.row().id));
            let attached =
                candidate.allows(*how).map_err(|reason| anyhow!(reason)).and_then(|()| {
                    // The return first: an entry that is seen then meets it.
                    if wanted.leave && !had.leave {
                        self.function(&leave, candidate.name)?;
                    }
                    if wanted.enter && !had.enter {
                        self.function(&enter, candidate.name)?;
                    }
                    Ok(())
                });
            let Err(error) = attached else { return Ok(probe) };
            let reason = brief(&error);
            if general(*how, &error) {
                refused.insert(*how, reason.clone());
            }
            reasons.push(format!("{}: {reason}", how.name()));
        }
        Err(reasons.join("; "))
    }

    /// Loads and attaches one program of a function.
    fn function(&mut self, program: &str, function: &'static str) -> Result<()> {
        let btf = self.types;
        let began = Instant::now();
        let found = self.ebpf.program_mut(program);
        let found = found.with_context(|| format!("find program {program} in the object"))?;
        match found {
            Program::FEntry(fentry) => fentry.load(function, btf),
            Program::FExit(fexit) => fexit.load(function, btf),
            Program::KProbe(kprobe) => kprobe.load(),
            _ => return Err(anyhow!("{program} is for no function")),
        }
        .map_err(load_error)?;
        self.loading += began.elapsed();
        let attached = match found {
            Program::FEntry(fentry) => fentry.attach().map(drop),
            Program::FExit(fexit) => fexit.attach().map(drop),
            Program::KProbe(kprobe) => kprobe.attach(function, 0).map(drop),
            _ => Ok(()),
        };
        attached.map_err(|error| anyhow!(error))?;
        log::debug!("attached {program}");
        self.functions.push(program.to_owned());
        Ok(())
    }

    /// Attaches the plan's tracepoints, in its order.
    ///
    /// # Errors
    /// [`UserError::Refused`] where the kernel says no; otherwise what was tried, and the end of the
    /// verifier's log.
    pub fn attach(&mut self, plan: &Plan) -> Result<()> {
        for tracepoint in &plan.tracepoints {
            let link = attach_one(&mut self.ebpf, self.types, *tracepoint)?;
            self.links.insert(*tracepoint, link);
        }
        Ok(())
    }

    /// Whether functions are probed: their links take the kernel long to close.
    #[must_use]
    pub fn is_slow_to_close(&self) -> bool {
        !self.functions.is_empty()
    }

    /// Runs of programs that the kernel skipped, by program.
    #[must_use]
    pub fn missed_runs(&self) -> BTreeMap<String, u64> {
        let fd = |(name, program): (_, &Program)| {
            let fd = match program {
                Program::BtfTracePoint(program) => program.fd(),
                Program::FEntry(program) => program.fd(),
                Program::FExit(program) => program.fd(),
                Program::KProbe(program) => program.fd(),
                _ => return None,
            };
            Some((name, fd.ok()?.as_fd().as_raw_fd()))
        };
        missed::by_program(self.ebpf.programs().filter_map(fd))
    }
}

/// Whether an error means that no function can be probed in this way.
fn general(how: ProbeKind, error: &anyhow::Error) -> bool {
    let no_kprobes = || !fs::exists("/sys/bus/event_source/devices/kprobe").unwrap_or(true);
    not_permitted(error) || matches!(how, ProbeKind::Kprobe) && no_kprobes()
}

/// Whether the kernel did not permit it.
fn not_permitted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// The last cause of an error, which says what the kernel said.
fn brief(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The programs of `inner`, writing down what happens inside this process's own forks.
pub struct Observer {
    _ebpf: Ebpf,
    _links: Vec<BtfTracePointLink>,
    count: Array<MapData, u32>,
    lessons: Array<MapData, call_site::Observation>,
}

impl Observer {
    /// Loads and attaches every program that teaches something on this host.
    ///
    /// # Errors
    /// As [`Tracer::load`].
    pub fn begin(host: &Host) -> Result<Self> {
        let tgid = std::process::id();
        let typed = u8::from(host.typed);
        let mut loader = loader(host)?;
        loader.override_global(TYPED, &typed, true);
        loader.override_global(LEARN_TGID, &tgid, true);
        loader.map_max_entries("RING", 4096);
        for unused in ["FOLLOW", "ATTEMPTS", "FUNCTION_TIMES", "ON_CPU", "BORN", "WAITS", "FILTER"]
        {
            loader.map_max_entries(unused, 1);
        }
        let log_level = 0u8;
        loader.override_global(aya_log::LEVEL, &log_level, false);
        let loaded = loader.load(OBJECT);
        let mut ebpf = loaded.map_err(|error| refused_or("create the maps", anyhow!(error)))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).with_context(|| format!("find map {name} in the eBPF object"))
        };
        let count = Array::try_from(take("OBSERVED_COUNT")?).context("open map OBSERVED_COUNT")?;
        let lessons = Array::try_from(take("OBSERVED")?).context("open map OBSERVED")?;
        let types = types(host)?;
        let teachers = host.facts.tracepoints.iter().filter(|at| at.teaches());
        let links = teachers.map(|at| attach_one(&mut ebpf, types, *at)).collect::<Result<_>>()?;
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
    pub fn take(&self) -> Result<Vec<call_site::Observation>> {
        let count = self.count.get(&0, 0).context("count the lessons")?;
        ensure!(
            count <= call_site::MOST_OBSERVATIONS,
            "{count} events inside one fork are too many"
        );
        (0..count).map(|place| self.lessons.get(&place, 0).context("read a lesson")).collect()
    }
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

fn loader(host: &Host) -> Result<EbpfLoader<'_>> {
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

fn load(host: &Host, settings: &Settings) -> Result<Ebpf> {
    let (execs, exits) = (u8::from(settings.execs), u8::from(settings.exits));
    let wishes = &settings.wishes;
    let follow = u8::from(!wishes.follow.is_empty());
    let (failed_only, properties) = (u8::from(wishes.failed_only), wishes.properties());
    // aya-log's levels: 0 is off and lets the verifier remove the statements, 4 is debug.
    let log_level = if settings.kernel_log { 4u8 } else { 0 };
    let typed = u8::from(host.typed);
    let calls = u8::from(settings.functions);
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
    loader.override_global(SITE_BITS, &site_bits, true);
    for (global, site) in &settings.sites {
        loader.override_global(global, site, true);
    }
    loader.override_global(FOLLOW_ONLY, &follow, true);
    loader.override_global(KINDS, &wishes.kinds, true);
    loader.override_global(FILTERED_BY, &properties, true);
    loader.override_global(FAILED_ONLY, &failed_only, true);
    loader.override_global(MIN_DURATION_NS, &wishes.least_ns, true);
    loader.override_global(FOLLOW_EXECS, &execs, true);
    loader.override_global(FOLLOW_EXITS, &exits, true);
    loader.override_global(FUNCTIONS_ON, &calls, true);
    for (global, arity) in &arities {
        // Not in the object where the function returns nothing.
        loader.override_global(global, arity, false);
    }
    loader.override_global(aya_log::LEVEL, &log_level, false);
    loader.map_max_entries("RING", settings.ring_bytes);
    if settings.execs || settings.exits {
        loader.map_max_entries("BORN", CHILDREN);
    }
    for (map, used) in [("FOLLOW", follow), ("FUNCTION_TIMES", calls)] {
        if used == 0 {
            loader.map_max_entries(map, 1);
        }
    }
    loader.load(OBJECT).map_err(|error| refused_or("create the maps", anyhow!(error)))
}

fn attach_one(ebpf: &mut Ebpf, types: &Btf, tracepoint: Tracepoint) -> Result<BtfTracePointLink> {
    let name = tracepoint.name();
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("find program {name} in the object"))?;
    let program: &mut BtfTracePoint =
        program.try_into().with_context(|| format!("{name} is no BTF tracepoint"))?;
    let what = format!("load the program for tracepoint {name}");
    program.load(name, types).map_err(|error| refused_or(&what, load_error(error)))?;
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
    pub fn attempts_with_child(&self) -> Result<u64> {
        let map = self.ebpf.map("ATTEMPTS").context("find map ATTEMPTS in the eBPF object")?;
        let flights: HashMap<_, u64, AttemptBytes> =
            HashMap::try_from(map).context("open map ATTEMPTS")?;
        let mut count = 0;
        for flight in flights.iter() {
            let (_, bytes) = flight.context("read map ATTEMPTS")?;
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
    pub fn still_without_exec(&self, child: &TaskIds) -> Result<bool> {
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

/// [`UserError::Refused`] where the kernel does not permit it, else the error with what was tried.
fn refused_or(what: &str, error: anyhow::Error) -> anyhow::Error {
    if not_permitted(&error) {
        let what = format!("{what}: operation not permitted");
        return UserError::Refused { what, lockdown: lockdown() }.into();
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
