//! The programs under test.

use std::path::PathBuf;

use anyhow::Result;

use crate::build::programs::{build, fork_trace, forker};

/// fork-trace, and the program that makes forks of every kind.
pub(super) struct Programs {
    pub(super) fork_trace: PathBuf,
    pub(super) forker: PathBuf,
}

impl Programs {
    /// Builds them, unless `FORK_TRACE_BIN` and `FORKER_BIN` name what is built already.
    pub(super) fn find() -> Result<Self> {
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        if let (Some(fork_trace), Some(forker)) = (named("FORK_TRACE_BIN"), named("FORKER_BIN")) {
            return Ok(Self { fork_trace, forker });
        }
        build(&["--bins", "--examples"])?;
        Ok(Self { fork_trace: fork_trace(), forker: forker() })
    }
}
