//! Reads the object's maps: counters, attempts that have not ended, and children that are followed.

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use fork_trace_common::{
    counter::Counter,
    follow_up::{Born, state},
    record::{ForkRecord, TaskIds, bits},
    wait::WaitsRecord,
};
use zerocopy::FromBytes as _;

use crate::bpf::tracer::Tracer;

/// A record of an attempt, as the value of a map.
type AttemptBytes = [u8; size_of::<ForkRecord>()];

/// A task's waits, as the value of a map.
type OffCpuBytes = [u8; size_of::<WaitsRecord>()];
/// The time off the CPU of a task, if it has any.
type OffCpu = Option<Box<WaitsRecord>>;

/// A child that is followed, as the value of a map.
type BornBytes = [u8; size_of::<Born>()];

impl Tracer {
    /// A map of the object, to be read.
    fn hash_map<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<&MapData, K, V>> {
        let map = self.ebpf.map(name);
        let map = map.with_context(|| format!("find map {name} in the eBPF object"))?;
        HashMap::try_from(map).with_context(|| format!("open map {name}"))
    }

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
        let attempts = self.hash_map::<u64, AttemptBytes>("ATTEMPTS")?;
        let (mut all, mut with_child) = (0, 0);
        for attempt in attempts.iter() {
            let (_, bytes) = attempt.context("read map ATTEMPTS")?;
            let record = ForkRecord::read_from_bytes(&bytes).ok().context("decode an attempt")?;
            all += 1;
            with_child += u64::from(record.has(bits::CHILD));
        }
        Ok((all, with_child))
    }

    /// Attempts under way that began before `before_ns` (`CLOCK_MONOTONIC`), each with the time off the
    /// CPU of its thread, if it has any; those that wait for their restart are not among them.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn attempts_since(&self, before_ns: u64) -> Result<Vec<(Box<ForkRecord>, OffCpu)>> {
        let attempts = self.hash_map::<u64, AttemptBytes>("ATTEMPTS")?;
        let mut found = Vec::new();
        for attempt in attempts.iter() {
            let (key, bytes) = attempt.context("read map ATTEMPTS")?;
            let record = ForkRecord::read_from_bytes(&bytes).ok().context("decode an attempt")?;
            let entered = record.has(bits::ENTERED) && !record.has(bits::RESTARTING);
            if entered && record.start_ns < before_ns {
                found.push((Box::new(record), self.off_cpu(key)?));
            }
        }
        Ok(found)
    }

    /// Vforks whose callers wait for children that were woken before `before_ns`, as above.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn vforks_since(&self, before_ns: u64) -> Result<Vec<(u64, Born, OffCpu)>> {
        let waits = self.hash_map::<u64, BornBytes>("WAITS")?;
        let mut found = Vec::new();
        for wait in waits.iter() {
            let (key, bytes) = wait.context("read map WAITS")?;
            let born = Born::read_from_bytes(&bytes).ok().context("decode a child")?;
            if born.began_ns < before_ns {
                found.push((key, born, self.off_cpu(key)?));
            }
        }
        Ok(found)
    }

    /// The time off the CPU of the task with this key, while it is inside a fork.
    fn off_cpu(&self, key: u64) -> Result<OffCpu> {
        let off = self.hash_map::<u64, OffCpuBytes>("OFF_CPU")?;
        let bytes = match off.get(&key, 0) {
            Err(MapError::KeyNotFound) => return Ok(None),
            bytes => bytes.context("read map OFF_CPU")?,
        };
        let record = WaitsRecord::read_from_bytes(&bytes).ok().context("decode waits")?;
        Ok(Some(Box::new(record)))
    }

    /// Whether a thread that has forked is not back in user space: it waits for its vfork child, or
    /// left its CPU on its way back.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn still_held(&self, caller: &TaskIds) -> Result<bool> {
        let key = u64::from(caller.tgid) << 32 | u64::from(caller.tid);
        let waits = self.hash_map::<u64, BornBytes>("WAITS")?;
        let off = self.hash_map::<u64, OffCpuBytes>("OFF_CPU")?;
        Ok(waits.get(&key, 0).is_ok() || off.get(&key, 0).is_ok())
    }

    /// Whether a child of a process with threads is alive and has not run another program since its
    /// fork.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn still_without_exec(&self, child: &TaskIds) -> Result<bool> {
        let born = self.hash_map::<u32, BornBytes>("BORN")?;
        let bytes = match born.get(&child.tgid, 0) {
            Err(MapError::KeyNotFound) => return Ok(false),
            bytes => bytes.context("read map BORN")?,
        };
        let born = Born::read_from_bytes(&bytes).ok().context("decode a child")?;
        Ok(born.child.start_ns == child.start_ns && born.state & state::EXECED == 0)
    }
}
