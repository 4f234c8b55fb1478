//! One function per command; each reads as an outline.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Read, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use caps::{CapSet, Capability};
use tokio::process::Child;

use crate::{
    aside,
    attach::{Settings, Tracer},
    cause,
    cli::{self, Stages},
    command::{self, Caller},
    error::UserError,
    filter::{self, Filter},
    fork::Event,
    host::{self, Host},
    learn,
    live::{Ended, Followed, Limits, Live, Signals, Stop},
    pipeline::{Default, Outputs},
    plan::{self, Backend, Plan},
    probe,
    replay::Replay,
};

/// Traces live; returns the exit status.
///
/// # Errors
/// See [`UserError`]; anything else is a failure nobody foresaw.
pub fn live(options: &cli::Live) -> Result<u8> {
    let since = Instant::now();
    host::check_capabilities()?;
    let caller = if options.as_root { None } else { Caller::of_sudo()? };
    let command = !options.cmd.is_empty();
    let default = if command { Default::Stderr } else { Default::Stdout };
    let outputs = Outputs::open(&options.output, default)?;
    let mut host = Host::read()?;
    log::info!("read types and symbols of the kernel after {:.1?}", since.elapsed());
    let stages = options.output.stages.as_ref().unwrap_or(&Stages::Default);
    // Up to 5.14 processes are counted in `user_struct`, and looked at before credentials.
    host.features = probe::features(host.has_field("USER_PROCESSES"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")?.block_on(async {
        // Before anything is attached: a signal must not end this process half way.
        let signals = Signals::new()?;
        let settings = Settings {
            wishes: Filter::new(&options.wanted, command.then(std::process::id))?,
            ring_bytes: options.buffer,
            execs: options.exec,
            exits: options.exit,
            kernel_log: options.output.verbose >= 3,
            ..Settings::default()
        };
        let followed = Followed { by_outcome: settings.wishes.by_outcome(), exits: settings.exits };
        let (loaded, plan) = prepare(&mut host, options.backend, stages, settings, since)?;
        let limits = Limits { duration: options.duration, max_events: options.max_events };
        let filters = filter::filters(&options.wanted, command.then(|| words(&options.cmd)));
        let mut live =
            Live::begin(&host, plan, loaded, (filters, followed), limits, outputs, since)?;
        let mut child = None;
        if command {
            child = Some(command::start(&options.cmd, caller)?);
        }
        drop_capabilities()?;
        if !command {
            live.say(
                "tracing every fork of this host; `fork-trace doctor` shows what can be seen; \
                 Ctrl-C ends it",
            );
        }
        trace(live, child, signals, options.fail_on_loss).await
    })
}

/// Learns, loads and probes as far as `backend` says; what is attached first is what marks nothing
/// before an attempt has begun.
///
/// # Errors
/// This host or user cannot trace, or not by this backend.
pub fn prepare(
    host: &mut Host,
    backend: Backend,
    stages: &Stages,
    settings: Settings,
    since: Instant,
) -> Result<((Tracer, RingBuf<MapData>), Plan)> {
    if backend.inner() {
        host.facts.inner = learn::inner_marks(host);
        log::info!("learned the inner marks after {:.1?}", since.elapsed());
    }
    let ways = backend.functions();
    let sites = plan::sites(&host.facts, backend, stages);
    let mut settings = Settings { sites, functions: !ways.is_empty(), ..settings };
    let mut loaded = Tracer::load(host, &settings)?;
    log::info!("loaded the object after {:.1?}", since.elapsed());
    if settings.functions {
        if let Err(reason) = loaded.0.probe(host, backend, stages) {
            // Without functions the kernel side does without what is kept for them.
            settings.functions = false;
            loaded = Tracer::load(host, &settings)?;
            host.facts.probes.clear();
            host.facts.no_functions = Some(reason);
        }
        log::info!("probed functions after {:.1?}", since.elapsed());
    }
    let plan = Plan::new(&host.facts, backend, stages)?;
    Ok((loaded, plan))
}

async fn trace(
    mut live: Live,
    mut child: Option<Child>,
    mut signals: Signals,
    fail_on_loss: bool,
) -> Result<u8> {
    let traced = live.run(&mut child, &mut signals).await;
    let ended = live.finish();
    // The command outlives a trace that was cut short.
    let status = match (&traced, &mut child) {
        (Ok(Stop::Command(status)), _) => Some(*status),
        (Ok(Stop::Signal), _) | (_, None) => None,
        (_, Some(child)) => Some(child.wait().await.context("wait for the command")?),
    };
    traced?;
    let Ended { lost: records, tracer } = ended?;
    aside::leave(tracer)?;
    if fail_on_loss && records > 0 {
        return Err(UserError::Lost { records }.into());
    }
    Ok(status.map_or(0, command::exit_status))
}

/// Shows a recorded trace; returns the exit status.
///
/// # Errors
/// [`UserError::Replay`] or [`UserError::Output`].
pub fn replay(file: &Path, only: &cli::Only, options: &cli::Output) -> Result<u8> {
    let name = file.display().to_string();
    let mut outputs = Outputs::open(options, Default::Stdout)?;
    let reader: Box<dyn Read> =
        if name == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(file).map_err(|error| UserError::Replay {
                place: name.clone(),
                cause: error.to_string(),
            })?)
        };
    let mut replay = Replay::new(BufReader::new(reader), name);
    let shown = loop {
        match replay.next_event() {
            Ok(Some(Event::Fork(fork))) if !only.shows(&fork) => {}
            Ok(Some(event)) => outputs.event(&event),
            Ok(None) => break Ok(0),
            Err(error) => break Err(error),
        }
        if !outputs.is_open() {
            break Ok(0);
        }
    };
    outputs.flush()?;
    shown
}

/// Prints what the tables say of each word; returns the exit status.
///
/// # Errors
/// [`UserError::Unexplained`] or [`UserError::Output`].
pub fn explain(words: &[String], markdown: bool) -> Result<u8> {
    let known = |word: &String| {
        cause::explain::explain(word).ok_or_else(|| UserError::Unexplained { word: word.clone() })
    };
    let texts = match markdown {
        true => vec![cause::explain::page()],
        false => words.iter().map(known).collect::<Result<_, _>>()?,
    };
    let written = io::stdout().write_all(texts.join("\n").as_bytes());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let path = "standard output".to_owned();
            Err(UserError::Output { path, cause: error.to_string() }.into())
        }
        _ => Ok(0),
    }
}

fn words(command: &[OsString]) -> Vec<String> {
    command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Gives up what is no longer needed: reading maps, `/proc/PID/exe` of others and passing signals
/// on to the command remain.
fn drop_capabilities() -> Result<()> {
    const KEPT: [Capability; 5] = [
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_KILL,
    ];
    let permitted = caps::read(None, CapSet::Permitted).context("read own capabilities")?;
    let mut kept: HashSet<_> =
        KEPT.into_iter().filter(|capability| permitted.contains(capability)).collect();
    if !kept.contains(&Capability::CAP_BPF) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context("drop capabilities")?;
    }
    caps::clear(None, CapSet::Inheritable).context("drop inheritable capabilities")
}
