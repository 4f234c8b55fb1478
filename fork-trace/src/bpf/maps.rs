//! Reads the object's maps: counters, attempts that have not ended, and children that are followed.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapError};
use fork_trace_common::{
    counter::Counter,
    follow_up::{Born, state},
    record::{ForkRecord, TaskIds, bits},
};
use zerocopy::FromBytes as _;

use crate::bpf::tracer::Tracer;

/// A record of an attempt, as the value of a map.
type AttemptBytes = [u8; size_of::<ForkRecord>()];

/// A child that is followed, as the value of a map.
type BornBytes = [u8; size_of::<Born>()];

impl Tracer {
    /// The value of a counter, summed up over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        let values = self.counters.get(&(counter as u32), 0);
        let values = values.with_context(|| format!("read counter {counter:?}"))?;
        Ok(values.iter().sum())
    }

    /// How many attempts have not been submitted yet: all of them, and those that have made a task.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn attempts_under_way(&self) -> Result<(u64, u64)> {
        let map = self.ebpf.map("ATTEMPTS").context("find map ATTEMPTS in the eBPF object")?;
        let attempts: HashMap<_, u64, AttemptBytes> =
            HashMap::try_from(map).context("open map ATTEMPTS")?;
        let (mut all, mut with_child) = (0, 0);
        for attempt in attempts.iter() {
            let (_, bytes) = attempt.context("read map ATTEMPTS")?;
            let record = ForkRecord::read_from_bytes(&bytes).ok().context("decode an attempt")?;
            all += 1;
            with_child += u64::from(record.has(bits::CHILD));
        }
        Ok((all, with_child))
    }

    /// Whether a child of a process with threads is alive and has not run another program since its
    /// fork.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn still_without_exec(&self, child: &TaskIds) -> Result<bool> {
        let map = self.ebpf.map("BORN").context("find map BORN in the eBPF object")?;
        let born: HashMap<_, u32, BornBytes> = HashMap::try_from(map).context("open map BORN")?;
        let bytes = match born.get(&child.tgid, 0) {
            Err(MapError::KeyNotFound) => return Ok(false),
            bytes => bytes.context("read map BORN")?,
        };
        let born = Born::read_from_bytes(&bytes).ok().context("decode a child")?;
        Ok(born.child.start_ns == child.start_ns && born.state & state::EXECED == 0)
    }
}
