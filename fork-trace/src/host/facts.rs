//! What the plan needs to know of a host, without any I/O behind it.

use std::collections::BTreeSet;

use crate::host::{call_sites::InnerMarks, functions::Probes, tracepoint::Tracepoint};

/// What the plan needs to know: no I/O behind it, so that tests can make one up.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Tracepoints to which BTF programs can attach.
    pub tracepoints: BTreeSet<Tracepoint>,
    /// Kernel release, for messages.
    pub release: String,
    /// Where the inner marks are, once that was learned.
    pub inner: InnerMarks,
    /// What came of probing functions, once that was tried.
    pub probes: Probes,
    /// Why no function at all can be probed.
    pub no_functions: Option<String>,
}
