//! Learns where the inner marks are: this process makes one fork, one vfork and one thread of its own
//! while the kernel side writes down what happens inside them.
//!
//! The forks and the programs that watch them are here; what is concluded from the observations is
//! in `host::call_sites`.

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
        tracer::attach_one,
    },
    host::{
        Host,
        call_sites::{self, InnerMarks, Observations},
        process::OWN_PROGRAM,
    },
};

/// The programs of `inner`, writing down what happens inside this process's own forks.
pub struct Observer {
    _ebpf: Ebpf,
    _links: Vec<BtfTracePointLink>,
    count: Array<MapData, u32>,
    observed: Array<MapData, call_site::Observation>,
}

impl Observer {
    /// Loads and attaches every program that teaches something on this host.
    ///
    /// # Errors
    /// As [`Tracer::load`](super::tracer::Tracer::load).
    pub fn begin(host: &Host) -> Result<Self> {
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
        let taught_by = host.facts.tracepoints.iter().filter(|at| at.teaches());
        let links = taught_by.map(|at| attach_one(&mut ebpf, types, *at)).collect::<Result<_>>()?;
        Ok(Self { _ebpf: ebpf, _links: links, count, observed })
    }

    /// Forgets what was written.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.count.set(0, 0, 0).context("clear the observations")
    }

    /// What was written since.
    ///
    /// # Errors
    /// The maps cannot be read, or there was more than fits.
    pub fn take(&self) -> Result<Vec<call_site::Observation>> {
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

/// Learns where the inner marks are; a mark that cannot be learned says why.
pub fn inner_marks(host: &Host) -> InnerMarks {
    let symbols = match &host.symbols {
        Ok(symbols) => symbols,
        Err(reason) => return call_sites::all_unknown(reason),
    };
    match observe(host) {
        Ok(observed) => call_sites::identify(&observed, symbols),
        Err(error) => call_sites::all_unknown(&format!("learning failed: {error:#}")),
    }
}

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
    // SAFETY: the child calls nothing but `_exit`.
    match unsafe { fork() }.context("make a fork to learn from")? {
        // SAFETY: ends the child at once, with nothing to clean up.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            waitpid(child, None).context("wait for a fork to learn from")?;
            Ok(())
        }
    }
}

/// std starts programs by `posix_spawn`, which makes a vfork.
fn a_vfork() -> Result<()> {
    let mut program = std::process::Command::new(OWN_PROGRAM);
    program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program.status().context("make a vfork to learn from")?;
    Ok(())
}

fn a_thread() -> Result<()> {
    let made = thread::Builder::new().spawn(|| ()).context("make a thread to learn from")?;
    // It does nothing that could panic.
    made.join().ok();
    Ok(())
}
