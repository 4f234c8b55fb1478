//! Feeds a recording.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use fork_trace::{
    assemble::decode::{Record, decode},
    event::{
        Event,
        clock::Clock,
        filters::Filters,
        start::{HostInfo, SCHEMA_VERSION, Start},
        summary::Summary,
        values::Name,
    },
    host::{
        call_sites::all_unknown,
        facts::{Facts, ProbedLibraries},
        features::Features,
        libc::Library,
        tracepoint::Tracepoint,
    },
    live::{
        kernel_side::KernelSide, stream::Stream, stuck::StuckAttempts, waits::Waits,
        wanted::Followed,
    },
    output::{
        formats::Format,
        options::{Color, DefaultOutput, OutputOptions},
        outputs::Outputs,
        told::Told,
    },
    plan::{Plan, backend::Backend, stages::Stages},
};
use fork_trace_common::{
    counter::Counter,
    holder::{HolderSeen, HoldersOf},
    record::{RecordKind, TaskIds},
};
use jiff::Timestamp;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

use crate::recording::entries;

/// Entries that are handed over at once, as in a live trace.
const BATCH: usize = 4096;
/// How much later than its last entry a recording begins again.
const PAUSE_NS: u64 = 1000;

/// A kernel side of which nothing was lost, and which holds nobody.
struct Quiet;

impl KernelSide for Quiet {
    fn counter(&self, _counter: Counter) -> Result<u64> {
        Ok(0)
    }

    fn still_held(&self, _caller: &TaskIds) -> Result<bool> {
        Ok(false)
    }

    fn still_without_exec(&self, _child: &TaskIds) -> Result<bool> {
        Ok(false)
    }

    fn holders(&mut self, _of: HoldersOf) -> Result<Vec<HolderSeen>> {
        Ok(Vec::new())
    }

    fn probe_libc(&mut self, _: &mut ProbedLibraries, _: &Library) -> Result<(), String> {
        Ok(())
    }

    fn probe_handler(&mut self, _number: u32, _path: &Path, _offset: u64) -> Result<(), String> {
        Ok(())
    }
}

/// One entry of the ring.
struct Entry {
    bytes: Vec<u8>,
    /// Where its times stand.
    times: Vec<usize>,
}

impl Entry {
    fn is_attempt(&self) -> bool {
        self.bytes.first_chunk() == Some(&(RecordKind::Fork as u32).to_ne_bytes())
    }

    /// Makes it later, and says when it is now.
    fn delay(&mut self, ns: u64) -> u64 {
        let mut last_ns = 0;
        for at in &self.times {
            let word = self.bytes.get_mut(*at..).and_then(|rest| rest.first_chunk_mut());
            let Some(word) = word else { continue };
            let at_ns = u64::from_ne_bytes(*word) + ns;
            *word = at_ns.to_ne_bytes();
            last_ns = last_ns.max(at_ns);
        }
        last_ns
    }
}

/// Feeds the recording in `path` until `forks` attempts went through, and says what they cost.
pub(crate) fn feed(path: &Path, forks: u64, output: PathBuf) -> Result<String> {
    let recording = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let recording = entries(&recording)?;
    let plan = plan(&recording)?;
    let (mut entries, span_ns) = timed(recording)?;
    let format = Format::of_file(&output).context("the ending of the output names no format")?;
    let options = OutputOptions {
        told: Told::Forks,
        format,
        files: vec![output],
        owner: None,
        stages: false,
        summary: None,
        color: Color::Never,
        utc: true,
        quiet: true,
    };
    let mut outputs = Outputs::open(&options, DefaultOutput::Stdout, None, &|| false)?;
    outputs.event(Event::Start(Box::new(start(&plan))));
    let mut stream = stream(plan);
    let mut kernel = Quiet;
    let began = Instant::now();
    let (mut fed, mut last_ns, mut in_batch) = (0, 0, 0);
    while fed < forks {
        for entry in &mut entries {
            last_ns = entry.delay(span_ns).max(last_ns);
            stream.take(&entry.bytes, last_ns);
            fed += u64::from(entry.is_attempt());
            in_batch += 1;
            if in_batch < BATCH && fed < forks {
                continue;
            }
            in_batch = 0;
            stream.arrange(&kernel, last_ns, fed == forks);
            while let Some(event) = stream.next_event(&mut kernel, last_ns)? {
                _ = outputs.wait_for_room(None);
                outputs.event(event);
            }
            stream.next_batch();
            outputs.tick();
            if fed == forks {
                break;
            }
        }
    }
    outputs.summary(Summary::default());
    let closed = outputs.finish(None);
    let took = began.elapsed();
    if let Some(error) = closed.failed.into_iter().next() {
        bail!(error);
    }
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("read the resource usage")?;
    let cpu_ns = 1000 * (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(serde_json::json!({
        "forks": fed,
        "wall_ns": u64::try_from(took.as_nanos())?,
        "cpu_ns": cpu_ns,
        "max_rss_kib": usage.max_rss(),
    })
    .to_string())
}

/// The first line of the stream: of a host that is no real one.
fn start(plan: &Plan) -> Start {
    let nobody = String::new;
    Start {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ts: clock().at(0),
        mono_ns: 0,
        host: HostInfo {
            name: nobody(),
            kernel: nobody(),
            arch: nobody(),
            cpus: 0,
            boot_id: nobody(),
        },
        backend: Name::Borrowed(plan.backend.name()),
        filters: Filters::default(),
        sample_hz: None,
        waits: None,
        stacks: None,
        ring_bytes: None,
        coverage: plan.coverage.clone(),
    }
}

const fn clock() -> Clock {
    Clock::new(Timestamp::UNIX_EPOCH, 0)
}

fn stream(plan: Plan) -> Stream {
    let followed = Followed { by_outcome: false, exits: true, min_held_ns: 0, threads_left: false };
    let (stuck, waits) = (StuckAttempts::new(Vec::new(), 0), Waits::new(&[], true));
    Stream::new(plan, Features::default(), clock(), stuck, waits, followed, None)
}

/// The plan of a host that sees the marks which the recording has.
fn plan(recording: &[Vec<u8>]) -> Result<Plan> {
    let mut inner = all_unknown("it is not in the recording");
    for entry in recording {
        let Record::Fork(fork) = decode(entry)? else { continue };
        for (mark, site) in &mut inner {
            if fork.marks.get(*mark as usize).is_some_and(|at| *at != 0) {
                *site = Ok(0);
            }
        }
    }
    let tracepoints = Tracepoint::ALL.iter().copied().collect();
    let facts = Facts { tracepoints, inner, ..Facts::default() };
    Ok(Plan::new(&facts, Backend::Auto, &Stages::Default)?)
}

/// The entries with the places of their times, and how long all of it took.
///
/// A time is a word that lies between the first attempt and the last entry: nothing else that is recorded
/// comes near the time since the host was started.
fn timed(recording: Vec<Vec<u8>>) -> Result<(Vec<Entry>, u64)> {
    let (mut first_ns, mut last_ns) = (u64::MAX, 0);
    for entry in &recording {
        match decode(entry)? {
            Record::Fork(fork) => first_ns = first_ns.min(fork.start_ns),
            Record::Start(start) => last_ns = last_ns.max(start.return_ns),
            Record::FollowUp(record) => last_ns = last_ns.max(record.at_ns),
            _ => {}
        }
    }
    ensure!(last_ns > first_ns, "the recording has no attempt and its child's end");
    let entries = recording.into_iter().map(|bytes| {
        let words = bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes).enumerate();
        let times = words.filter(|(_, word)| (first_ns..=last_ns).contains(word));
        Entry { times: times.map(|(place, _)| place * 8).collect(), bytes }
    });
    Ok((entries.collect(), last_ns - first_ns + PAUSE_NS))
}
