//! `vm`: the live tests on other kernels than the host's, each booted under QEMU.
//!
//! This file is an outline: fetch, build, pack, boot, report. How each is done is said in its
//! module.

mod arch;
mod cpio;
mod guest;
mod kernels;
mod plans;
mod qemu;
mod results;

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    arch::Arch,
    guest::{Programs, place},
    kernels::Kernel,
    plans::Compared,
    qemu::{Machine, Trouble},
    results::{Results, Run},
};
use crate::command::root;

/// How long a guest may take to boot, and to run the tests for one backend, at most.
const BOOT: Duration = Duration::from_secs(60);
const BACKEND: Duration = Duration::from_secs(600);

/// How long a trial of the host's own virtual machines may take; one that works takes a few
/// seconds.
const TRIAL: Duration = Duration::from_secs(20);

/// The kernels, and what to do with them.
#[derive(Args)]
pub(crate) struct Options {
    /// The machine that guests are; one that is not this machine is emulated
    #[arg(long, default_value = "x86_64", value_parser = arch::names())]
    arch: String,
    /// Debian's kernels to boot; if none is named, all that are tested on the machine
    #[arg(value_name = "KERNEL", value_parser = kernels::names())]
    kernels: Vec<String>,
    /// A kernel of your own: a vmlinuz with BTF and a serial console built in
    #[arg(long = "kernel", value_name = "PATH")]
    images: Vec<PathBuf>,
    /// Ask Debian for newer versions of the kernels
    #[arg(long)]
    fetch: bool,
    /// Write each kernel's plan to xtask/plans/ instead of comparing it, and run no tests
    #[arg(long)]
    bless: bool,
    /// Guests at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Only these backends
    #[arg(long = "backend", value_name = "BACKEND")]
    backends: Vec<String>,
    /// Only the live tests whose names have one of these in them
    #[arg(value_name = "TEST", last = true)]
    tests: Vec<String>,
}

/// What every guest of this run has in common.
struct Setting {
    arch: &'static Arch,
    initramfs: PathBuf,
    backends: Vec<String>,
    accel: &'static str,
    limit: Duration,
    bless: bool,
}

/// Boots each kernel, and says of each what came of it.
pub(crate) fn vm(options: &Options) -> Result<()> {
    let arch = Arch::of(&options.arch)?;
    qemu::require(arch)?;
    let _alone = alone()?;
    let kernels = chosen(options, arch)?;
    println!("building fork-trace and its live tests for guests");
    let programs = Programs::build(arch)?;
    let backends = match &options.backends[..] {
        _ if options.bless => Vec::new(),
        [] => programs.backends()?,
        some => some.to_vec(),
    };
    let busybox = kernels::busybox(arch)?;
    // A trial runs no tests.
    let trial = programs.pack(&busybox, &[], &[])?;
    let accel = accel(arch, kernels.first().context("no kernel")?, trial)?;
    let runs = u32::try_from(backends.len()).context("count the backends")?;
    let setting = Setting {
        arch,
        initramfs: programs.pack(&busybox, &backends, &options.tests)?,
        backends,
        accel,
        limit: BOOT + BACKEND * runs,
        bless: options.bless,
    };
    let began = Instant::now();
    let failed = boot_all(&kernels, &setting, options.jobs);
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    match failed {
        0 => println!("all well; kernels: {}, {minutes:.1} min", kernels.len()),
        some => bail!("kernels that failed: {some} of {}, {minutes:.1} min", kernels.len()),
    }
    Ok(())
}

/// Waits until no other run of this task uses our place; it is ours for as long as the file lives.
fn alone() -> Result<File> {
    let path = place().join("lock");
    fs::create_dir_all(place()).with_context(|| format!("create {}", place().display()))?;
    let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("waiting for another `cargo xtask vm` to end");
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// The kernels that were asked for. Where that is all of them, the newest comes first: it takes
/// longest, and no guest should be left to run alone at the end.
fn chosen(options: &Options, arch: &Arch) -> Result<Vec<Kernel>> {
    let all = options.kernels.is_empty() && options.images.is_empty();
    let named = if all {
        arch.kernels.iter().rev().map(|name| (*name).to_owned()).collect()
    } else {
        options.kernels.clone()
    };
    let named = named.iter().map(|name| kernels::fetch(name, arch, options.fetch));
    named.chain(options.images.iter().map(|path| Kernel::of(path.clone(), arch))).collect()
}

/// Which way guests are run here.
fn accel(arch: &'static Arch, kernel: &Kernel, initramfs: PathBuf) -> Result<&'static str> {
    qemu::accel(&Machine {
        arch,
        kernel: &kernel.image,
        initramfs: &initramfs,
        backends: String::new(),
        log: place().join("trial.log"),
        told: place().join("trial.told"),
        limit: TRIAL,
    })
}

/// Boots all kernels, `jobs` at a time; returns how many failed.
fn boot_all(kernels: &[Kernel], setting: &Setting, jobs: u8) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = boot(kernel, setting);
                    let failure = report.as_ref().map_or(true, |report| report.failed);
                    failed.fetch_add(usize::from(failure), Ordering::Relaxed);
                    match report {
                        Ok(report) => println!("{}", report.lines.join("\n")),
                        Err(error) => println!("{}: {error:#}", kernel.version),
                    }
                }
            });
        }
    });
    failed.into_inner()
}

/// The lines that are printed about one kernel.
struct Report<'a> {
    kernel: &'a Kernel,
    lines: Vec<String>,
    failed: bool,
}

/// Boots one kernel and compares what it told with what it should.
fn boot<'a>(kernel: &'a Kernel, setting: &Setting) -> Result<Report<'a>> {
    let name = setting.arch.own(&kernel.version);
    let machine = |suffix: &str, backends| Machine {
        arch: setting.arch,
        kernel: &kernel.image,
        initramfs: &setting.initramfs,
        backends,
        told: place().join(format!("{name}{suffix}.told")),
        log: place().join(format!("{name}{suffix}.log")),
        limit: setting.limit,
    };
    let mut attempt = machine("", String::new());
    let mut end = attempt.boot(setting.accel)?;
    let mut results = Results::read(&end.told);
    let mut report = Report { kernel, lines: Vec::new(), failed: false };
    if let Some(Trouble::Stalled(why)) = &end.trouble {
        // An emulated CPU stands still at times: what was left is tried once more, from there.
        let ended =
            |backend: &String| results.runs.iter().any(|run| run.ended && run.backend == *backend);
        let left: Vec<_> = setting.backends.iter().filter(|name| !ended(name)).cloned().collect();
        let left = left.join(",");
        report.line(&format!("booted once more for {left}: {why}, see {}", attempt.log.display()));
        attempt = machine("-again", left);
        end = attempt.boot(setting.accel)?;
        results.go_on(Results::read(&end.told));
    }
    let log = attempt.log;
    for run in &results.runs {
        report.run(run);
    }
    report.plan(&results, setting)?;
    if let Some(trouble) = &end.trouble {
        report.failure(&format!("kernel: {trouble}"));
    } else if !results.done {
        report.failure("the guest ended before its time");
    }
    if report.failed {
        report.lines.push(format!("    see {}", log.display()));
    }
    Ok(report)
}

impl Report<'_> {
    fn line(&mut self, text: &str) {
        self.lines.push(format!("{} {text}", self.kernel.version));
    }

    fn failure(&mut self, text: &str) {
        self.line(text);
        self.failed = true;
    }

    /// One backend: how many tests passed and failed, and below that each that failed.
    fn run(&mut self, run: &Run) {
        let Run { backend, passed, failed, again, .. } = run;
        match passed {
            Some((passed, seconds)) => self.line(&format!(
                "{backend}: {passed} passed, {} failed ({seconds:.0} s)",
                failed.len()
            )),
            None => self.failure(&format!("{backend}: FAILED")),
        }
        self.failed |= !failed.is_empty();
        for (name, reason) in again {
            let reason: String = reason.chars().take(100).collect();
            self.lines.push(format!("    {name}: passed when tried again, after {reason}"));
        }
        for (name, reason) in failed {
            let reason: String = reason.chars().take(200).collect();
            self.lines.push(format!("    {name}: {reason}"));
        }
    }

    /// The plan, which is compared with the one kept, or kept in its place.
    fn plan(&mut self, results: &Results, setting: &Setting) -> Result<()> {
        let Some(plan) = results.doctor.as_ref().and_then(plans::plan) else {
            self.failure("plan: `fork-trace doctor` told none");
            return Ok(());
        };
        let series = &setting.arch.own(&self.kernel.series);
        let dir = root().join("xtask/plans");
        if setting.bless {
            let file = plans::keep(&dir, series, &plan)?;
            self.line(&format!(
                "plan: {} stages, kept in {}",
                plan.lines().count(),
                file.display()
            ));
            return Ok(());
        }
        match plans::compare(&dir, series, &plan) {
            Compared::Same => self.line(&format!("plan: {} stages, as kept", plan.lines().count())),
            Compared::New => self.line(&format!(
                "plan: none is kept for {series}; `cargo xtask vm --bless` keeps it"
            )),
            Compared::Differs(lines) => {
                self.failure("plan: not as kept; if it should be so, `cargo xtask vm --bless`");
                self.lines.extend(lines.iter().map(|line| format!("    {line}")));
            }
        }
        Ok(())
    }
}
