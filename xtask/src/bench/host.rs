//! `bench host`: what tracing costs a program that forks, and one that does not.
//!
//! It runs `forker bench` in pairs, without and with the tracer, because a host's speed drifts: two
//! runs side by side compare, two runs minutes apart do not. It judges nothing.

use std::{
    io::{BufRead as _, BufReader, copy, sink},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    bench::median::median,
    build::programs::{build, fork_trace, forker},
    command::{is_root, output, run},
};

/// An operation of `forker bench`.
struct Op {
    /// Its name there.
    name: &'static str,
    /// How often it is done in one run.
    count: u32,
    /// Which of the numbers printed stands for the run.
    number: &'static str,
}

/// What is measured. A system call is too short to time singly, hence its mean.
const OPS: [Op; 3] = [
    Op { name: "fork", count: 2_000, number: "median_ns" },
    Op { name: "fork-exit-wait", count: 2_000, number: "median_ns" },
    Op { name: "getppid", count: 2_000_000, number: "mean_ns" },
];

/// The tracers: how each is called in the table, and its options.
const TRACERS: [(&str, &[&str]); 2] = [("default", &[]), ("--stages=none", &["--stages=none"])];

/// Measures, and prints a table.
pub(super) fn bench(rounds: u32) -> Result<()> {
    if !is_root()? {
        bail!(
            "tracing needs root: run `cargo xtask bench` as root, or `cargo xtask bench consumer`, which does not"
        );
    }
    build(&["--bins", "--examples"])?;
    println!("ns per operation, medians of {rounds} paired runs; the ratio is with / without");
    let heads = ["operation", "traced by", "without", "with", "difference", "ratio", "from", "to"];
    let [op, by, without, with, difference, ratio, from, to] = heads;
    println!(
        "{op:<16}{by:<16}{without:>12}{with:>12}{difference:>12}{ratio:>10}{from:>10}{to:>10}"
    );
    for (name, options) in TRACERS {
        table(name, &pairs(options, rounds)?);
    }
    Ok(())
}

/// For each operation, a pair for each round: without the tracer, with it.
fn pairs(options: &[&str], rounds: u32) -> Result<[Vec<(f64, f64)>; OPS.len()]> {
    let mut pairs = [const { Vec::new() }; OPS.len()];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        // Whichever goes first finds the host in another state, so they take turns.
        let traced_first = round % 2 == 0;
        let measure = |traced: bool| measure(traced.then_some(options));
        let first = measure(traced_first)?;
        let second = measure(!traced_first)?;
        for ((pairs, first), second) in pairs.iter_mut().zip(first).zip(second) {
            pairs.push(if traced_first { (second, first) } else { (first, second) });
        }
    }
    Ok(pairs)
}

/// Prints what tracing by the tracer `name` costs each operation.
fn table(name: &str, pairs: &[Vec<(f64, f64)>; OPS.len()]) {
    for (op, pairs) in OPS.iter().zip(pairs) {
        let without = median(pairs.iter().map(|(without, _)| *without));
        let with = median(pairs.iter().map(|(_, with)| *with));
        let difference = median(pairs.iter().map(|(without, with)| with - without));
        let ratios = pairs.iter().map(|(without, with)| with / without);
        let ratio = median(ratios.clone());
        let (from, to) = (ratios.clone().fold(ratio, f64::min), ratios.fold(ratio, f64::max));
        print!("{:<16}{name:<16}{without:>12.1}{with:>12.1}{difference:>12.1}", op.name);
        println!("{ratio:>10.3}{from:>10.3}{to:>10.3}");
    }
}

/// One run of each operation, while a tracer with these options traces the whole host, or while nobody
/// traces.
fn measure(options: Option<&[&str]>) -> Result<Vec<f64>> {
    let Some(options) = options else { return OPS.iter().map(measure_op).collect() };
    let mut tracer = start_tracer(options)?;
    let measured = OPS.iter().map(measure_op).collect();
    run(Command::new("kill").args(["-INT", &tracer.id().to_string()]))
        .context("stop fork-trace")?;
    let status = tracer.wait().context("wait for fork-trace")?;
    if !status.success() {
        bail!("fork-trace ended with {status}");
    }
    measured
}

/// One run of one operation.
fn measure_op(op: &Op) -> Result<f64> {
    let mut command = Command::new(forker());
    let text = output(command.args(["bench", "--op", op.name, "--count", &op.count.to_string()]))?;
    let result: Value =
        serde_json::from_str(&text).with_context(|| format!("read forker's answer {text:?}"))?;
    let number = result.get(op.number).and_then(Value::as_f64);
    number.with_context(|| format!("{} is not in forker's answer {text:?}", op.number))
}

/// Starts fork-trace with these options and waits until it is attached.
fn start_tracer(options: &[&str]) -> Result<Child> {
    let mut tracer = Command::new(fork_trace());
    tracer.args(["--json", "-o", "/dev/null"]).args(options).stderr(Stdio::piped());
    let mut child = tracer.spawn().context("start fork-trace")?;
    let mut stderr = BufReader::new(child.stderr.take().context("fork-trace has no stderr")?);
    let mut said = String::new();
    while !said.lines().next_back().is_some_and(|line| line.starts_with("tracing")) {
        if stderr.read_line(&mut said).context("read what fork-trace says")? == 0 {
            let status = child.wait().context("wait for fork-trace")?;
            bail!("fork-trace did not begin to trace ({status}): {said}");
        }
    }
    // A full pipe would stop the tracer.
    thread::spawn(move || copy(&mut stderr, &mut sink()));
    Ok(child)
}
