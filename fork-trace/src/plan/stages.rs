//! Which stages the user wants to measure.

use std::collections::BTreeSet;

use fork_trace_common::stage::Stage;

/// The stages to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stages {
    /// All stages, without the probes that cost much outside of forks.
    Default,
    /// All stages that this host can show.
    All,
    /// Only these stages.
    Only(BTreeSet<Stage>),
}

impl Stages {
    /// Whether `stage` is to be measured. `Default` includes every stage; it leaves out only
    /// functions whose probes cost too much.
    #[must_use]
    pub fn wants(&self, stage: Stage) -> bool {
        match self {
            Self::Default | Self::All => true,
            Self::Only(stages) => stages.contains(&stage),
        }
    }
}
