//! `bench consumer`: what one attempt costs the tool in user space.
//!
//! The example `consumer` feeds a recording of the ring through the chain of a live trace, and the tool
//! replays what that wrote. Neither needs root.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde_json::Value;

use crate::{
    bench::median::median,
    build::programs::{build, consumer, fork_trace},
    command::{output, root},
};

/// A recording of plain forks: one thread, no exec, no wait.
const RECORDING: &str = "fork-trace/examples/consumer/plain.ring";
/// How many attempts a timed run has.
const FORKS: u64 = 40_000;
/// How many attempts the shorter of two counted runs has; the longer one has twice as many, so that the
/// difference has nothing of the start and the end.
const COUNTED: u64 = 2_000;

/// A way of an attempt through the tool.
struct Way {
    name: &'static str,
    /// Whether it begins with a recording of the ring; the others begin with what that gave.
    feeds: bool,
    /// How the file is called that it ends with, which says its format.
    out: &'static str,
}

const WAYS: [Way; 4] = [
    Way { name: "ring to JSON", feeds: true, out: "out.json" },
    Way { name: "ring to text", feeds: true, out: "out.txt" },
    Way { name: "JSON to text", feeds: false, out: "out.txt" },
    Way { name: "JSON to JSON", feeds: false, out: "out.json" },
];

impl Way {
    fn program(&self) -> PathBuf {
        if self.feeds { consumer() } else { fork_trace() }
    }

    /// The arguments of the program for so many attempts, behind those of `command`.
    fn complete(&self, mut command: Command, files: &Files, forks: u64) -> Command {
        if self.feeds {
            command.arg("feed").arg(root().join(RECORDING)).arg(forks.to_string());
        } else {
            command.arg("replay").arg(files.recorded(forks));
        }
        command.arg("-o").arg(files.0.join(self.out));
        command
    }
}

/// A folder of our own, which goes with this value.
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("fork-trace-bench-{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    fn recorded(&self, forks: u64) -> PathBuf {
        self.0.join(format!("{forks}.json"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// Measures, and prints a table.
pub(super) fn bench(rounds: u32) -> Result<()> {
    build(&["--bins", "--examples"])?;
    let files = Files::new()?;
    let [to_json, ..] = &WAYS;
    for forks in [COUNTED, 2 * COUNTED, FORKS] {
        output(&mut to_json.complete(Command::new(to_json.program()), &files, forks))?;
        fs::rename(files.0.join(to_json.out), files.recorded(forks))
            .context("keep what was written")?;
    }
    let counts = valgrind();
    if !counts {
        eprintln!("instructions are not counted: install valgrind");
    }
    println!(
        "one plain fork, {FORKS} in each of {rounds} runs in turn; CPU of all threads together"
    );
    let heads = ["way", "CPU us", "least", "forks/s", "instructions", "MiB"];
    let [way, cpu, least, rate, instructions, memory] = heads;
    println!("{way:<16}{cpu:>10}{least:>10}{rate:>12}{instructions:>14}{memory:>8}");
    let mut runs = [const { Vec::new() }; WAYS.len()];
    for _ in 0..rounds {
        for (way, runs) in WAYS.iter().zip(&mut runs) {
            runs.push(timed(way, &files)?);
        }
    }
    for (way, runs) in WAYS.iter().zip(&runs) {
        let instructions = if counts { counted(way, &files)?.to_string() } else { String::new() };
        let cpu = runs.iter().map(|run| run.cpu_us);
        let least = cpu.clone().fold(f64::INFINITY, f64::min);
        let (cpu, rate) = (median(cpu), median(runs.iter().map(|run| run.rate)));
        let memory = runs.iter().filter_map(|run| run.max_rss_mib).fold(0.0, f64::max);
        let memory = if memory > 0.0 { format!("{memory:.1}") } else { String::new() };
        print!("{:<16}{cpu:>10.2}{least:>10.2}{rate:>12.0}", way.name);
        println!("{instructions:>14}{memory:>8}");
    }
    Ok(())
}

/// One run.
struct Run {
    cpu_us: f64,
    rate: f64,
    /// The most that was resident at once, where the program says it.
    max_rss_mib: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "a figure of four digits is printed")]
fn timed(way: &Way, files: &Files) -> Result<Run> {
    let mut command = way.complete(Command::new(way.program()), files, FORKS);
    let cpu_before = children_us()?;
    let began = Instant::now();
    let said = output(&mut command)?;
    let took = began.elapsed();
    let said: Value = serde_json::from_str(&said).unwrap_or_default();
    let max_rss_kib = said.get("max_rss_kib").and_then(Value::as_f64);
    Ok(Run {
        cpu_us: (children_us()? - cpu_before) as f64 / FORKS as f64,
        rate: FORKS as f64 / took.as_secs_f64(),
        max_rss_mib: max_rss_kib.map(|kib| kib / 1024.0),
    })
}

/// The CPU time of all programs that were run, in microseconds.
fn children_us() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("read the resource usage")?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds())
}

fn valgrind() -> bool {
    output(Command::new("valgrind").arg("--version")).is_ok()
}

/// Instructions in user space, of one attempt.
fn counted(way: &Way, files: &Files) -> Result<u64> {
    let count = |forks: u64| -> Result<u64> {
        let written = files.0.join("callgrind.out");
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind"]);
        command.arg(format!("--callgrind-out-file={}", written.display()));
        command.arg(way.program());
        output(&mut way.complete(command, files, forks))?;
        let text = fs::read_to_string(&written).context("read what callgrind wrote")?;
        let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
        let total = total.context("callgrind wrote no summary")?;
        total.trim().parse().with_context(|| format!("callgrind counted {total:?}"))
    };
    let (shorter, longer) = (count(COUNTED)?, count(2 * COUNTED)?);
    Ok(longer.saturating_sub(shorter) / COUNTED)
}
