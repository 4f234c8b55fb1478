//! Everything that comes before a trace: learn the inner marks, load the object, probe functions,
//! and make the plan, each only if the backend needs it.

use std::time::Instant;

use anyhow::Result;

use crate::{
    bpf::{learn, load::Settings, ring::UnpolledRing, tracer::Tracer},
    host::{Host, facts::ProbedLibraries, functions::stages_on_stacks, libc::Found},
    plan::{self, Plan, backend::Backend, stages::Stages},
};

/// What is ready when the trace can begin.
pub struct Prepared {
    /// The loaded object. The probes of functions are attached, the tracepoints are not yet.
    pub tracer: Tracer,
    /// The ring that its programs write to.
    pub ring: UnpolledRing,
    /// Which tracepoints to attach, and which points bound each stage.
    pub plan: Plan,
}

/// Learns, loads, probes and plans, as far as `backend` needs it. The probes of functions are
/// attached here, before the tracepoints: they record nothing until an attempt has begun. `since`
/// is the start of this process, for the log. No more of them are
/// attached once `stop` says so; what is returned then is not fit for a trace.
///
/// # Errors
/// This host or this user cannot trace at all, or not by this backend.
pub fn prepare(
    host: &mut Host,
    backend: Backend,
    stages: &Stages,
    settings: Settings,
    since: Instant,
    stop: &dyn Fn() -> bool,
) -> Result<Prepared> {
    if backend.inner() {
        host.facts.inner = learn::inner_marks(host);
        log::info!("learned the inner marks after {:.1?}", since.elapsed());
    }
    let ways = backend.functions();
    let sites = plan::sites(&host.facts, backend, stages);
    let mut settings = Settings { sites, functions: !ways.is_empty(), ..settings };
    let (mut tracer, mut ring) = Tracer::load(host, &settings)?;
    log::info!("loaded the object after {:.1?}", since.elapsed());
    if settings.functions {
        if let Err(reason) = tracer.probe(host, backend, stages, stop) {
            // No function can be probed, so the object is loaded again without the maps for them.
            settings.functions = false;
            (tracer, ring) = Tracer::load(host, &settings)?;
            host.facts.probes.clear();
            host.facts.no_functions = Some(reason);
        }
        log::info!("probed functions after {:.1?}", since.elapsed());
    }
    if settings.sample_hz > 0 {
        let can_be_named = host.symbols.as_ref().map(|_| ()).map_err(Clone::clone);
        match can_be_named.and_then(|()| tracer.sample(settings.sample_hz)) {
            Ok(()) => {
                host.facts.sample_hz = settings.sample_hz;
                host.facts.sampled = stages_on_stacks(&host.candidates);
            }
            Err(reason) => host.facts.no_samples = Some(reason),
        }
    }
    if let Some(found) = settings.libc {
        let mut probed = probe_libraries(&mut tracer, found, host.cookies, stop);
        // Without cookies it could not be told which handler runs.
        if *stages == Stages::All && host.cookies {
            let loaded = tracer.load_handler_probes();
            probed.times_handlers = loaded.is_ok();
            if let Err(error) = loaded {
                log::info!("handlers of pthread_atfork cannot be timed: {error:#}");
            }
        }
        host.facts.libc = Some(probed);
    }
    let plan = Plan::new(&host.facts, backend, stages)?;
    Ok(Prepared { tracer, ring, plan })
}

/// Probes C libraries, as long as `stop` is not true.
fn probe_libraries(
    tracer: &mut Tracer,
    found: Found,
    cookies: bool,
    stop: &dyn Fn() -> bool,
) -> ProbedLibraries {
    for (name, reason) in &found.refused {
        log::info!("cannot probe {name}: {reason}");
    }
    let refused = found.refused;
    let mut probed = ProbedLibraries { refused, cookies, ..ProbedLibraries::default() };
    for library in found.libraries.iter().take_while(|_| !stop()) {
        if let Err(reason) = tracer.probe_libc(&mut probed, library) {
            probed.refused.push((library.name.clone(), reason));
        }
    }
    probed
}
