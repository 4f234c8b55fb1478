//! Which kernels there are, where they come from, and what a kernel image says of itself.
//!
//! They are Debian's cloud kernels, which have BTF and a serial console built in, so that no module
//! is needed. They are kept below `CARGO_HOME`. This file knows nothing of guests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::arch::Arch;
use crate::build::{apt::Apt, toolchain::tools_dir};

/// Each kernel by the name one asks for it, and the suites that have it.
const KERNELS: [(&str, &[(&str, &str)]); 4] = [
    ("5.10", &[("debian", "bullseye"), ("debian-security", "bullseye-security")]),
    ("6.1", &[("debian", "bookworm"), ("debian-security", "bookworm-security")]),
    ("6.12", &[("debian", "trixie"), ("debian-security", "trixie-security")]),
    ("newest", &[("debian", "trixie-backports")]),
];

/// The package that depends on a suite's newest cloud kernel; the machine's name in Debian follows.
const PACKAGE: &str = "linux-image-cloud-";

/// Where the programs of a guest come from.
const BUSYBOX: (&str, &str) = ("debian", "trixie");

/// A kernel to boot.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The compressed image.
    pub(crate) image: PathBuf,
    /// For people: `6.12.118`.
    pub(crate) version: String,
    /// What its plan is kept under: `6.12`.
    pub(crate) series: String,
}

impl Kernel {
    /// Reads from the image which kernel it is.
    pub(crate) fn of(image: PathBuf, arch: &Arch) -> Result<Self> {
        let bytes = fs::read(&image).with_context(|| format!("read {}", image.display()))?;
        let Some(banner) = arch.banner(&bytes) else {
            bail!("{} is not a kernel image for {} (vmlinuz)", image.display(), arch.name);
        };
        let version = version(&banner).to_owned();
        let parts: Vec<&str> = version.splitn(3, '.').take(2).collect();
        Ok(Self { image, series: parts.join("."), version })
    }
}

/// The names one can ask for, in order.
pub(crate) fn names() -> Vec<&'static str> {
    KERNELS.iter().map(|(name, _suites)| *name).collect()
}

/// The kernel of this name from the cache. It is fetched if it is not there, or if `anew`.
pub(crate) fn fetch(name: &str, arch: &Arch, anew: bool) -> Result<Kernel> {
    let known = KERNELS.iter().find(|(known, _suites)| *known == name);
    let (_, suites) = known.with_context(|| format!("{name} is not one of {:?}", names()))?;
    let dir = tools_dir()?.join(arch.own("kernels"));
    let image = dir.join(name).join("vmlinuz");
    if anew || !image.is_file() {
        println!("kernel {name}: fetching Debian's");
        let apt = Apt::of(dir.join("apt"), suites, Some(arch.debian))?;
        let unpacked = dir.join("unpacked");
        let result = download(&apt, arch, &unpacked, &image);
        // This removes hundreds of megabytes of modules, which nobody needs.
        fs::remove_dir_all(&unpacked).ok();
        result.with_context(|| format!("fetch kernel {name}"))?;
    }
    Kernel::of(image, arch)
}

/// A static busybox, from the cache or Debian.
pub(crate) fn busybox(arch: &Arch) -> Result<PathBuf> {
    let dir = tools_dir()?.join(arch.own("busybox"));
    let program = dir.join("usr/bin/busybox");
    if !program.is_file() {
        println!("busybox: fetching Debian's");
        let apt = Apt::of(tools_dir()?.join("apt"), &[BUSYBOX], Some(arch.debian))?;
        apt.unpack("busybox-static", &dir).context("fetch busybox")?;
    }
    Ok(program)
}

/// Follows the packages' dependencies to the one that has the image.
fn download(apt: &Apt, arch: &Arch, unpacked: &Path, image: &Path) -> Result<()> {
    let mut package = format!("{PACKAGE}{}", arch.debian);
    loop {
        let depends = apt.depends(&package)?;
        let next = |start: &str| depends.iter().find(|name| name.starts_with(start));
        // From 7.0 on, the image has a package of its own.
        let Some(next) = next("linux-binary-").or_else(|| next("linux-image-")) else { break };
        package.clone_from(next);
    }
    apt.unpack(&package, unpacked)?;
    let Some(found) = find(unpacked) else { bail!("there is no vmlinuz in {package}") };
    let parent = image.parent().unwrap_or(image);
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::rename(&found, image).with_context(|| format!("move {}", found.display()))
}

/// The image below a directory.
fn find(dir: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Some(found) = find(&path) {
                return Some(found);
            }
        } else if entry.file_name().to_str().is_some_and(|name| name.starts_with("vmlinuz")) {
            return Some(path);
        }
    }
    None
}

/// The version in the banner. Debian's own is more exact than the release, `5.10.0-46-cloud-amd64`.
fn version(banner: &str) -> &str {
    let debian = banner.split_once(" Debian ").map(|(_, rest)| rest);
    let word = debian.unwrap_or(banner).split_whitespace().next().unwrap_or(banner);
    word.split(['-', '+']).next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_debians_where_it_is_given() {
        let debian = "5.10.0-46-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian \
                      5.10.262-1 (2026-11-01)";
        assert_eq!(version(debian), "5.10.262");
        assert_eq!(version("6.18.44-custom (me@here) #1 SMP"), "6.18.44");
    }
}
