//! The way into a trace: learns, loads, probes functions and plans, as far as the backend says.

use std::time::Instant;

use anyhow::Result;

use crate::{
    bpf::{learn, load::Settings, ring::UnpolledRing, tracer::Tracer},
    host::Host,
    plan::{self, Plan, backend::Backend, stages::Stages},
};

/// What can be attached now.
pub struct Prepared {
    /// The loaded object; function probes are attached, tracepoints are not.
    pub tracer: Tracer,
    /// The ring that its programs write to.
    pub ring: UnpolledRing,
    /// What to attach, and what each stage is bounded by.
    pub plan: Plan,
}

/// Learns, loads and probes as far as `backend` says. Function probes are attached here and come
/// first: they mark nothing before an attempt has begun. No more of them are attached once `stop` says
/// so; what is returned then is not fit for a trace.
///
/// # Errors
/// This host or user cannot trace, or not by this backend.
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
            // Without functions the kernel side does without what is kept for them.
            settings.functions = false;
            (tracer, ring) = Tracer::load(host, &settings)?;
            host.facts.probes.clear();
            host.facts.no_functions = Some(reason);
        }
        log::info!("probed functions after {:.1?}", since.elapsed());
    }
    let plan = Plan::new(&host.facts, backend, stages)?;
    Ok(Prepared { tracer, ring, plan })
}
