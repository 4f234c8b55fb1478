//! `bench programs`: how often each program of the kernel side runs for one fork, its child's start and its
//! end, and for how long.
//!
//! The kernel counts runs only while the sysctl `kernel.bpf_stats_enabled` is 1. It is set for as long as
//! this lasts.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build::programs::{build, fork_trace, forker},
    command::is_root,
};

/// Where the kernel is told to count.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// How many forks the longer of two runs has more than the shorter one: the difference has nothing of the
/// start and the end.
const FORKS: u32 = 4_000;

/// Sets the sysctl for as long as it lives.
struct Counting(String);

impl Counting {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(STATS).with_context(|| format!("read {STATS}"))?;
        fs::write(STATS, "1").with_context(|| format!("write {STATS}"))?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATS, &self.0) {
            eprintln!("write {STATS}: {error}");
        }
    }
}

/// What the kernel counted of a program.
struct Ran {
    name: String,
    runs: u64,
    run_time_ns: u64,
}

/// Measures, and prints a table.
pub(super) fn bench() -> Result<()> {
    if !is_root()? {
        bail!("tracing needs root: run `cargo xtask bench programs` as root");
    }
    build(&["--bins", "--examples"])?;
    let _counting = Counting::start()?;
    let (shorter, longer) = (ran(FORKS)?, ran(2 * FORKS)?);
    println!("the programs of one plain fork: of its call, its child's start, and its end");
    println!("{:<32}{:>12}{:>12}{:>12}", "program", "runs", "ns a run", "ns a fork");
    let (mut all_runs, mut all_ns) = (0.0, 0.0);
    for after in &longer {
        let before = shorter.iter().find(|before| before.name == after.name);
        let (runs, ns) = before.map_or((0, 0), |before| (before.runs, before.run_time_ns));
        let (runs, ns) = (after.runs.saturating_sub(runs), after.run_time_ns.saturating_sub(ns));
        let a_fork = |count: u64| -> Result<f64> {
            Ok(f64::from(u32::try_from(count).context("too many runs")?) / f64::from(FORKS))
        };
        let (runs, ns) = (a_fork(runs)?, a_fork(ns)?);
        println!(
            "{:<32}{runs:>12.2}{:>12.0}{ns:>12.0}",
            after.name,
            ns / runs.max(f64::MIN_POSITIVE)
        );
        all_runs += runs;
        all_ns += ns;
    }
    println!("{:<32}{all_runs:>12.2}{:>12}{all_ns:>12.0}", "all", "");
    Ok(())
}

/// Traces so many forks; what the tool says of its programs.
fn ran(forks: u32) -> Result<Vec<Ran>> {
    let mut command = Command::new(fork_trace());
    command.args(["-v", "--json", "-o", "/dev/null", "--"]).arg(forker());
    command.args(["bench", "--op", "fork-exit-wait", "--count", &forks.to_string()]);
    let output = command.output().context("start fork-trace")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fork-trace ended with {}: {said}", output.status);
    let programs: Vec<_> = said.lines().filter_map(program).collect();
    ensure!(!programs.is_empty(), "fork-trace does not say how often its programs ran: {said}");
    Ok(programs)
}

/// Reads a line such as `... program sys_enter ran 12 times for 345 ns`.
fn program(line: &str) -> Option<Ran> {
    let (_, rest) = line.split_once("program ")?;
    let (name, rest) = rest.split_once(" ran ")?;
    let (runs, rest) = rest.split_once(" times for ")?;
    let run_time_ns = rest.split(' ').next()?;
    Some(Ran {
        name: name.to_owned(),
        runs: runs.parse().ok()?,
        run_time_ns: run_time_ns.parse().ok()?,
    })
}
