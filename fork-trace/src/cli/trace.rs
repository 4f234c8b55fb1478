//! `fork-trace` itself: a live trace, from the options to the exit status.

use std::{
    ffi::OsString, io::Write as _, os::unix::ffi::OsStrExt as _, path::PathBuf, time::Instant,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::process::Child;

use crate::{
    bpf::{
        detach,
        filter::Filter,
        load::{Settings, ring_bytes},
        prepare::{Prepared, prepare},
        tasks,
    },
    cli::{
        CommandArgs, MeasureArgs, OutputArgs, RunArgs, SAMPLE_HZ, TraceArgs,
        filter_args::FilterArgs,
        help::{definition, subcommands},
        reported,
    },
    error::UserError,
    event::{bytes::text, filters::Filters},
    host::{
        Host,
        callers_path::on_path,
        features, heap, hurry,
        libc::{Found, found},
        rights, surroundings,
    },
    live::{
        Ended, Stop, Trace,
        before::Before,
        command::{self, Caller},
        signals::{self, HeldSignals, Signals},
        wanted::{Followed, Limits, Wanted},
    },
    output::{
        formats::Format,
        notes::Stderr,
        options::{Color, DefaultOutput, OutputOptions},
        outputs::Outputs,
    },
    plan::{backend::Backend, stages::Stages},
};

/// The trace of a command that shows attempts in its own way: the whole host, with waits, and no other output.
pub(super) fn of_host(filter: FilterArgs, stages: Stages, buffer: u32, verbose: u8) -> TraceArgs {
    TraceArgs {
        command: CommandArgs { cmd: Vec::new(), as_root: false },
        filter,
        measure: MeasureArgs {
            backend: Backend::Auto,
            sample: None,
            waits: true,
            no_waits: false,
            libc: Vec::new(),
            stacks: false,
            exec: false,
            exit: false,
        },
        output: OutputArgs {
            stages: Some(stages),
            per_stage: false,
            tree: false,
            format: Format::text(),
            json: false,
            files: Vec::new(),
            summary: None,
            color: Color::Never,
            utc: false,
            quiet: true,
            verbose,
        },
        run: RunArgs {
            duration: None,
            max_events: None,
            buffer: Some(buffer),
            fail_on_loss: false,
        },
    }
}

/// Traces live; returns the exit status.
///
/// # Errors
/// See [`UserError`]; anything else is a failure nobody foresaw.
pub fn trace(args: &TraceArgs) -> Result<u8> {
    command::look_for(&args.command.cmd, &subcommands(&definition()))?;
    args.output.options().check()?;
    let open = |options: &OutputOptions, default, stop: &dyn Fn() -> bool| {
        Outputs::open(options, default, None, stop)
    };
    traced(args, open, |trace| Ok((trace, beginning(args))))
}

/// The same for any outputs: `open` opens them before anything is attached, and `begun` is called with the trace
/// that began; it returns what is to be said of it, too.
pub(super) fn traced(
    args: &TraceArgs,
    open: impl FnOnce(&OutputOptions, DefaultOutput, &dyn Fn() -> bool) -> Result<Outputs, UserError>,
    begun: impl FnOnce(Trace) -> Result<(Trace, Vec<String>)>,
) -> Result<u8> {
    let since = Instant::now();
    let held = HeldSignals::new()?;
    surroundings::check()?;
    rights::check_capabilities()?;
    let caller = Caller::of_sudo()?;
    let mut host = Host::read()?;
    log::info!("read types and symbols of the kernel after {:.1?}", since.elapsed());
    // Up to 5.14 processes are counted in `user_struct`, and looked at before credentials.
    host.features = features::features(host.has_field("USER_PROCESSES"));
    let command = &args.command.cmd;
    tasks::identify(&mut host)?;
    let mut filters = args.filter.filters((!command.is_empty()).then(|| words(command)));
    host.ids.translate(&mut filters);
    let stages = args.output.stages.as_ref().unwrap_or(&Stages::Default);
    let no_waits = args.measure.no_waits;
    let stacks = args.measure.stacks || args.output.options().needs_stacks();
    // Samples tell of stages only.
    let settings = Settings {
        filter: Filter::new(&filters, &host.ids)?,
        ring_bytes: ring_bytes(args.run.buffer, host.info.cpus),
        libc: libraries(args, &filters)?,
        no_waits,
        sample_hz: match args.measure.sample {
            _ if stages.is_none() || no_waits => 0,
            sample => sample.unwrap_or(SAMPLE_HZ),
        },
        stacks,
        execs: args.measure.exec || args.output.tree,
        exits: args.measure.exit || args.output.tree,
        kernel_log: args.output.verbose >= 3,
        ..Settings::default()
    };
    let followed = Followed {
        by_outcome: settings.filter.by_outcome(),
        exits: settings.exits,
        min_held_ns: settings.filter.min_duration_ns,
        threads_left: args.output.summary.is_some(),
    };
    let limits = Limits { duration: args.run.duration, max_events: args.run.max_events };
    let ring_bytes = settings.ring_bytes;
    let wanted = Wanted { filters, followed, limits, no_waits, stacks, ring_bytes, since };
    let stop = || held.arrived().is_some();
    let prepared = prepare(&mut host, args.measure.backend, stages, settings, since, &stop);
    if let Some(signal) = held.arrived() {
        return interrupted(signal, prepared.ok());
    }
    let mut prepared = prepared?;
    // Only now: whatever can be wrong has been looked at, and no file is made or emptied for nothing.
    let default = if command.is_empty() { DefaultOutput::Stdout } else { DefaultOutput::Stderr };
    let owner = caller.as_ref().map(Caller::ids);
    let options = OutputOptions { owner, ..args.output.options() };
    let outputs = match (open(&options, default, &stop), held.arrived()) {
        (Ok(outputs), None) => outputs,
        (_, Some(signal)) => return interrupted(signal, Some(prepared)),
        (Err(error), None) => {
            detach::leave(prepared.tracer)?;
            return Err(error.into());
        }
    };
    let before = Before::look(&wanted, &mut host);
    prepared.tracer.attach(&prepared.plan, &stop)?;
    if let Some(signal) = held.arrived() {
        return interrupted(signal, Some(prepared));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")?.block_on(async {
        let (trace, notes) = begun(Trace::begin(&host, prepared, before, wanted, outputs)?)?;
        // The kernel's types and symbols are not needed any more. Without a command nobody waits, and it may last.
        drop(host);
        if command.is_empty() {
            heap::give_back();
        }
        let caller = caller.filter(|_| !args.command.as_root);
        run(trace, held, command, notes, caller, args.run.fail_on_loss).await
    })
}

/// A signal came before there was anything to trace; returns the exit status.
fn interrupted(signal: Signal, prepared: Option<Prepared>) -> Result<u8> {
    // Nobody listens: nothing to be done.
    writeln!(Stderr::patient(), "fork-trace: {signal} came before tracing began").ok();
    if let Some(prepared) = prepared {
        detach::leave(prepared.tracer)?;
    }
    Ok(signals::exit_status(signal))
}

/// What is said when a trace begins.
fn beginning(args: &TraceArgs) -> Vec<String> {
    let whole = args.filter.filters(None) == Filters::default();
    let which = if whole { "every fork" } else { "the chosen forks" };
    let first = args.command.cmd.is_empty().then(|| {
        format!(
            "tracing {which} of this host; `fork-trace doctor` shows what can be seen; Ctrl-C ends it"
        )
    });
    first.into_iter().chain(args.filter.notes()).collect()
}

/// Starts the command, says `notes`, runs the trace to its end, and waits for a command that outlives it.
async fn run(
    mut trace: Trace,
    held: HeldSignals,
    command: &[OsString],
    notes: Vec<String>,
    caller: Option<Caller>,
    fail_on_loss: bool,
) -> Result<u8> {
    let mut child = None;
    let before = held.arrived();
    if let (Some(signal), false) = (before, command.is_empty()) {
        // Nobody listens: nothing to be done.
        writeln!(Stderr::patient(), "fork-trace: {signal} came before the command was started")
            .ok();
    } else if before.is_none() && !command.is_empty() {
        child = Some(command::start(command, caller, held.before())?);
        // One that arrived meanwhile did not reach the command, which was just being made.
        if let (Some(signal), Some(child)) = (held.arrived(), &child) {
            signals::pass_on(signal, child);
        }
    }
    // The command has been started, and so does not inherit it.
    hurry::allow();
    rights::drop_capabilities(trace.probes_more())?;
    let mut signals = held.release()?;
    for note in notes {
        trace.say(&note);
    }
    let traced = match before {
        Some(signal) => Ok(Stop::Signal(signal)),
        None => trace.run(&mut child, &mut signals).await,
    };
    let stopped = Instant::now();
    let hurried = !matches!(traced, Ok(Stop::Command(_) | Stop::Enough));
    let ended = trace.finish(hurried, child.as_ref(), &mut signals).await;
    log::info!("wrote what was left within {:.1?}", stopped.elapsed());
    let status = match (&traced, &mut child) {
        (Ok(Stop::Command(status)), _) => command::exit_status(*status),
        // The command goes on without us, or was never started.
        (Ok(Stop::Signal(signal)), _) if !command.is_empty() => signals::exit_status(*signal),
        (Ok(Stop::Signal(_)), _) | (_, None) => 0,
        (_, Some(_)) if let Ok(Ended { ending: Some(signal), .. }) = &ended => {
            signals::exit_status(*signal)
        }
        // The command outlives a trace that was cut short.
        (_, Some(child)) => wait(child, &mut signals).await?,
    };
    traced?;
    let Ended { lost: records, failed, tracer, .. } = ended?;
    detach::leave(tracer)?;
    reported(failed)?;
    if fail_on_loss && records > 0 {
        return Err(UserError::Lost { records }.into());
    }
    Ok(status)
}

/// Waits for the command, as long as no signal says otherwise; returns the exit status.
async fn wait(child: &mut Child, signals: &mut Signals) -> Result<u8> {
    loop {
        let signal = tokio::select! {
            status = child.wait() => {
                return status.map(command::exit_status).context("wait for the command");
            }
            signal = signals.next() => signal,
        };
        if !signals.passed_on(signal, Some(child)) {
            return Ok(signals::exit_status(signal));
        }
    }
}

/// The C libraries to probe, if that is wanted.
fn libraries(args: &TraceArgs, filters: &Filters) -> Result<Option<Found>, UserError> {
    if args.measure.libc.is_empty() {
        return Ok(None);
    }
    let named = args.measure.libc.iter().filter(|path| !path.is_empty());
    let named: Vec<_> = named.map(PathBuf::from).collect();
    let command = args.command.cmd.first().and_then(|program| on_path(program));
    // What a command runs may be seen only later; what processes run already is a good guess.
    let pids = (!filters.pids.is_empty()).then_some(filters.pids.as_slice());
    found(&named, command.as_deref(), pids).map(Some)
}

fn words(command: &[OsString]) -> Vec<String> {
    command.iter().map(|word| text(word.as_bytes())).collect()
}
