//! Programs that are packages of Python: in an environment of their own below `target/`, with the versions that are
//! named here.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::command::{output, root, run};

/// What is installed.
const PACKAGES: [&str; 2] = ["chdb-core==26.9.0", "kubernetes-validate==1.37.0"];

/// The environment's interpreter; installs what is not there.
pub(super) fn python() -> Result<PathBuf> {
    let folder = root().join("target/deploy/python");
    let python = folder.join("bin/python");
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context(
            "make an environment of Python; Debian's package python3-venv has what it takes",
        )?;
    }
    let has = |package: &str| {
        let (name, version) = package.split_once("==").unwrap_or((package, ""));
        let asked = format!("import importlib.metadata as m; print(m.version('{name}'))");
        output(Command::new(&python).args(["-c", &asked])).is_ok_and(|is| is.trim() == version)
    };
    if !PACKAGES.iter().all(|package| has(package)) {
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    }
    Ok(python)
}
