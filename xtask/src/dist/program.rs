//! The program of a release: built without shared libraries, for any Linux on x86-64.
//!
//! This file knows nothing of packages.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail};
use object::{
    Endianness, elf,
    read::elf::{FileHeader as _, ProgramHeader as _},
};
use serde_json::Value;

use crate::{
    build::{
        programs::standard_library,
        toolchain::{Toolchain, cargo_home},
    },
    command::{clean_cargo, output, program, root},
};

/// What it is built for.
pub(super) const TARGET: &str = "x86_64-unknown-linux-musl";

/// The C library that rustc links for this target.
pub(super) const MUSL: &str = "1.2.5";

/// What was built.
pub(super) struct Built {
    /// The program.
    pub(super) path: PathBuf,
    /// The packages that were compiled for the target, by cargo's ids. What was compiled for the machine
    /// that builds, such as macros, is not among them.
    pub(super) compiled: BTreeSet<String>,
}

/// Builds it, and makes sure that it needs nothing beside the kernel.
pub(super) fn build() -> Result<Built> {
    target()?;
    let mut cargo = clean_cargo();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", remap()?);
    cargo.args(["build", "--release", "--locked", "--package", "fork-trace", "--bins"]);
    cargo.args(["--target", TARGET, "--target-dir", "target"]);
    cargo.args(["--config", "profile.release.strip='symbols'"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = output(cargo.stderr(Stdio::inherit())).context("build fork-trace")?;
    let built = read(&messages)?;
    let bytes = fs::read(&built.path).with_context(|| format!("read {}", built.path.display()))?;
    if has_interpreter(&bytes)? {
        bail!("{} is not static: it asks for a loader", built.path.display());
    }
    Ok(built)
}

/// rustc's flags that keep folders of this machine out of the messages of panics. Files of the standard
/// library are called as they are where its source is not installed.
fn remap() -> Result<String> {
    let version = output(program("rustc").arg("-vV"))?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "));
    let commit = commit.context("rustc does not say of which commit it is")?;
    let folders = [
        (cargo_home()?, "cargo".to_owned()),
        (Toolchain::find()?.source, format!("/rustc/{commit}")),
        (root(), ".".to_owned()),
    ];
    let flags =
        folders.map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    Ok(flags.join("\u{1f}"))
}

/// Makes sure that the standard library for the target is here, and the C library that it brings along.
fn target() -> Result<()> {
    let library = standard_library(TARGET)?.join("self-contained/libc.a");
    let bytes = fs::read(&library).with_context(|| format!("read {}", library.display()))?;
    let version = format!("\0{MUSL}\0");
    if !bytes.windows(version.len()).any(|part| part == version.as_bytes()) {
        bail!("{} is not musl {MUSL}: change `MUSL` in xtask", library.display());
    }
    Ok(())
}

/// Reads cargo's messages.
fn read(messages: &str) -> Result<Built> {
    let mut path = None;
    let mut compiled = BTreeSet::new();
    let folder = format!("/{TARGET}/");
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("read cargo's messages")?;
        let files = message.get("filenames").and_then(Value::as_array);
        let mut files = files.into_iter().flatten().filter_map(Value::as_str);
        if !files.any(|file| file.contains(&folder)) {
            continue;
        }
        compiled.extend(message.get("package_id").and_then(Value::as_str).map(str::to_owned));
        let executable = message.get("executable").and_then(Value::as_str);
        path = path.or(executable.map(PathBuf::from));
    }
    Ok(Built { path: path.context("cargo names no program")?, compiled })
}

/// Whether a program asks for a loader, which would bring shared libraries.
fn has_interpreter(bytes: &[u8]) -> Result<bool> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes).context("read an ELF header")?;
    let endian = header.endian()?;
    let parts = header.program_headers(endian, bytes)?;
    Ok(parts.iter().any(|part| part.p_type(endian) == elf::PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compiled_for_the_target_is_told_from_the_rest() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"quote@1","filenames":["/t/release/deps/libquote.rlib"],"executable":null}
{"reason":"build-script-executed","package_id":"libc@0.2"}
{"reason":"compiler-artifact","package_id":"libc@0.2","filenames":["/t/x86_64-unknown-linux-musl/release/deps/liblibc.rlib"],"executable":null}
{"reason":"compiler-artifact","package_id":"tool@1","filenames":["/t/x86_64-unknown-linux-musl/release/tool"],"executable":"/t/x86_64-unknown-linux-musl/release/tool"}
{"reason":"build-finished","success":true}"#;
        let built = read(messages.trim()).unwrap();
        assert_eq!(built.path.to_str(), Some("/t/x86_64-unknown-linux-musl/release/tool"));
        assert_eq!(built.compiled.into_iter().collect::<Vec<_>>(), ["libc@0.2", "tool@1"]);
        assert!(read(r#"{"reason":"build-finished"}"#).is_err());
    }

    #[test]
    fn a_program_with_shared_libraries_is_recognised() {
        // This test is one itself.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(has_interpreter(&own).unwrap());
        assert!(has_interpreter(b"#!/bin/sh").is_err());
    }
}
