//! Loads and attaches the programs of kernel functions.
//!
//! Whether a function can be probed is seen only when a program is attached to it. Where the kernel
//! refuses one, the stages around it have to be bounded by other points. So the plan is made again
//! until it needs no function that has not been tried.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use aya::programs::Program;
use fork_trace_common::function::Function;

use crate::{
    bpf::{
        errors::{brief, load_error, not_permitted},
        tracer::Tracer,
    },
    host::{
        Host,
        features::has_kprobes,
        functions::{Candidate, Probe, ProbeKind, assumed},
    },
    plan::{self, Ends, Plan, backend::Backend, stages::Stages},
};

impl Tracer {
    /// Attaches to every function that bounds a stage, in the first way of `backend` that the
    /// kernel accepts, and puts into `host` the probe, or the reason why there is none. It leaves
    /// off where `stop` says so.
    ///
    /// # Errors
    /// The reason why no function at all can be probed.
    pub(super) fn probe(
        &mut self,
        host: &mut Host,
        backend: Backend,
        stages: &Stages,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let ways = backend.functions();
        let began = Instant::now();
        self.loading = Duration::ZERO;
        let mut refused = BTreeMap::new();
        let mut done = BTreeMap::new();
        host.facts.probes = assumed(&host.candidates, &plan::functions(stages), ways);
        // A refused function changes the bounds of other stages, which may then need functions that
        // have not been tried.
        loop {
            let plan =
                Plan::new(&host.facts, backend, stages).map_err(|error| error.to_string())?;
            let mut wanted = plan.function_ends();
            wanted.retain(|function, ends| done.get(function) != Some(ends));
            if wanted.is_empty() {
                break;
            }
            for (function, ends) in wanted {
                if stop() {
                    return Ok(());
                }
                let Some(Ok(candidate)) = host.candidates.get(&function) else { continue };
                let had = done.get(&function).copied().unwrap_or_default();
                let probe = self.probe_one(function, candidate, ways, (had, ends), &mut refused);
                if ways.iter().all(|how| refused.contains_key(how)) {
                    let all = refused.iter().map(|(how, why)| format!("{}: {why}", how.name()));
                    return Err(all.collect::<Vec<_>>().join("; "));
                }
                if probe.is_ok() {
                    done.insert(function, ends);
                }
                host.facts.probes.insert(function, probe);
            }
        }
        host.facts.probes.retain(|function, probe| probe.is_err() || done.contains_key(function));
        let (count, loading) = (self.functions.len(), self.loading);
        let all = began.elapsed();
        log::info!("{count} programs of functions: loading {loading:.1?} of {all:.1?}");
        Ok(())
    }

    /// Attaches to those ends of one function that are wanted and are not attached yet. A way in
    /// which no function can be probed is put into `refused`, with the reason.
    fn probe_one(
        &mut self,
        function: Function,
        candidate: &Candidate,
        ways: &[ProbeKind],
        (had, wanted): (Ends, Ends),
        refused: &mut BTreeMap<ProbeKind, String>,
    ) -> Result<Probe, String> {
        let mut reasons = Vec::new();
        for how in ways {
            if refused.contains_key(how) {
                continue;
            }
            let probe = candidate.probe(function, *how);
            let [enter, leave] = how.programs().map(|kind| format!("{kind}{}", function.row().id));
            let attached =
                candidate.allows(*how).map_err(|reason| anyhow!(reason)).and_then(|()| {
                    // The return is attached first, so that no entry is seen without its return.
                    if wanted.leave && !had.leave {
                        self.function(&leave, candidate.name)?;
                    }
                    if wanted.enter && !had.enter {
                        self.function(&enter, candidate.name)?;
                    }
                    Ok(())
                });
            let Err(error) = attached else { return Ok(probe) };
            let reason = brief(&error);
            if general(*how, &error) {
                refused.insert(*how, reason.clone());
            }
            reasons.push(format!("{}: {reason}", how.name()));
        }
        Err(reasons.join("; "))
    }

    /// Loads and attaches one program of a function.
    fn function(&mut self, program: &str, function: &'static str) -> Result<()> {
        let btf = self.types;
        let began = Instant::now();
        let found = self.ebpf.program_mut(program);
        let found = found.with_context(|| format!("find program {program} in the object"))?;
        match found {
            Program::FEntry(fentry) => fentry.load(function, btf),
            Program::FExit(fexit) => fexit.load(function, btf),
            Program::KProbe(kprobe) => kprobe.load(),
            _ => return Err(anyhow!("{program} is for no function")),
        }
        .map_err(load_error)?;
        self.loading += began.elapsed();
        let attached = match found {
            Program::FEntry(fentry) => fentry.attach().map(drop),
            Program::FExit(fexit) => fexit.attach().map(drop),
            Program::KProbe(kprobe) => kprobe.attach(function, 0).map(drop),
            _ => Ok(()),
        };
        attached.map_err(|error| anyhow!(error))?;
        log::debug!("attached {program}");
        self.functions.push(program.to_owned());
        Ok(())
    }
}

/// Whether an error means that no function at all can be probed in this way.
fn general(how: ProbeKind, error: &anyhow::Error) -> bool {
    not_permitted(error) || matches!(how, ProbeKind::Kprobe) && !has_kprobes()
}
