//! `setup`: fetches what the eBPF build lacks. What is there already is left alone.
//!
//! Nothing of the system is changed: bpf-linker and a downloaded rust-src go to a directory of our
//! own below `CARGO_HOME`, and apt is run with lists and sources of its own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::Apt,
    toolchain::{LINKER, RUST, Toolchain, is_source, linker_dir, tools_dir},
};
use crate::command::{clean_cargo, program, run};

/// The Debian suite that has rust-src of the pinned version.
const DEBIAN: (&str, &str) = ("debian", "trixie-backports");

/// Fetches each missing piece.
pub(crate) fn setup() -> Result<()> {
    let toolchain = Toolchain::find()?;
    println!("Rust {RUST}: present in {}", toolchain.sysroot.display());
    rust_src(&toolchain.source)?;
    bpf_linker()?;
    println!("`cargo xtask build-ebpf` has all it needs");
    Ok(())
}

/// The standard library's source, to compile `core` for the kernel: from rustup, else from Debian.
fn rust_src(place: &Path) -> Result<()> {
    let shown = place.display();
    if is_source(place) {
        println!("rust-src {RUST}: present in {shown}");
        return Ok(());
    }
    println!("rust-src {RUST}: asking rustup");
    if let Err(error) = run(program("rustup").args(["component", "add", "rust-src"])) {
        println!("rust-src {RUST}: not from rustup ({error:#}); asking Debian");
        let source = debian_source().context(format!(
            "rust-src {RUST} came neither from rustup nor from Debian: get online and run \
             `cargo xtask setup` again, or put the source of Rust {RUST} into {shown}"
        ))?;
        link(&source, place)?;
    }
    if !place.exists() {
        bail!(
            "rustup has rust-src installed, but {shown} is gone: run `rustup component remove \
             rust-src` and then `cargo xtask setup`"
        );
    }
    if !is_source(place) {
        bail!("{shown} is not the source of Rust {RUST}: remove it and run `cargo xtask setup`");
    }
    println!("rust-src {RUST}: installed in {shown}");
    Ok(())
}

/// Downloads Debian's package and unpacks it, without installing it.
fn debian_source() -> Result<PathBuf> {
    let unpacked = tools_dir()?.join(format!("rust-src-{RUST}"));
    let source = unpacked.join(format!("usr/src/rustc-{RUST}"));
    if is_source(&source) {
        return Ok(source);
    }
    let apt = Apt::new(tools_dir()?.join("apt"), &[DEBIAN])?;
    apt.unpack(&format!("rust-src={RUST}*"), &unpacked)?;
    Ok(source)
}

/// Makes cargo find the source: a link where rustup would have put it.
fn link(source: &Path, place: &Path) -> Result<()> {
    if place.is_symlink() {
        fs::remove_file(place).with_context(|| format!("remove {}", place.display()))?;
    }
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    symlink(source, place)
        .with_context(|| format!("link {} to {}", place.display(), source.display()))
}

/// The linker that turns LLVM bitcode into a BPF object.
fn bpf_linker() -> Result<()> {
    if let Some(dir) = linker_dir()? {
        println!("bpf-linker {LINKER}: present in {}", dir.display());
        return Ok(());
    }
    println!("bpf-linker {LINKER}: building it, which takes about two minutes");
    let mut cargo = clean_cargo();
    cargo.args(["install", "--quiet", "bpf-linker", "--version", LINKER, "--locked", "--root"]);
    run(cargo.arg(tools_dir()?)).context(format!(
        "bpf-linker {LINKER} could not be built, see cargo's message above: it needs crates.io \
         and a C compiler; then run `cargo xtask setup` again"
    ))?;
    let Some(dir) = linker_dir()? else {
        bail!("bpf-linker {LINKER} was built in {} but does not run", tools_dir()?.display());
    };
    println!("bpf-linker {LINKER}: installed in {}", dir.display());
    Ok(())
}
