//! Lists the tasks of this process's pid namespace with the ids that the kernel has for them.

use std::io::Read as _;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::Iter;
use fork_trace_common::task_seen::{PROC_ABOVE, TaskSeen};
use zerocopy::FromBytes as _;

use crate::{
    bpf::{
        errors::{brief, load_error},
        load::{OBJECT, small_loader, types},
    },
    error::UserError,
    host::{
        Host, namespaces,
        process::ids::{self, Ids},
    },
};

/// The program, and the sort of iterator that it is.
const PROGRAM: &str = "tasks";
const KIND: &str = "task";

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
    let program = ebpf.program_mut(PROGRAM).context("find the iterator in the eBPF object")?;
    let program: &mut Iter = program.try_into().context("it is no iterator")?;
    program.load(KIND, types(host)?).map_err(load_error)?;
    let link = program.attach().context("attach the iterator")?;
    let link = program.take_link(link).context("take the iterator's link")?;
    let mut bytes = Vec::new();
    let mut file = link.into_file().context("open the iterator")?;
    file.read_to_end(&mut bytes).context("read the iterator")?;
    entries(&bytes)
}

fn entries(bytes: &[u8]) -> Result<Vec<TaskSeen>> {
    let entries = bytes.chunks(size_of::<TaskSeen>());
    let entries = entries.map(|entry| {
        TaskSeen::read_from_bytes(entry).map_err(|_short| anyhow!("an entry is cut short"))
    });
    let entries: Vec<_> = entries.collect::<Result<_>>()?;
    ensure!(!entries.is_empty(), "it lists no task");
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn entries_are_whole_or_refused() {
        let task = TaskSeen { tgid: 7, seen_tgid: 1, ..TaskSeen::default() };
        let bytes = [task.as_bytes(), task.as_bytes()].concat();
        assert_eq!(entries(&bytes).unwrap(), [task, task]);
        assert!(entries(&bytes[..bytes.len() - 1]).is_err());
        assert!(entries(&[]).is_err());
    }
}
