//! Debian packages: installed where a program is missing, or fetched without installing them, by apt-get
//! with sources, lists and downloads in a directory of our own, and nothing of the system's.
//!
//! This file knows neither what is fetched nor what for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command::{is_root, output, run};

/// Makes sure that a program is here, which is in this package. Only root installs it.
pub(crate) fn require(program: &str, package: &str) -> Result<()> {
    let present = || Command::new(program).arg("--version").output().is_ok();
    if present() {
        return Ok(());
    }
    if !is_root()? {
        bail!("{program} is not on PATH: run `sudo apt-get install {package}`");
    }
    println!("{program}: installing Debian's package {package}");
    let apt = |args: &[&str]| {
        run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args))
    };
    apt(&["-q", "update"])?;
    apt(&["-q", "install", "--yes", "--no-install-recommends", package])?;
    if present() { Ok(()) } else { bail!("{package} is installed, but {program} does not run") }
}

/// A directory for apt; it goes away at the end.
pub(crate) struct Apt {
    dir: PathBuf,
    /// For which machine, by Debian's name, where that is not this one.
    machine: Option<&'static str>,
}

impl Apt {
    /// Reads the lists of these suites: each is a path below deb.debian.org and a suite's name.
    pub(crate) fn new(dir: PathBuf, suites: &[(&str, &str)]) -> Result<Self> {
        Self::of(dir, suites, None)
    }

    /// The same for another machine.
    pub(crate) fn of(
        dir: PathBuf,
        suites: &[(&str, &str)],
        machine: Option<&'static str>,
    ) -> Result<Self> {
        let apt = Self { dir, machine };
        let shown = apt.dir.display();
        for name in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.dir.join(name)).with_context(|| format!("create {shown}"))?;
        }
        let mut sources = String::new();
        for (path, suite) in suites {
            sources.push_str("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ");
            sources.push_str(&format!("http://deb.debian.org/{path} {suite} main\n"));
        }
        fs::write(apt.dir.join("sources.list"), sources)
            .and_then(|()| fs::write(apt.dir.join("status"), ""))
            .with_context(|| format!("write sources.list in {shown}"))?;
        run(apt.tool("apt-get").arg("update")).context("read Debian's package list")?;
        Ok(apt)
    }

    /// Downloads a package, given as apt-get takes it, and unpacks it there.
    pub(crate) fn unpack(&self, package: &str, place: &Path) -> Result<()> {
        run(self.tool("apt-get").args(["download", package]))
            .with_context(|| format!("download Debian's package {package}"))?;
        let shown = self.dir.display();
        let files = fs::read_dir(&self.dir).with_context(|| format!("list {shown}"))?;
        let mut files = files.filter_map(|file| Some(file.ok()?.path()));
        let file = files.find(|path| path.extension().is_some_and(|end| end == "deb"));
        let file = file.with_context(|| format!("apt-get left no package in {shown}"))?;
        run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(place))
            .with_context(|| format!("unpack Debian's package {package}"))?;
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }

    /// The packages that the newest version of a package cannot do without.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.tool("apt-cache").args(["depends", "--important", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// One of apt's programs; all that it reads and writes is in our directory.
    fn tool(&self, name: &str) -> Command {
        let mut apt = Command::new(name);
        // apt's own user may not enter a directory below a home, hence the sandbox option.
        apt.current_dir(&self.dir).args([
            "-q",
            "-oDir::Etc::sourceparts=-",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        if let Some(machine) = self.machine {
            apt.arg(format!("-oAPT::Architecture={machine}"));
            apt.arg(format!("-oAPT::Architectures::={machine}"));
        }
        for (key, name) in [
            ("Etc::sourcelist", "sources.list"),
            ("State::lists", "lists"),
            ("State::status", "status"),
            ("Cache", ""),
        ] {
            apt.arg(format!("-oDir::{key}={}", self.dir.join(name).display()));
        }
        apt
    }
}

impl Drop for Apt {
    fn drop(&mut self) {
        // What is left of it does no harm.
        fs::remove_dir_all(&self.dir).ok();
    }
}
