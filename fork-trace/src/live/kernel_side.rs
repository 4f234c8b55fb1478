//! What the chain asks of the kernel side while it shows attempts.

use std::path::Path;

use anyhow::Result;
use fork_trace_common::{
    counter::Counter,
    holder::{HolderSeen, HoldersOf},
    record::TaskIds,
};

use crate::{
    bpf::tracer::Tracer,
    host::{facts::ProbedLibraries, libc::Library},
};

/// The answers to what the chain asks while it shows attempts. In a live trace the [`Tracer`] gives
/// them; a benchmark that feeds recorded bytes has answers of its own, and needs neither rights nor a
/// kernel.
pub trait KernelSide {
    /// The value of a counter, summed up over all CPUs.
    ///
    /// # Errors
    /// It cannot be read.
    fn counter(&self, counter: Counter) -> Result<u64>;

    /// Whether a thread that has forked is not back in user space.
    ///
    /// # Errors
    /// The maps cannot be read.
    fn still_held(&self, caller: &TaskIds) -> Result<bool>;

    /// Whether a child is alive and has not run another program since its fork.
    ///
    /// # Errors
    /// The map cannot be read.
    fn still_without_exec(&self, child: &TaskIds) -> Result<bool>;

    /// The tasks that fill a limit, as they are now.
    ///
    /// # Errors
    /// The kernel does not list them.
    fn holders(&mut self, of: HoldersOf) -> Result<Vec<HolderSeen>>;

    /// Probes a C library beside those that are `probed`, to which it is added.
    ///
    /// # Errors
    /// The reason why that cannot be done.
    fn probe_libc(&mut self, probed: &mut ProbedLibraries, library: &Library)
    -> Result<(), String>;

    /// Probes a handler of `pthread_atfork` that lies at `offset` of the file at `path`; `number` is what its runs
    /// are told by.
    ///
    /// # Errors
    /// The reason why that cannot be done.
    fn probe_handler(&mut self, number: u32, path: &Path, offset: u64) -> Result<(), String>;
}

impl KernelSide for Tracer {
    fn counter(&self, counter: Counter) -> Result<u64> {
        Self::counter(self, counter)
    }

    fn still_held(&self, caller: &TaskIds) -> Result<bool> {
        Self::still_held(self, caller)
    }

    fn still_without_exec(&self, child: &TaskIds) -> Result<bool> {
        Self::still_without_exec(self, child)
    }

    fn holders(&mut self, of: HoldersOf) -> Result<Vec<HolderSeen>> {
        Self::holders(self, of)
    }

    fn probe_libc(
        &mut self,
        probed: &mut ProbedLibraries,
        library: &Library,
    ) -> Result<(), String> {
        Self::probe_libc(self, probed, library)
    }

    fn probe_handler(&mut self, number: u32, path: &Path, offset: u64) -> Result<(), String> {
        Self::probe_handler(self, number, path, offset)
    }
}
