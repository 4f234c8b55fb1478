//! `deny`: what dependencies may be, by cargo-deny and `deny.toml`.
//!
//! Licenses, sources and doubled crates are checked without the network. Known weaknesses are looked up in
//! the database of advisories for Rust, where that can be fetched.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::command::{clean_cargo, output, program, root, run};

/// The version of cargo-deny.
const VERSION: &str = "0.20.2";

/// Runs it, and builds it first if it is not here.
pub(crate) fn deny() -> Result<String> {
    let tool = tool()?;
    // From the workspace's root, where deny.toml is.
    let cargo_deny = |args: &[&str]| {
        let mut command = program(&tool.to_string_lossy());
        command.args(["--locked", "--color", "never"]).args(args);
        output(&mut command)
    };
    cargo_deny(&["check", "bans", "licenses", "sources"])?;
    let checked = "bans, licenses and sources are as deny.toml wants them";
    if let Err(error) = cargo_deny(&["fetch", "db"]) {
        let error = format!("{error:#}");
        let why = error.lines().find(|line| line.contains("failed")).unwrap_or(&error);
        return Ok(format!("{checked}; advisories left out: {}", why.trim()));
    }
    cargo_deny(&["--offline", "check", "advisories"])?;
    Ok(format!("{checked}, and there is no advisory"))
}

/// The program, below target/.
fn tool() -> Result<PathBuf> {
    let place = root().join("target/deny");
    let tool = place.join("bin/cargo-deny");
    let is_right = || {
        let version = output(Command::new(&tool).arg("--version"));
        version.is_ok_and(|text| text.trim() == format!("cargo-deny {VERSION}"))
    };
    if !is_right() {
        println!("cargo-deny {VERSION}: building it, which takes some minutes");
        let mut cargo = clean_cargo();
        cargo.args(["install", "--quiet", "cargo-deny", "--version", VERSION, "--locked"]);
        // What it has to do is little, and optimizing takes longer.
        run(cargo.args(["--debug", "--force", "--root"]).arg(&place))
            .with_context(|| format!("cargo-deny {VERSION} could not be built"))?;
    }
    Ok(tool)
}
