//! Learns the call sites of the inner marks: this process makes one fork, one vfork and one thread
//! of its own, while the kernel side observes what happens inside them.
//!
//! This module makes the attempts and reads the observations; `host::call_sites` draws the
//! conclusions.

use std::{process::Stdio, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::tp_btf::BtfTracePointLink,
};
use fork_trace_common::call_site::{self, LEARN_TGID};
use nix::{
    libc,
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

use crate::{
    bpf::{
        errors::refused_or,
        load::{OBJECT, small_loader, types},
        tracer::attach_all,
    },
    host::{
        Host,
        call_sites::{self, InnerMarks, Observations},
        process::OWN_PROGRAM,
    },
};

/// A second copy of the object, whose inner programs write down what happens inside this process's
/// own attempts.
pub(super) struct Observer {
    /// Keeps the object loaded.
    _ebpf: Ebpf,
    /// Keep the programs attached.
    _links: Vec<BtfTracePointLink>,
    /// How many observations there are.
    count: Array<MapData, u32>,
    /// The observations, in the order of time.
    observed: Array<MapData, call_site::Observation>,
}

impl Observer {
    /// Loads the object and attaches every program from which something can be learned on this
    /// host.
    ///
    /// # Errors
    /// The same as for [`Tracer::load`](super::tracer::Tracer::load) and
    /// [`Tracer::attach`](super::tracer::Tracer::attach).
    fn begin(host: &Host) -> Result<Self> {
        let tgid = host.ids.own().map_err(anyhow::Error::msg)?;
        let mut loader = small_loader(host)?;
        loader.override_global(LEARN_TGID, &tgid, true);
        let loaded = loader.load(OBJECT);
        let mut ebpf = loaded.map_err(|error| refused_or("create the maps", anyhow!(error)))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).with_context(|| format!("find map {name} in the eBPF object"))
        };
        let count = Array::try_from(take("OBSERVED_COUNT")?).context("open map OBSERVED_COUNT")?;
        let observed = Array::try_from(take("OBSERVED")?).context("open map OBSERVED")?;
        let types = types(host)?;
        let tracepoints = host.facts.tracepoints.iter().copied();
        let observed_at: Vec<_> = tracepoints.filter(|at| at.is_observed()).collect();
        let links = attach_all(&mut ebpf, types, &observed_at, &|| false)?;
        let links = links.into_iter().map(|(_, link)| link).collect();
        Ok(Self { _ebpf: ebpf, _links: links, count, observed })
    }

    /// Forgets all observations.
    ///
    /// # Errors
    /// The map cannot be written.
    fn clear(&mut self) -> Result<()> {
        self.count.set(0, 0, 0).context("clear the observations")
    }

    /// The observations since the last [`Self::clear`], in the order of time.
    ///
    /// # Errors
    /// The maps cannot be read, or there were more observations than fit.
    fn take(&self) -> Result<Vec<call_site::Observation>> {
        let count = self.count.get(&0, 0).context("count the observations")?;
        ensure!(
            count <= call_site::MOST_OBSERVATIONS,
            "{count} events inside one fork are too many"
        );
        (0..count)
            .map(|place| self.observed.get(&place, 0).context("read an observation"))
            .collect()
    }
}

/// Learns the call site of each inner mark, or the reason why a mark cannot be used.
pub(super) fn inner_marks(host: &Host) -> InnerMarks {
    let symbols = match &host.symbols {
        Ok(symbols) => symbols,
        Err(reason) => return call_sites::all_unknown(reason),
    };
    match observe(host) {
        Ok(observed) => call_sites::identify(&observed, symbols),
        Err(error) => call_sites::all_unknown(&format!("learning failed: {error:#}")),
    }
}

/// Makes the three attempts, and returns what was observed of each.
fn observe(host: &Host) -> Result<Observations> {
    let mut observer = Observer::begin(host)?;
    let mut of = |what: fn() -> Result<()>| {
        observer.clear()?;
        what()?;
        observer.take()
    };
    Ok(Observations { fork: of(a_fork)?, vfork: of(a_vfork)?, thread: of(a_thread)? })
}

fn a_fork() -> Result<()> {
    // SAFETY: the child calls only `_exit`.
    match unsafe { fork() }.context("make a fork to learn from")? {
        // SAFETY: the call ends the child at once, and the child has nothing to clean up.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            waitpid(child, None).context("wait for a fork to learn from")?;
            Ok(())
        }
    }
}

/// Starts this program again: std does that by `posix_spawn`, which makes a vfork.
fn a_vfork() -> Result<()> {
    let mut program = std::process::Command::new(OWN_PROGRAM);
    program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program.status().context("make a vfork to learn from")?;
    Ok(())
}

fn a_thread() -> Result<()> {
    let made = thread::Builder::new().spawn(|| ()).context("make a thread to learn from")?;
    // The thread does nothing that could panic.
    made.join().ok();
    Ok(())
}
