//! What all artefacts are made of: the version, the date, the program, and what is linked into it.
//!
//! This file knows no artefact.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    linked::{self, Package},
    program,
};
use crate::command::{self, output, root};

/// A release, once its program is built.
pub(super) struct Release {
    /// The workspace's version.
    pub(super) version: &'static str,
    /// When the last commit was made, in seconds since 1970. No other time gets into an artefact, so
    /// that the same commit gives the same bytes.
    pub(super) epoch: String,
    /// The program.
    pub(super) program: PathBuf,
    /// What is linked into it.
    pub(super) packages: Vec<Package>,
}

impl Release {
    /// Builds the program.
    pub(super) fn build() -> Result<Self> {
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => output(command::program("git").args(["log", "-1", "--format=%ct"]))
                .context("outside of a repository SOURCE_DATE_EPOCH has to be set")?,
        };
        let built = program::build()?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            epoch: epoch.trim().to_owned(),
            packages: linked::packages(&built.compiled)?,
            program: built.path,
        })
    }

    /// A folder of its own for what an artefact is made from.
    pub(super) fn work(&self, name: &str) -> PathBuf {
        place().join("work").join(name)
    }

    /// A program that takes the release's date for now.
    pub(super) fn tool(&self, name: &str, folder: &Path) -> Command {
        let mut tool = Command::new(name);
        tool.current_dir(folder).env("SOURCE_DATE_EPOCH", &self.epoch).env("LC_ALL", "C");
        tool
    }
}

/// Where the artefacts are.
pub(super) fn place() -> PathBuf {
    root().join("target/dist")
}
