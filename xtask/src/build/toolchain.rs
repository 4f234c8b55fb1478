//! What the eBPF build needs beside stable Rust: which versions, and whether they are here.
//!
//! This file installs nothing; `setup` does.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command::{output, program};

/// The one compiler whose output the committed object is; the same as in rust-toolchain.toml.
pub(crate) const RUST: &str = "1.95.0";

/// The last bpf-linker that uses rustc's own LLVM, so that no LLVM need be installed.
pub(crate) const LINKER: &str = "0.10.4";

/// The active Rust toolchain, which is known to be the pinned one.
pub(crate) struct Toolchain {
    /// Where it is installed.
    pub(crate) sysroot: PathBuf,
    /// Where cargo looks for the standard library's source.
    pub(crate) source: PathBuf,
}

impl Toolchain {
    /// Asks rustc for its version and place.
    pub(crate) fn find() -> Result<Self> {
        let version = output(program("rustc").arg("--version")).context("look for rustc")?;
        if version.split_whitespace().nth(1) != Some(RUST) {
            bail!(
                "the eBPF object is built by Rust {RUST} and no other, but this is {}: run \
                 `rustup toolchain install {RUST}`, and cargo without +toolchain",
                version.trim()
            );
        }
        let sysroot = output(program("rustc").args(["--print", "sysroot"]))?;
        let sysroot = PathBuf::from(sysroot.trim());
        Ok(Self { source: sysroot.join("lib/rustlib/src/rust"), sysroot })
    }

    /// Makes sure that all else which the eBPF build needs is here too. Returns the toolchain, and
    /// a PATH on which the right bpf-linker comes first.
    pub(crate) fn complete() -> Result<(Self, OsString)> {
        let found = Self::find()?;
        if !is_source(&found.source) {
            let place = found.source.display();
            bail!("rust-src {RUST} is not in {place}: run `cargo xtask setup`");
        }
        let Some(linker) = linker_dir()? else {
            bail!("bpf-linker {LINKER} is not on PATH: run `cargo xtask setup`");
        };
        Ok((found, path_with(&linker)))
    }

    /// The objcopy that comes with rustc; it needs rustc's libraries to be found.
    pub(crate) fn objcopy(&self) -> Command {
        let tool = "lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-objcopy";
        let mut command = Command::new(self.sysroot.join(tool));
        command.env("LD_LIBRARY_PATH", self.sysroot.join("lib"));
        command
    }
}

/// Whether this is the source of our Rust. A distribution's copy has a file `version`. Rustup's
/// copy has none, but rustup gives each toolchain only its own source.
pub(crate) fn is_source(dir: &Path) -> bool {
    let version = fs::read_to_string(dir.join("version"));
    let right = version.map_or(true, |text| text.split_whitespace().next() == Some(RUST));
    right && dir.join("library/core/Cargo.toml").is_file()
}

/// Where cargo keeps what it fetched.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    home.context("neither CARGO_HOME nor HOME is set")
}

/// Our own place beside cargo's things, for what `setup` fetches.
pub(crate) fn tools_dir() -> Result<PathBuf> {
    Ok(cargo_home()?.join("fork-trace"))
}

/// The directory of the first bpf-linker of the right version: our own or one on PATH.
pub(crate) fn linker_dir() -> Result<Option<PathBuf>> {
    let wanted = format!("bpf-linker {LINKER}");
    let path = path_with(&tools_dir()?.join("bin"));
    let right = env::split_paths(&path).find(|dir| {
        let version = output(Command::new(dir.join("bpf-linker")).arg("--version"));
        version.is_ok_and(|text| text.trim() == wanted)
    });
    Ok(right)
}

/// PATH with this directory before all others.
fn path_with(first: &Path) -> OsString {
    let mut path = first.as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_the_workspaces_toolchain() {
        let file = include_str!("../../../rust-toolchain.toml");
        assert!(file.contains(&format!("channel = \"{RUST}\"")));
    }
}
