//! `fork-trace` itself: a live trace, from the options to the exit status.

use std::{ffi::OsString, time::Instant};

use anyhow::{Context as _, Result};
use tokio::process::Child;

use crate::{
    bpf::{detach, filter::Filter, load::Settings, prepare::prepare},
    cli::TraceArgs,
    error::UserError,
    host::{Host, features, rights},
    live::{
        Ended, Limits, Stop, Trace, Wanted,
        command::{self, Caller},
        signals::Signals,
        stream::Followed,
    },
    output::{options::DefaultOutput, outputs::Outputs},
    plan::stages::Stages,
};

/// Traces live; returns the exit status.
///
/// # Errors
/// See [`UserError`]; anything else is a failure nobody foresaw.
pub fn trace(args: &TraceArgs) -> Result<u8> {
    let since = Instant::now();
    rights::check_capabilities()?;
    let caller = if args.command.as_root { None } else { Caller::of_sudo()? };
    let cmd = &args.command.cmd;
    let default = if cmd.is_empty() { DefaultOutput::Stdout } else { DefaultOutput::Stderr };
    let outputs = Outputs::open(&args.output.options(), default)?;
    let mut host = Host::read()?;
    log::info!("read types and symbols of the kernel after {:.1?}", since.elapsed());
    let stages = args.output.stages.as_ref().unwrap_or(&Stages::Default);
    // Up to 5.14 processes are counted in `user_struct`, and looked at before credentials.
    host.features = features::features(host.has_field("USER_PROCESSES"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")?.block_on(async {
        // Before anything is attached: a signal must not end this process half way.
        let signals = Signals::new()?;
        let filters = args.filter.filters((!cmd.is_empty()).then(|| words(cmd)));
        let settings = Settings {
            filter: Filter::new(&filters)?,
            ring_bytes: args.run.buffer,
            execs: args.measure.exec,
            exits: args.measure.exit,
            kernel_log: args.output.verbose >= 3,
            ..Settings::default()
        };
        let followed = Followed { by_outcome: settings.filter.by_outcome(), exits: settings.exits };
        let prepared = prepare(&mut host, args.measure.backend, stages, settings, since)?;
        let limits = Limits { duration: args.run.duration, max_events: args.run.max_events };
        let wanted = Wanted { filters, followed, limits, since };
        let mut trace = Trace::begin(&host, prepared, wanted, outputs)?;
        let mut child = None;
        if !cmd.is_empty() {
            child = Some(command::start(cmd, caller)?);
        }
        rights::drop_capabilities()?;
        if cmd.is_empty() {
            trace.say(
                "tracing every fork of this host; `fork-trace doctor` shows what can be seen; \
                 Ctrl-C ends it",
            );
        }
        run(trace, child, signals, args.run.fail_on_loss).await
    })
}

/// Runs the trace to its end, and waits for a command that outlives it.
async fn run(
    mut trace: Trace,
    mut child: Option<Child>,
    mut signals: Signals,
    fail_on_loss: bool,
) -> Result<u8> {
    let traced = trace.run(&mut child, &mut signals).await;
    let ended = trace.finish();
    // The command outlives a trace that was cut short.
    let status = match (&traced, &mut child) {
        (Ok(Stop::Command(status)), _) => Some(*status),
        (Ok(Stop::Signal), _) | (_, None) => None,
        (_, Some(child)) => Some(child.wait().await.context("wait for the command")?),
    };
    traced?;
    let Ended { lost: records, tracer } = ended?;
    detach::leave(tracer)?;
    if fail_on_loss && records > 0 {
        return Err(UserError::Lost { records }.into());
    }
    Ok(status.map_or(0, command::exit_status))
}

fn words(command: &[OsString]) -> Vec<String> {
    command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}
