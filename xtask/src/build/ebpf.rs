//! `build-ebpf`: compiles fork-trace-ebpf to the objects that are committed in fork-trace/bpf/, one for each
//! machine.
//!
//! The same source gives the same bytes on any machine and in any directory: one exact compiler, a
//! clean environment, no absolute paths, no DWARF.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use fork_trace_common::arch::{ARCH, ARCHES, Arch};

use super::toolchain::Toolchain;
use crate::command::{clean_cargo, root, run};

/// The kernel side's package and program.
const PACKAGE: &str = "fork-trace-ebpf";

/// The committed object of a machine. It is inside the userspace package, so that it is published with it.
fn committed(arch: &Arch) -> String {
    format!("fork-trace/bpf/fork-trace.{}.bpf.o", arch.name)
}

/// The variable that says which machine the kernel side is compiled for.
const TARGET_ARCH: &str = "AYA_BPF_TARGET_ARCH";

/// Cargo's output for this build is apart: its environment would spoil the host's cache.
const TARGET_DIR: &str = "target/ebpf";

/// What turns an ordinary cargo build into a reproducible one for the kernel.
const CARGO_ARGS: [&str; 11] = [
    "--release",
    "--locked",
    "--target=bpfel-unknown-none",
    "-Zbuild-std=core",
    "-Ztrim-paths",
    "--config",
    "profile.release.trim-paths='all'",
    "--config",
    "profile.release.lto=true",
    "--config",
    "profile.release.panic='abort'",
];

/// rustc's flags, separated as cargo wants it.
const RUSTFLAGS: &str = "-Clinker=bpf-linker\u{1f}-Clink-arg=--btf\u{1f}-Cdebuginfo=2";

/// Builds the objects, and writes them or compares them with the committed ones; returns what was done.
pub(crate) fn build(check: bool) -> Result<String> {
    let done: Result<Vec<_>> = ARCHES.iter().map(|arch| build_one(arch, check)).collect();
    Ok(done?.join("\n"))
}

fn build_one(arch: &Arch, check: bool) -> Result<String> {
    let built = compile(arch)?;
    let new = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let name = committed(arch);
    let committed = root().join(&name);
    let old = fs::read(&committed).unwrap_or_default();
    if check && old != new {
        bail!(
            "{name} ({} bytes) is not what the source gives ({} bytes, in {}): \
             run `cargo xtask build-ebpf` and commit the object",
            old.len(),
            new.len(),
            built.display(),
        );
    }
    if old != new {
        let dir = committed.parent().unwrap_or(&committed);
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        fs::write(&committed, &new).with_context(|| format!("write {name}"))?;
    }
    let done = if old == new { "as the source gives" } else { "written" };
    Ok(format!("{name}: {} bytes, {done}", new.len()))
}

/// Clippy on the kernel side. It is checked as a host program, which needs neither rust-src nor
/// bpf-linker. aya-ebpf uses unstable features, hence `RUSTC_BOOTSTRAP`.
pub(crate) fn clippy() -> Command {
    let mut cargo = clean_cargo();
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env(TARGET_ARCH, ARCH.name)
        .args(["clippy", "--locked", "--package", PACKAGE, "--bin", PACKAGE])
        .args(["--target-dir", TARGET_DIR, "--config", "profile.dev.panic='abort'"])
        .args(["--", "-Dwarnings"]);
    cargo
}

/// Compiles and strips; returns where the object is.
fn compile(arch: &Arch) -> Result<PathBuf> {
    let (toolchain, path) = Toolchain::complete()?;
    let mut cargo = clean_cargo();
    cargo
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(TARGET_ARCH, arch.name)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS)
        .args(["build", "--quiet", "--package", PACKAGE, "--bin", PACKAGE])
        .args(["--target-dir", TARGET_DIR])
        .args(CARGO_ARGS);
    run(&mut cargo).context("compile the kernel side")?;

    let dir = root().join(TARGET_DIR).join("bpfel-unknown-none/release");
    let stripped = dir.join("fork-trace.bpf.o");
    // DWARF is most of the file, nobody reads it, and it differs between sources of rust-src. BTF
    // and its line info stay.
    let mut objcopy = toolchain.objcopy();
    run(objcopy.arg("--strip-debug").arg(dir.join(PACKAGE)).arg(&stripped))
        .context("strip DWARF with the objcopy that comes with rustc")?;
    Ok(stripped)
}
