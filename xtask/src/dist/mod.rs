//! `dist`: makes what a release consists of, and tries it where nothing of a toolchain is.
//!
//! The table of artefacts is in `artefacts`, that of the files in them in `files`.

mod artefacts;
mod bare_root;
mod files;
mod linked;
mod notices;
mod program;
mod release;
mod sbom;

use std::fs;

use anyhow::{Context as _, Result};

use crate::dist::release::{Release, place};

/// Makes every artefact; `test` tries the packages too.
pub(crate) fn dist(test: bool) -> Result<()> {
    fs::create_dir_all(place().join("work")).context("create target/dist")?;
    let release = Release::build()?;
    for path in artefacts::write(&release)? {
        let size = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        println!("{:>9}  {}", size.len(), path.display());
    }
    if test { bare_root::test(&release) } else { Ok(()) }
}
