//! `fork-trace export`: a trace of the whole host that becomes metrics, for Prometheus, and recordings when something
//! goes wrong.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    cli::{
        CommandArgs, MeasureArgs, OutputArgs, RunArgs, TraceArgs, config, export_args::ExportArgs,
        trace::traced,
    },
    host::{counts, process::zombies},
    live::{
        report::{own_cpu_ns, sorts_of_loss},
        service::{Pulse, Service},
        signals::on_user_signal,
    },
    output::{
        formats::Format,
        metrics::{
            Counting, Metrics, Readings, Scope,
            server::{Answers, Server},
        },
        notes::Stderr,
        options::Color,
        outputs::{Outputs, print},
        recorder::{Handle, Recorder},
        sink::Sink,
    },
    plan::backend::Backend,
};

/// Zombies are counted no more often.
const BETWEEN_COUNTS: Duration = Duration::from_secs(10);

/// Serves metrics until a signal comes; returns the exit status.
///
/// # Errors
/// See [`UserError`](crate::error::UserError); anything else is a failure nobody foresaw.
pub fn export(typed: &ExportArgs) -> Result<u8> {
    let words: Vec<_> = std::env::args_os().collect();
    let args = match &typed.config {
        Some(file) => config::with_file(&words, file)?,
        None => typed.clone(),
    };
    if args.check {
        print("the configuration is right\n")?;
        return Ok(0);
    }
    let mut service = Service::of_environment()?;
    let server = Server::bind(args.listen)?;
    let address = server.address().context("ask for the address")?;
    let scope = Scope { top: usize::from(args.top), losses: sorts_of_loss() };
    let metrics = Arc::new(Mutex::new(Metrics::new(&scope)));
    let counting = Counting(Arc::clone(&metrics));
    let mut sinks: Vec<Box<dyn Sink + Send>> = vec![Box::new(counting)];
    let recorder = args.record.settings().map(Recorder::start).transpose()?;
    let of_recorder = recorder.as_ref().map(Recorder::handle);
    sinks.extend(recorder.map(|recorder| Box::new(recorder) as Box<dyn Sink + Send>));
    if let Some(recorder) = of_recorder.clone() {
        on_user_signal(move || recorder.signal())?;
    }
    let is_named = of_recorder.is_some();
    let notes: Vec<_> = args.filter.notes().collect();
    traced(
        &trace_of(args),
        |_, _, _| Outputs::only("metrics", sinks),
        |trace| {
            let (pulse, of_health) = (service.pulse(), service.pulse());
            let answers = Answers {
                metrics,
                readings: readings(pulse, of_recorder),
                is_alive: Box::new(move || of_health.is_alive()),
            };
            server.start(answers).context("start the server")?;
            let mut said = Stderr::patient();
            for note in [format!("metrics at http://{address}/metrics")].iter().chain(&notes) {
                // Nobody listens: nothing to be done.
                writeln!(said, "fork-trace: {note}").ok();
            }
            service.ready();
            Ok((trace.serving(service, is_named), Vec::new()))
        },
    )
}

/// The trace that is counted.
fn trace_of(args: ExportArgs) -> TraceArgs {
    TraceArgs {
        command: CommandArgs { cmd: Vec::new(), as_root: false },
        filter: args.filter,
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
            stages: Some(args.stages),
            per_stage: false,
            tree: false,
            format: Format::text(),
            json: false,
            files: Vec::new(),
            summary: None,
            color: Color::Never,
            utc: false,
            quiet: true,
            verbose: args.verbose,
        },
        run: RunArgs {
            duration: None,
            max_events: None,
            buffer: Some(args.buffer),
            fail_on_loss: false,
        },
    }
}

/// Reads what is not counted from attempts. To count zombies takes a look at every process, so this is not done
/// for each scrape where many come.
fn readings(pulse: Arc<Pulse>, recorder: Option<Handle>) -> Box<dyn FnMut() -> Readings + Send> {
    let (mut counted, mut zombies) = (None::<Instant>, None);
    Box::new(move || {
        if counted.is_none_or(|at| at.elapsed() >= BETWEEN_COUNTS) {
            (counted, zombies) = (Some(Instant::now()), zombies::by_parent().ok());
        }
        Readings {
            zombies: zombies.clone(),
            stuck: Some(pulse.stuck()),
            kernel_forks: counts::kernel_forks().ok(),
            cpu_ns: own_cpu_ns().ok(),
            recorder: recorder.as_ref().map(Handle::counts),
        }
    })
}
