//! What the plan needs to know of a host.

use std::collections::BTreeSet;

use fork_trace_common::{libc::LibcFunction, stage::Stage};

use crate::host::{
    call_sites::InnerMarks, functions::Probes, libc::Library, tracepoint::Tracepoint,
};

/// The C libraries that are probed.
#[derive(Clone, Debug, Default)]
pub struct ProbedLibraries {
    /// Their names, in the order of the numbers by which the kernel side knows them.
    pub names: Vec<String>,
    /// Their files: device and inode of each.
    pub files: BTreeSet<(u64, u64)>,
    /// The functions that at least one of them shows.
    pub functions: BTreeSet<LibcFunction>,
    /// Those that cannot be probed, each with the reason.
    pub refused: Vec<(String, String)>,
    /// A library without debug symbols, if there is one.
    pub stripped: Option<String>,
    /// Whether the kernel tells which library a probe is in.
    pub cookies: bool,
    /// Whether each handler that a program registers is timed.
    pub times_handlers: bool,
}

impl ProbedLibraries {
    /// Adds one that was probed.
    pub fn add(&mut self, library: &Library) {
        self.names.push(library.name.clone());
        self.files.insert(library.file);
        self.functions.extend(library.functions.iter().map(|(function, _)| *function));
        if !library.has_debug_symbols {
            self.stripped.get_or_insert_with(|| library.name.clone());
        }
    }
}

/// What the plan needs to know of a host. These are plain values without I/O, so that tests can
/// make up a host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The tracepoints to which BTF programs can attach.
    pub tracepoints: BTreeSet<Tracepoint>,
    /// Children do not pass the `sys_exit` tracepoint on their first way to user space.
    pub no_child_exit: bool,
    /// The kernel release, for messages.
    pub release: String,
    /// The call sites of the inner marks, once they were learned.
    pub inner: InnerMarks,
    /// The probes of functions, once it was tried to attach them.
    pub probes: Probes,
    /// The reason why no function at all can be probed; `None` where some can, or where that was
    /// not tried.
    pub no_functions: Option<String>,
    /// How many samples of kernel stacks are taken a second on each CPU; 0: none.
    pub sample_hz: u32,
    /// The stages of which those can tell.
    pub sampled: BTreeSet<Stage>,
    /// The reason why no samples can be taken; `None` where they can, or where that was not tried.
    pub no_samples: Option<String>,
    /// The C libraries that are probed; `None` where that was not asked for.
    pub libc: Option<ProbedLibraries>,
}
