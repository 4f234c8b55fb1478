//! `fork-trace export`: a trace of the whole host that becomes metrics, for Prometheus, and recordings when something
//! goes wrong.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};

#[cfg(feature = "otlp")]
use crate::{
    cli::export_args::OtlpArgs,
    output::otlp::{self, Otlp},
};
use crate::{
    cli::{
        config,
        export_args::ExportArgs,
        trace::{of_host, traced},
    },
    error::UserError,
    host::{counts, process::zombies},
    live::{
        report::{own_cpu_ns, sorts_of_loss},
        service::{Pulse, Service},
        signals::UserSignal,
    },
    output::{
        metrics::{
            Counting, Metrics, Readings, Scope, Shared,
            server::{Answers, Server},
        },
        notes::Stderr,
        outputs::{Outputs, print},
        recorder::{self, Recorder},
        sink::Sink,
    },
};

/// Zombies are counted no more often.
const BETWEEN_COUNTS: Duration = Duration::from_secs(10);

/// Serves metrics until a signal comes; returns the exit status.
///
/// # Errors
/// See [`UserError`]; anything else is a failure nobody foresaw.
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
    let mut beside = Beside::new(&args);
    // Before there are other threads.
    let signal = beside.recorder.as_ref().map(|_| UserSignal::hold()).transpose()?;
    let (is_named, handles) = (beside.is_named(), beside.handles());
    let notes: Vec<_> = args.filter.notes().collect();
    let (counted, pulse) = (Arc::clone(&metrics), service.pulse());
    let of_beside = handles.clone();
    traced(
        &of_host(args.filter, args.stages, args.buffer, args.verbose),
        |_, _, _| {
            let mut sinks: Vec<Box<dyn Sink + Send>> =
                vec![Box::new(Counting(Arc::clone(&counted)))];
            beside.start(counted, readings(pulse, of_beside))?;
            sinks.extend(beside.sinks());
            Outputs::only("metrics", sinks)
        },
        |trace| {
            let (pulse, of_health) = (service.pulse(), service.pulse());
            if let (Some(signal), Some(recorder)) = (signal, handles.recorder.clone()) {
                signal.listen(move || recorder.signal())?;
            }
            let answers = Answers {
                metrics,
                readings: readings(pulse, handles),
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

/// What is told beside the metrics: single attempts.
struct Beside {
    recorder: Option<Recorder>,
    #[cfg(feature = "otlp")]
    otlp: Option<(Otlp, OtlpArgs)>,
}

/// For those who look at what these did.
#[derive(Clone)]
struct Handles {
    recorder: Option<recorder::Handle>,
    #[cfg(feature = "otlp")]
    otlp: Option<otlp::Handle>,
}

impl Beside {
    fn new(args: &ExportArgs) -> Self {
        #[cfg(feature = "otlp")]
        let is_sent = args.otlp.endpoint.is_some();
        Self {
            recorder: args.record.settings().map(Recorder::new),
            #[cfg(feature = "otlp")]
            otlp: is_sent.then(|| (Otlp::default(), args.otlp.clone())),
        }
    }

    /// Whether names are looked up.
    const fn is_named(&self) -> bool {
        #[cfg(feature = "otlp")]
        if self.otlp.is_some() {
            return true;
        }
        self.recorder.is_some()
    }

    fn handles(&self) -> Handles {
        Handles {
            recorder: self.recorder.as_ref().map(Recorder::handle),
            #[cfg(feature = "otlp")]
            otlp: self.otlp.as_ref().map(|(otlp, _)| otlp.handle()),
        }
    }

    /// Starts their threads; one of them sends metrics, too.
    fn start(&mut self, metrics: Shared, readings: Reads) -> Result<(), UserError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.start()?;
        }
        #[cfg(feature = "otlp")]
        if let Some((otlp, OtlpArgs { endpoint: Some(endpoint), every })) = &self.otlp {
            return otlp.start(endpoint.clone(), *every, metrics, readings);
        }
        drop((metrics, readings));
        Ok(())
    }

    fn sinks(self) -> Vec<Box<dyn Sink + Send>> {
        let recorder = self.recorder.map(|recorder| Box::new(recorder) as Box<dyn Sink + Send>);
        let sinks = recorder.into_iter();
        #[cfg(feature = "otlp")]
        let sinks = sinks.chain(self.otlp.map(|(otlp, _)| Box::new(otlp) as Box<dyn Sink + Send>));
        sinks.collect()
    }
}

/// Reads what is not counted from attempts.
type Reads = Box<dyn FnMut() -> Readings + Send>;

/// To count zombies takes a look at every process, so this is not done for each scrape where many come.
fn readings(pulse: Arc<Pulse>, handles: Handles) -> Reads {
    let mut zombies = zombies::Counted::new(BETWEEN_COUNTS);
    Box::new(move || Readings {
        zombies: zombies.get(),
        stuck: Some(pulse.stuck()),
        kernel_forks: counts::kernel_forks().ok(),
        cpu_ns: own_cpu_ns().ok(),
        recorder: handles.recorder.as_ref().map(recorder::Handle::counts),
        #[cfg(feature = "otlp")]
        otlp: handles.otlp.as_ref().map(otlp::Handle::counts),
    })
}
