//! The programs under test, and where they leave what they make.

use std::{fs, path::PathBuf, process::Child};

use anyhow::{Context as _, Result};

use crate::{
    build::programs::{build, fork_trace, forker},
    command::root,
};

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

/// A program that ends with this value.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A folder for what is made here.
pub(super) fn folder(name: &str) -> Result<PathBuf> {
    let folder = root().join("target/deploy").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}
