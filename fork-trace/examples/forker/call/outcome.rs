//! How a scenario ends: its attempts are in the journal, or the host cannot do it.

use std::io;

use crate::sys::{End, Errno};

/// Why a scenario could not be done on this host.
pub(crate) struct Skip(pub(crate) String);

/// What a scenario returns; its attempts are in the journal.
pub(crate) type Outcome = Result<(), Skip>;

impl Skip {
    /// A failed step and its errno.
    pub(crate) fn step(what: &str, errno: Errno) -> Self {
        Self(format!("{what}: {}", io::Error::from_raw_os_error(errno)))
    }
}

/// The outcome of a scenario that ran in a child: the child's exit status is the errno of the step
/// that failed.
pub(crate) fn judge(end: End) -> Outcome {
    match end {
        End::Exit(0) => Ok(()),
        End::Exit(errno) => Err(Skip::step("a step in a child", errno)),
        End::Signal(signal) => Err(Skip(format!("signal {signal} killed a child"))),
    }
}
