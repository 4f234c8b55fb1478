//! One function per command; each reads as an outline.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use tokio::process::Child;

use crate::{
    advice::Advice,
    attach::Settings,
    cli::{self, Stages},
    command::{self, Caller},
    host::{self, Host},
    learn,
    live::{Limits, Live, Signals, Stop},
    pipeline::{Default, Outputs},
    plan::{Backend, Plan},
    replay::Replay,
    wishes::{self, Wishes},
};

/// Traces live; returns the exit status.
///
/// # Errors
/// See [`Advice`]; anything else is a failure nobody foresaw.
pub fn live(options: &cli::Live) -> Result<u8> {
    let since = Instant::now();
    host::check_capabilities()?;
    let caller = if options.as_root { None } else { Caller::of_sudo()? };
    let command = !options.cmd.is_empty();
    let default = if command { Default::Stderr } else { Default::Stdout };
    let outputs = Outputs::open(&options.output, default)?;
    let mut host = Host::read()?;
    log::info!("read the kernel's types after {:.1?}", since.elapsed());
    if options.backend != Backend::Tracepoint {
        host.facts.inner = learn::inner_marks(&mut host);
        log::info!("learned the inner marks after {:.1?}", since.elapsed());
    }
    let stages = options.output.stages.as_ref().unwrap_or(&Stages::All);
    let plan = Plan::new(&host.facts, options.backend, stages)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")?.block_on(async {
        // Before anything is attached: a signal must not end this process half way.
        let signals = Signals::new()?;
        let settings = Settings {
            wishes: Wishes::new(&options.wanted, command.then(std::process::id))?,
            ring_bytes: options.buffer,
            execs: options.exec,
            exits: options.exit,
            kernel_log: options.output.verbose >= 3,
        };
        let limits = Limits { duration: options.duration, max_events: options.max_events };
        let filters = wishes::filters(&options.wanted, command.then(|| words(&options.cmd)));
        let mut live = Live::begin(&host, plan, settings, filters, limits, outputs, since)?;
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

async fn trace(
    mut live: Live,
    mut child: Option<Child>,
    mut signals: Signals,
    fail_on_loss: bool,
) -> Result<u8> {
    let traced = live.run(&mut child, &mut signals).await;
    let lost = live.finish();
    // The command outlives a trace that was cut short.
    let status = match (&traced, &mut child) {
        (Ok(Stop::Command(status)), _) => Some(*status),
        (Ok(Stop::Signal), _) | (_, None) => None,
        (_, Some(child)) => Some(child.wait().await.context("wait for the command")?),
    };
    traced?;
    let records = lost?;
    if fail_on_loss && records > 0 {
        return Err(Advice::Lost { records }.into());
    }
    Ok(status.map_or(0, command::exit_status))
}

/// Shows a recorded trace; returns the exit status.
///
/// # Errors
/// [`Advice::Replay`] or [`Advice::Output`].
pub fn replay(file: &Path, options: &cli::Output) -> Result<u8> {
    let name = file.display().to_string();
    let mut outputs = Outputs::open(options, Default::Stdout)?;
    let reader: Box<dyn Read> =
        if name == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(file).map_err(|error| Advice::Replay {
                place: name.clone(),
                cause: error.to_string(),
            })?)
        };
    let mut replay = Replay::new(BufReader::new(reader), name);
    let shown = loop {
        match replay.next_event() {
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
