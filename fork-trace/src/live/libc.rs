//! Why no wrapper of the C library was seen around an attempt.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use foldhash::HashMap;
use fork_trace_common::record::{ForkRecord, bits};

use crate::{
    event::{
        fork::Fork,
        libc::{Libc, Unseen},
    },
    host::libc::{files_of, files_of_program, runs},
};

/// How many programs are remembered.
const MOST: usize = 4096;

/// The reasons, by process id, its start, and its program: a process maps its C library when it starts a
/// program.
#[derive(Default)]
pub(super) struct UnseenWrappers {
    reasons: HashMap<(u32, u64, Arc<str>), Unseen>,
}

impl UnseenWrappers {
    /// Adds the reason to an attempt that a program made, if no wrapper was seen around it. `files` are the
    /// libraries that are probed.
    pub(super) fn add(
        &mut self,
        fork: &mut Fork,
        record: &ForkRecord,
        files: &BTreeSet<(u64, u64)>,
    ) {
        if fork.libc.is_some() || !record.has(bits::ENTERED) || record.has(bits::LIBC) {
            return;
        }
        let reason = match fork.parent.exe.clone() {
            // It may run another program by the next time.
            None => reason(record, None, files),
            Some(exe) => {
                let program =
                    (record.parent.tgid, record.parent_process_start_ns, Arc::clone(&exe));
                if self.reasons.len() >= MOST && !self.reasons.contains_key(&program) {
                    self.reasons.clear();
                }
                *self.reasons.entry(program).or_insert_with(|| reason(record, Some(&exe), files))
            }
        };
        fork.libc = Some(Libc {
            library: None,
            function: None,
            prepare_ns: None,
            parent_ns: None,
            child_ns: None,
            stages: Vec::new(),
            handlers: Vec::new(),
            reason: Some(reason),
        });
    }
}

fn reason(record: &ForkRecord, program: Option<&str>, files: &BTreeSet<(u64, u64)>) -> Unseen {
    let pid = Some(record.parent_proc_pid).filter(|pid| *pid != 0);
    // By now the process may run another program, whose mappings say nothing of this one.
    let runs = |pid: &u32| program.is_none_or(|path| runs(*pid, Path::new(path)));
    let of_process = pid.and_then(|pid| files_of(pid).filter(|_| runs(&pid)));
    // A program that is gone was most likely started from a file that is still there.
    let of_program = || program.and_then(|path| files_of_program(Path::new(path)));
    match of_process.or_else(of_program) {
        None => Unseen::Unknown,
        Some(mapped) if mapped.is_empty() => Unseen::NoLibrary,
        Some(mapped) if mapped.iter().any(|file| files.contains(file)) => Unseen::NotByWrapper,
        Some(_) => Unseen::NotProbed,
    }
}
