//! Feeds a recording.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::recording::entries;
use anyhow::{Context as _, Result, bail, ensure};
use fork_trace::{
    assemble::decode::{Record, decode},
    event::clock::Clock,
    host::{call_sites::all_unknown, facts::Facts, features::Features, tracepoint::Tracepoint},
    live::{
        kernel_side::KernelSide,
        stream::{Followed, Stream},
        stuck::StuckAttempts,
        waits::Waits,
    },
    output::{
        formats::Format,
        options::{Color, DefaultOutput, OutputOptions},
        outputs::Outputs,
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
    let (mut entries, span_ns) = of_one_caller(recording)?;
    let format = Format::of_file(&output).context("the ending of the output names no format")?;
    let options = OutputOptions {
        format,
        files: vec![output],
        owner: None,
        stages: false,
        summary: false,
        color: Color::Never,
        utc: true,
        quiet: true,
    };
    let mut outputs = Outputs::open(&options, DefaultOutput::Stdout, None, &|| false)?;
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

fn stream(plan: Plan) -> Stream {
    let clock = Clock::new(Timestamp::UNIX_EPOCH, 0);
    let followed = Followed { by_outcome: false, exits: true, min_held_ns: 0 };
    let (stuck, waits) = (StuckAttempts::new(Vec::new(), 0), Waits::new(&[]));
    Stream::new(plan, Features::default(), clock, stuck, waits, followed, None)
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

/// What a recording has of the process that forked most and of its children; and how long that took.
///
/// A time is a word that lies between the first attempt and the last entry: nothing else that is recorded
/// comes near the time since the host was started.
fn of_one_caller(recording: Vec<Vec<u8>>) -> Result<(Vec<Entry>, u64)> {
    let records = recording.iter().map(|entry| decode(entry)).collect::<Result<Vec<_>>>()?;
    let mut attempts: HashMap<u32, u64> = HashMap::new();
    for record in &records {
        if let Record::Fork(fork) = record {
            *attempts.entry(fork.parent.tgid).or_default() += 1;
        }
    }
    let most = attempts.into_iter().max_by_key(|(_, count)| *count);
    let (caller, _) = most.context("the recording has no attempt")?;
    let key = |child: &TaskIds| (child.tid, child.start_ns);
    let (mut children, mut first_ns) = (HashSet::new(), u64::MAX);
    for record in &records {
        if let Record::Fork(fork) = record
            && fork.parent.tgid == caller
        {
            children.insert(key(&fork.child));
            first_ns = first_ns.min(fork.start_ns);
        }
    }
    let is_kept = |record: &Record| match record {
        Record::Fork(fork) => fork.parent.tgid == caller,
        Record::Program(program) => program.tgid == caller,
        Record::Start(start) => children.contains(&key(&start.child)),
        Record::FollowUp(record) => children.contains(&key(&record.born.child)),
        Record::Exec(exec) => children.contains(&key(&exec.life.born.child)),
        // Most attempts have none, and a plain one is what is measured.
        Record::Functions(_) | Record::Refusal(_) | Record::Waits(_) | Record::Sample(_) => false,
    };
    let kept: Vec<_> =
        recording.iter().zip(&records).filter(|(_, record)| is_kept(record)).collect();
    let words = |entry: &[u8]| -> Vec<u64> {
        entry.chunks_exact(8).flat_map(<[u8; 8]>::try_from).map(u64::from_ne_bytes).collect()
    };
    let ended_ns = kept.iter().filter_map(|(_, record)| match record {
        Record::Start(start) => Some(start.return_ns),
        Record::FollowUp(record) => Some(record.at_ns),
        _ => None,
    });
    let last_ns = ended_ns.max().context("the recording has no child")?;
    let entries = kept.into_iter().map(|(bytes, _)| {
        let words = words(bytes).into_iter().enumerate();
        let times = words.filter(|(_, word)| (first_ns..=last_ns).contains(word));
        Entry { times: times.map(|(place, _)| place * 8).collect(), bytes: bytes.clone() }
    });
    ensure!(last_ns > first_ns, "the recording holds one moment only");
    Ok((entries.collect(), last_ns - first_ns + PAUSE_NS))
}
