//! `run`: builds fork-trace and becomes it, as root.
//!
//! This file knows none of fork-trace's arguments; they are passed on as they came.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{
    build::programs::{build, fork_trace},
    command::as_root,
};

/// Builds fork-trace, then runs it in our place, so that signals and exit status are its own.
pub(crate) fn run(args: Vec<OsString>) -> Result<()> {
    let mut command = as_root(&fork_trace())?;
    build(&["--bin", "fork-trace"])?;
    Err(command.args(args).exec()).with_context(|| format!("run {}", fork_trace().display()))
}
