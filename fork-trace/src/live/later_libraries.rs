//! C libraries that come while tracing: a program that starts may map one that is not probed yet, as in a container.

use std::collections::VecDeque;

use foldhash::HashSet;
use fork_trace_common::libc::AtforkRecord;

use crate::{
    host::{
        facts::ProbedLibraries,
        libc::{MOST, others_of, program_of},
    },
    live::kernel_side::KernelSide,
};

/// A program has mapped its library so long after its start: what maps it runs in user space.
const MAPPED_NS: u64 = 5_000_000;
/// How many programs that have just started are looked at.
const STARTED: usize = 1024;
/// How many programs are remembered as looked at.
const LOOKED_AT: usize = 4096;

/// Programs whose libraries are to be looked at.
#[derive(Default)]
pub(super) struct LaterLibraries {
    /// Process ids as /proc has them, and when to look.
    started: VecDeque<(u32, u64)>,
    /// Programs that were looked at: device and inode.
    looked_at: HashSet<(u64, u64)>,
}

impl LaterLibraries {
    /// A process may have begun another program.
    pub(super) fn push(&mut self, record: &AtforkRecord, now_ns: u64) {
        if record.execs != 0 && record.proc_pid != 0 && self.started.len() < STARTED {
            self.started.push_back((record.proc_pid, now_ns + MAPPED_NS));
        }
    }

    /// Looks at the programs that are due by `now_ns`, and probes the libraries that are new.
    pub(super) fn probe(
        &mut self,
        kernel: &mut dyn KernelSide,
        probed: &mut ProbedLibraries,
        now_ns: u64,
    ) {
        while let Some((pid, _)) = self.started.pop_front_if(|(_, due_ns)| *due_ns <= now_ns) {
            let Some(program) = program_of(pid) else { continue };
            if self.looked_at.contains(&program) {
                continue;
            }
            // Before the loader has mapped it there is nothing to see, and another run may show it.
            let Some(found) = others_of(pid, &probed.files) else { continue };
            if self.looked_at.len() >= LOOKED_AT {
                self.looked_at.clear();
            }
            self.looked_at.insert(program);
            let mut refused = found.refused;
            for library in found.libraries {
                let done = match probed.names.len() < MOST {
                    true => kernel.probe_libc(probed, &library),
                    false => Err(format!("{MOST} others are probed already")),
                };
                refused.extend(done.err().map(|reason| (library.name, reason)));
            }
            for (name, reason) in refused {
                log::info!("cannot probe {name}: {reason}");
            }
        }
    }
}
