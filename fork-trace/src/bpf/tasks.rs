//! Lists tasks by the kernel's iterators: those of this process's pid namespace with the ids that the
//! kernel has for them, and those that fill a limit.

use std::io::Read as _;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{Btf, Ebpf, maps::Array, programs::Iter};
use fork_trace_common::{
    holder::{HolderSeen, HoldersOf},
    task_seen::{PROC_ABOVE, TaskSeen},
};
use zerocopy::FromBytes;

use crate::{
    bpf::{
        errors::{brief, load_error},
        load::{OBJECT, small_loader, types},
        tracer::Tracer,
    },
    error::UserError,
    host::{
        Host, namespaces,
        process::ids::{self, Ids},
    },
};

/// The programs, and the sort of iterator that they are.
const TASKS: &str = "tasks";
const HOLDERS: &str = "holders";
const KIND: &str = "task";

/// As many bytes of an iterator are read at most.
const MOST_BYTES: u64 = 16 << 20;

/// Learns how this process's pid namespace gives ids, unless it is the initial one. It comes before
/// everything that takes an id from the user or looks one up.
///
/// # Errors
/// [`UserError::Surroundings`]: the kernel does not list the tasks.
pub fn identify(host: &mut Host) -> Result<()> {
    if namespaces::is_initial("pid") {
        return Ok(());
    }
    let listed = list(host).map(Ids::Listed).and_then(|ids| {
        ids.own().map_err(anyhow::Error::msg)?;
        Ok(ids)
    });
    host.ids = listed.map_err(|error| UserError::Surroundings {
        what: format!(
            "this process is in a pid namespace of its own, and the kernel does not tell which ids \
             of it are which of its own: {}",
            brief(&error)
        ),
        cure: "run it in the host's pid namespace: docker run --pid=host, hostPID: true in \
               Kubernetes, or nsenter --target 1 --pid --mount on the host"
            .to_owned(),
    })?;
    Ok(())
}

fn list(host: &Host) -> Result<Vec<TaskSeen>> {
    let above = ids::levels_above().unwrap_or(0);
    let mut loader = small_loader(host)?;
    loader.override_global(PROC_ABOVE, &above, true);
    let mut ebpf = loader.load(OBJECT).context("create the maps")?;
    let entries = entries(&read(&mut ebpf, TASKS, types(host)?)?)?;
    ensure!(!entries.is_empty(), "it lists no task");
    Ok(entries)
}

impl Tracer {
    /// The tasks that fill a limit, as they are now.
    ///
    /// # Errors
    /// The kernel does not list them, or they are more than some 200,000.
    pub fn holders(&mut self, of: HoldersOf) -> Result<Vec<HolderSeen>> {
        let map = self.ebpf.map_mut("HOLDERS_OF").context("find map HOLDERS_OF")?;
        let mut map: Array<_, HoldersOfBytes> = Array::try_from(map).context("open HOLDERS_OF")?;
        map.set(0, HoldersOfBytes(of), 0).context("say whose tasks are asked for")?;
        entries(&read(&mut self.ebpf, HOLDERS, self.types)?)
    }
}

/// [`HoldersOf`] as the value of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct HoldersOfBytes(HoldersOf);

// SAFETY: it is plain numbers without padding.
unsafe impl aya::Pod for HoldersOfBytes {}

/// Everything that an iterator of the object writes. Its program is loaded when it is first read.
fn read(ebpf: &mut Ebpf, name: &str, types: &Btf) -> Result<Vec<u8>> {
    let program = ebpf.program_mut(name).context("find the iterator in the eBPF object")?;
    let program: &mut Iter = program.try_into().context("it is no iterator")?;
    if program.fd().is_err() {
        program.load(KIND, types).map_err(load_error)?;
    }
    let link = program.attach().context("attach the iterator")?;
    let link = program.take_link(link).context("take the iterator's link")?;
    let mut bytes = Vec::new();
    let file = link.into_file().context("open the iterator")?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).context("read the iterator")?;
    ensure!((bytes.len() as u64) < MOST_BYTES, "it lists more tasks than are read");
    Ok(bytes)
}

fn entries<T: FromBytes>(bytes: &[u8]) -> Result<Vec<T>> {
    let entries = bytes.chunks(size_of::<T>());
    let entries = entries
        .map(|entry| T::read_from_bytes(entry).map_err(|_short| anyhow!("an entry is cut short")));
    entries.collect()
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn entries_are_whole_or_refused() {
        let task = TaskSeen { tgid: 7, seen_tgid: 1, ..TaskSeen::default() };
        let bytes = [task.as_bytes(), task.as_bytes()].concat();
        assert_eq!(entries::<TaskSeen>(&bytes).unwrap(), [task, task]);
        assert!(entries::<TaskSeen>(&bytes[..bytes.len() - 1]).is_err());
    }
}
