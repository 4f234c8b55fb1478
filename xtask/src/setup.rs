//! `setup`: fetches what the eBPF build lacks. What is there already is left alone.
//!
//! Nothing of the system is changed: bpf-linker and a downloaded rust-src go to a directory of our
//! own below `CARGO_HOME`, and apt is run with lists and sources of its own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{clean_cargo, program, run},
    toolchain::{LINKER, RUST, Toolchain, is_source, linker_dir, tools_dir},
};

/// The Debian suite that has rust-src of the pinned version, as an apt source.
const DEBIAN: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                      http://deb.debian.org/debian trixie-backports main\n";

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
    let dir = tools_dir()?.join("apt");
    for name in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(dir.join(name)).with_context(|| format!("create {}", dir.display()))?;
    }
    fs::write(dir.join("sources.list"), DEBIAN)
        .with_context(|| format!("write sources.list in {}", dir.display()))?;
    run(apt_get(&dir).arg("update")).context("read Debian's package list")?;
    run(apt_get(&dir).args(["download", &format!("rust-src={RUST}*")]))
        .context("download Debian's package rust-src")?;
    let files = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let mut files = files.filter_map(|file| Some(file.ok()?.path()));
    let package = files.find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.with_context(|| format!("apt-get left none in {}", dir.display()))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))
        .context("unpack Debian's package rust-src")?;
    fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    Ok(source)
}

/// apt-get with sources, lists and downloads in this directory, and nothing of the system's.
fn apt_get(dir: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    // apt's own user may not enter a directory below a home, hence the sandbox option.
    apt.current_dir(dir).args(["-q", "-oDir::Etc::sourceparts=-", "-oAPT::Sandbox::User=root"]);
    for (key, name) in
        [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "")]
    {
        apt.arg(format!("-oDir::{key}={}", dir.join(name).display()));
    }
    apt
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
