//! Which stages are wanted.

use std::collections::BTreeSet;

use fork_trace_common::stage::Stage;

/// Which stages to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stages {
    /// All whose cost outside of forks is small.
    Default,
    /// All that this host can show.
    All,
    /// These only.
    Only(BTreeSet<Stage>),
}

impl Stages {
    /// Whether `stage` is among them.
    #[must_use]
    pub fn wants(&self, stage: Stage) -> bool {
        match self {
            Self::Default | Self::All => true,
            Self::Only(stages) => stages.contains(&stage),
        }
    }
}
