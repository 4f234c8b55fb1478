//! The machines that guests can be: how each is built for, fetched, booted and told apart. One row each.

use std::env;

use anyhow::{Context as _, Result};

use crate::build::programs::Target;

/// One kind of machine.
#[derive(Debug)]
pub(crate) struct Arch {
    /// Its name on the command line, as Rust and `uname -m` have it.
    pub(crate) name: &'static str,
    /// Its name in Debian.
    pub(crate) debian: &'static str,
    /// What it is built for, where that is not this machine.
    pub(crate) target: Option<&'static Target>,
    /// What stands behind names in caches and of kept plans.
    pub(crate) suffix: &'static str,
    /// The kernels that are booted where none is named, of those that Debian has.
    pub(crate) kernels: &'static [&'static str],
    /// QEMU's program, and the Debian package it is in.
    pub(crate) qemu: (&'static str, &'static str),
    /// Arguments for QEMU: the board, and a second serial line to the host, whose `chardev` is called `told`.
    pub(crate) board: &'static [&'static str],
    /// An emulated CPU is a plain one: with more features fork-trace takes a third longer to start.
    pub(crate) plain_cpu: &'static str,
    /// The guest's names of the console and of the second serial line.
    pub(crate) lines: (&'static str, &'static str),
    /// Tests that depend on the machine, so that it runs them whatever the series of its kernel.
    pub(crate) own_tests: &'static [&'static str],
}

/// Every machine; the first is what all is built for where nothing else is said.
pub(crate) static ARCHES: [Arch; 2] = [
    Arch {
        name: "x86_64",
        debian: "amd64",
        target: None,
        suffix: "",
        kernels: &["5.10", "6.1", "6.12", "newest"],
        qemu: ("qemu-system-x86_64", "qemu-system-x86"),
        board: &["-device", "isa-serial,chardev=told,index=1"],
        plain_cpu: "qemu64",
        lines: ("ttyS0", "ttyS1"),
        own_tests: &[],
    },
    Arch {
        name: "aarch64",
        debian: "arm64",
        target: Some(&Target {
            triple: "aarch64-unknown-linux-gnu",
            tools: "aarch64-linux-gnu-",
            package: "gcc-aarch64-linux-gnu",
            libraries: "/usr/aarch64-linux-gnu/lib",
        }),
        suffix: "-aarch64",
        kernels: &["6.12"],
        qemu: ("qemu-system-aarch64", "qemu-system-arm"),
        board: &[
            "-M",
            "virt",
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtconsole,chardev=told",
        ],
        plain_cpu: "cortex-a76",
        lines: ("ttyAMA0", "hvc0"),
        own_tests: &["libc::", "stacks::", "rights::", "endings::"],
    },
];

impl Arch {
    /// The machine of this name.
    pub(crate) fn of(name: &str) -> Result<&'static Self> {
        let found = ARCHES.iter().find(|arch| arch.name == name);
        found.with_context(|| format!("{name} is not one of {:?}", names()))
    }

    /// Whether this machine is one of this kind, which may run its programs.
    pub(crate) fn is_here(&self) -> bool {
        self.name == env::consts::ARCH
    }

    /// A name with what tells the machine.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    /// What a kernel image of this machine calls itself; `None` for another one.
    pub(crate) fn banner(&self, image: &[u8]) -> Option<String> {
        if self.name == "aarch64" { arm64_banner(image) } else { x86_banner(image) }
    }
}

/// The names one can ask for.
pub(crate) fn names() -> Vec<&'static str> {
    ARCHES.iter().map(|arch| arch.name).collect()
}

/// By the boot protocol's header (Documentation/arch/x86/boot.rst).
fn x86_banner(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let place: [u8; 2] = image.get(0x20e..0x210)?.try_into().ok()?;
    text(image.get(usize::from(u16::from_le_bytes(place)) + 0x200..)?)
}

/// By what it prints first. The image is not compressed; its header has a magic number
/// (Documentation/arch/arm64/booting.rst).
fn arm64_banner(image: &[u8]) -> Option<String> {
    const WORDS: &[u8] = b"Linux version ";
    if image.get(0x38..0x3c)? != b"ARM\x64" {
        return None;
    }
    let mut at = 0;
    loop {
        at += image.get(at..)?.windows(WORDS.len()).position(|part| part == WORDS)? + WORDS.len();
        if image.get(at)?.is_ascii_digit() {
            return text(image.get(at..)?);
        }
    }
}

/// What ends with a zero, or with a line.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(400).position(|byte| matches!(byte, 0 | b'\n'))?;
    String::from_utf8(bytes.get(..end)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_is_where_the_header_says() {
        let x86 = Arch::of("x86_64").unwrap();
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&[0x40, 0x00]);
        image[0x240..0x246].copy_from_slice(b"7.3.4 ");
        assert_eq!(x86.banner(&image).as_deref(), Some("7.3.4 "));
        assert_eq!(x86.banner(&image[1..]), None);
        assert_eq!(x86.banner(b"#!/bin/sh"), None);
        assert_eq!(Arch::of("aarch64").unwrap().banner(&image), None, "another machine's");
    }

    #[test]
    fn an_arm64_image_says_what_it_prints() {
        let arm = Arch::of("aarch64").unwrap();
        let mut image = vec![0; 0x200];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image.extend_from_slice(b"Linux version %s\0Linux version 6.12.118+deb13 (x@y) #1\n\0");
        assert_eq!(arm.banner(&image).as_deref(), Some("6.12.118+deb13 (x@y) #1"));
        image[0x38] = 0;
        assert_eq!(arm.banner(&image), None);
        assert_eq!(Arch::of("x86_64").unwrap().banner(&image), None);
    }

    #[test]
    fn every_machine_is_in_the_table_of_the_tool() {
        let tool: Vec<_> = fork_trace_common::arch::ARCHES.iter().map(|arch| arch.name).collect();
        assert_eq!(names(), tool);
        assert!(Arch::of("riscv64").is_err());
    }
}
