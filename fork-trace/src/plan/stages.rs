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
    /// Only these stages; without any, only what an attempt came to, how long it took in all, why it
    /// failed, and its child's start.
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

    /// Whether no stage is to be measured.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(stages) if stages.is_empty())
    }
}
