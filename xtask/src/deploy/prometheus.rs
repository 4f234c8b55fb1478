//! What `deploy/prometheus` and `deploy/grafana` hold, tried with the real Prometheus.
//!
//! Debian's `promtool` checks and tests the rules. Then a `prometheus` scrapes a running `fork-trace export`, while
//! `forker` makes slow, refused and many forks: each metric has to arrive, each alert of the same rules has to fire,
//! and each query of the dashboard has to work.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    build::apt::Apt,
    command::{output, root},
    deploy::{
        json::at,
        programs::{self, Running, folder},
    },
};

/// Where Debian's packages come from.
const SUITE: (&str, &str) = ("debian", "bookworm");

/// How long a metric or an alert may take to arrive.
const PATIENCE: Duration = Duration::from_secs(90);

/// Plain forks that are made and counted.
const FORKS: u32 = 500;

/// Every metric that a trace without stages has while there are slow and refused forks.
const METRICS: [&str; 17] = [
    "fork_trace_attempts_total",
    "fork_trace_failures_total",
    "fork_trace_duration_seconds_bucket",
    "fork_trace_held_seconds_bucket",
    "fork_trace_child_wait_seconds_count",
    "fork_trace_stage_seconds_sum",
    "fork_trace_wait_seconds_total",
    "fork_trace_limit_used_ratio",
    "fork_trace_forks_by_comm_total",
    "fork_trace_held_seconds_by_comm_total",
    "fork_trace_label_values_dropped_total",
    "fork_trace_zombies",
    "fork_trace_stuck",
    "fork_trace_lost_records_total",
    "fork_trace_overhead_seconds_total",
    "fork_trace_kernel_forks_total",
    "fork_trace_build_info",
];

/// Every alert, each with what it has to say of itself.
const ALERTS: [(&str, &str, &str); 7] = [
    ("ForksSlow", "kind", "process"),
    ("ForksRefused", "cause", "cgroup-pids"),
    ("ForkLimitNearlyFull", "limit", "pids.max"),
    ("ZombiesNotWaitedFor", "severity", "warning"),
    ("ForksStuck", "severity", "warning"),
    ("ForkRecordsLost", "kind", "ring_full"),
    ("ForkTraceDown", "job", "fork-trace"),
];

/// Checks everything; returns a remark.
pub(super) fn check(traced: programs::Programs) -> Result<String> {
    let folder = folder("prometheus")?;
    let programs = Programs::find(traced, &folder)?;
    let rules = root().join("deploy/prometheus");
    for args in [["check", "config", "scrape.yml"], ["check", "rules", "rules.yml"]] {
        output(Command::new(&programs.promtool).args(args).current_dir(&rules))?;
    }
    let syntax = ["check", "config", "--syntax-only", "../kubernetes/scrape.yml"];
    output(Command::new(&programs.promtool).args(syntax).current_dir(&rules))?;
    let test = ["test", "rules", "rules_test.yml"];
    print!("{}", output(Command::new(&programs.promtool).args(test).current_dir(&rules))?);
    let native = scrape(&programs, &folder, &["--enable-feature=native-histograms"], native)?;
    let whole = scrape(&programs, &folder, &[], classic)?;
    Ok(format!("{whole}; {native}"))
}

/// What is run.
struct Programs {
    prometheus: PathBuf,
    promtool: PathBuf,
    traced: programs::Programs,
}

impl Programs {
    /// Fetches Debian's prometheus if there is none.
    fn find(traced: programs::Programs, folder: &Path) -> Result<Self> {
        let installed = Path::new("/usr/bin/prometheus");
        let bin = if installed.is_file() {
            PathBuf::from("/usr/bin")
        } else {
            let fetched = folder.join("root");
            if !fetched.join("usr/bin/prometheus").is_file() {
                Apt::new(folder.join("apt"), &[SUITE])?.unpack("prometheus", &fetched)?;
            }
            fetched.join("usr/bin")
        };
        let (prometheus, promtool) = (bin.join("prometheus"), bin.join("promtool"));
        Ok(Self { prometheus, promtool, traced })
    }

    /// An export on a free port, and the address that it says.
    fn export(&self, args: &[&str]) -> Result<(Running, SocketAddr)> {
        let mut child = Command::new(&self.traced.fork_trace)
            .args(["export", "--listen", "127.0.0.1:0"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .context("start fork-trace export")?;
        let stderr = child.stderr.take().context("take its standard error")?;
        let export = Running(child);
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line).context("read what it says")?;
        let address = line.trim().trim_end_matches("/metrics").rsplit('/').next();
        let address = address.unwrap_or_default().parse();
        Ok((export, address.with_context(|| format!("it says {line:?}"))?))
    }

    fn forker(&self, args: &[&str]) -> Result<()> {
        output(Command::new(&self.traced.forker).args(args)).map(drop)
    }
}

/// Prometheus under test, and what it scrapes.
struct Scraped<'a> {
    programs: &'a Programs,
    address: SocketAddr,
    /// The export as Prometheus calls it.
    instance: String,
}

/// Starts all, and hands it to `check`.
fn scrape(
    programs: &Programs,
    folder: &Path,
    features: &[&str],
    check: impl FnOnce(&Scraped<'_>) -> Result<String>,
) -> Result<String> {
    let (_export, exported) =
        programs.export(&["--stages=default", "--comm", "forker", "--comm", "sh"])?;
    // One with so little room that it loses records, and one that is not there.
    let (_narrow, narrow) = programs.export(&["--buffer", "4K", "--comm", "forker"])?;
    let free = || -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
        listener.local_addr().context("ask for its number")
    };
    let (absent, address) = (free()?, free()?);
    let data = folder.join("data");
    fs::remove_dir_all(&data).ok();
    fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
    let targets = format!("\"{exported}\", \"{narrow}\", \"{absent}\"");
    hasten(folder, &targets)?;
    let prometheus = Command::new(&programs.prometheus)
        .arg(format!("--config.file={}", folder.join("scrape.yml").display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=error")
        .args(features)
        .spawn()
        .context("start prometheus")?;
    let _prometheus = Running(prometheus);
    check(&Scraped { programs, address, instance: exported.to_string() })
}

/// Writes copies of the configuration and of the rules that need seconds instead of minutes.
fn hasten(folder: &Path, targets: &str) -> Result<()> {
    let source = root().join("deploy/prometheus");
    let read = |name: &str| {
        fs::read_to_string(source.join(name))
            .with_context(|| format!("read deploy/prometheus/{name}"))
    };
    let scrape = read("scrape.yml")?
        .replace("scrape_interval: 15s", "scrape_interval: 1s")
        .replace("\"127.0.0.1:9464\"", targets);
    let scrape = format!("global:\n  evaluation_interval: 1s\n{scrape}");
    let mut rules = String::new();
    for line in read("rules.yml")?.lines() {
        let line = if line.trim().starts_with("for: ") { "        for: 0s" } else { line };
        rules.push_str(&line.replace("[5m]", "[30s]").replace("offset 5m", "offset 30s"));
        rules.push('\n');
    }
    for (name, text) in [("scrape.yml", scrape), ("rules.yml", rules)] {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

impl Scraped<'_> {
    /// What the API answers.
    fn ask(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address).context("connect to prometheus")?;
        stream.set_read_timeout(Some(PATIENCE)).context("wait for prometheus")?;
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n").context("ask prometheus")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("read what prometheus answers")?;
        let (_, body) = text.split_once("\r\n\r\n").context("find the answer's end")?;
        let answer: Value = serde_json::from_str(body).with_context(|| format!("read {body}"))?;
        ensure!(at(&answer, "/status") == "success", "{path}: {answer}");
        Ok(at(&answer, "/data").clone())
    }

    /// The values of a query.
    fn query(&self, query: &str) -> Result<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("query?query={encoded}"))?;
        Ok(at(&data, "/result").as_array().cloned().unwrap_or_default())
    }

    /// The largest value of a query; `None` where there is none.
    fn largest(&self, query: &str) -> Option<f64> {
        let values = self.query(query).ok()?;
        let number = |value: &Value| at(value, "/value/1").as_str()?.parse::<f64>().ok();
        values.iter().filter_map(number).max_by(f64::total_cmp)
    }

    /// Waits until a query of the export's own metrics has a value of at least `least`.
    fn at_least(&self, query: &str, least: f64) -> Result<()> {
        let query = query.replace("$i", &format!("instance=\"{}\"", self.instance));
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.largest(&query);
            if value.is_some_and(|value| value >= least) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{query} is {value:?}, and not {least} or more");
            sleep(Duration::from_millis(500));
        }
    }
}

/// With native histograms Prometheus asks for protocol buffers, and keeps no classic buckets.
fn native(scraped: &Scraped<'_>) -> Result<String> {
    let up = "fork_trace_stuck{$i}";
    scraped.at_least(up, 0.0)?;
    let forks = FORKS.to_string();
    scraped.programs.forker(&["loop", "--count", &forks])?;
    let metric = "fork_trace_duration_seconds{$i,kind=\"process\"}";
    scraped.at_least(&format!("histogram_count({metric})"), f64::from(FORKS))?;
    scraped.at_least(&format!("histogram_quantile(0.5, {metric})"), 1e-6)?;
    scraped.at_least(&format!("10 - histogram_quantile(0.5, {metric})"), 0.0)?;
    let mean = format!("histogram_sum({metric}) / histogram_count({metric})");
    scraped.at_least(&mean, 1e-6)?;
    Ok("native histograms arrived".to_owned())
}

fn classic(scraped: &Scraped<'_>) -> Result<String> {
    let programs = scraped.programs;
    scraped.at_least("fork_trace_stuck{$i}", 0.0)?;
    // Children that nobody waits for, for as long as the checks take.
    let mut zombies = Command::new("python3");
    zombies.args([
        "-c",
        "import os,time\nfor i in range(150):\n  os.fork() or os._exit(0)\ntime.sleep(600)",
    ]);
    let _zombies = Running(zombies.spawn().context("start python3")?);
    let mut held = Command::new(&programs.traced.forker);
    held.args(["hold-vfork", "--ms", "60000", "--count", "2"]).stdout(Stdio::null());
    let _held = Running(held.spawn().context("start forker")?);
    let forks = FORKS.to_string();
    programs.forker(&["loop", "--count", &forks])?;
    let process = "{$i,kind=\"process\"";
    scraped
        .at_least(&format!("fork_trace_attempts_total{process},result=\"ok\"}}"), FORKS.into())?;
    scraped.at_least(&format!("fork_trace_held_seconds_count{process}}}"), FORKS.into())?;
    scraped.at_least("fork_trace_forks_by_comm_total{$i,comm=\"forker\"}", FORKS.into())?;
    scraped.at_least("fork_trace_stuck{$i}", 2.0)?;
    scraped.at_least("max(fork_trace_zombies{$i})", 150.0)?;
    let (mut missing, mut fired) = (BTreeSet::new(), BTreeSet::new());
    let end = Instant::now() + PATIENCE;
    loop {
        programs.forker(&["wait", "ptrace"])?;
        programs.forker(&["eagain-pids"])?;
        // Of so many the one with little room cannot keep up.
        programs.forker(&["loop", "--count", "50", "--threads", "4"])?;
        missing.clear();
        for metric in METRICS {
            let query = format!("{metric}{{instance=\"{}\"}}", scraped.instance);
            if scraped.largest(&query).is_none() {
                missing.insert(metric);
            }
        }
        let alerts = scraped.ask("alerts")?;
        let alerts = at(&alerts, "/alerts").as_array().cloned().unwrap_or_default();
        for (name, label, value) in ALERTS {
            let fires = |alert: &Value| {
                at(alert, "/state") == "firing"
                    && at(alert, "/labels/alertname") == name
                    && at(alert, &format!("/labels/{label}")) == value
            };
            if alerts.iter().any(fires) {
                fired.insert(name);
            }
        }
        if missing.is_empty() && fired.len() == ALERTS.len() {
            break;
        }
        if Instant::now() >= end {
            bail!(
                "these metrics are missing: {missing:?}; of the alerts only these fired: {fired:?}"
            );
        }
    }
    let failures = "fork_trace_failures_total{$i,errno=\"EAGAIN\",cause=\"cgroup-pids\"}";
    scraped.at_least(failures, 1.0)?;
    scraped.at_least("fork_trace_limit_used_ratio{$i,limit=\"pids.max\"}", 1.0)?;
    let queries = dashboard(scraped)?;
    Ok(format!(
        "{} metrics arrived, {} alerts fired, {queries} queries of the dashboard work",
        METRICS.len(),
        ALERTS.len()
    ))
}

/// Runs each query of the dashboard; returns how many there are.
fn dashboard(scraped: &Scraped<'_>) -> Result<usize> {
    let file = root().join("deploy/grafana/fork-trace.json");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let dashboard: Value = serde_json::from_str(&text).context("read the dashboard")?;
    let (mut count, mut empty) = (0, Vec::new());
    for panel in at(&dashboard, "/panels").as_array().context("find its panels")? {
        for target in at(panel, "/targets").as_array().context("find a panel's queries")? {
            let query = at(target, "/expr").as_str().context("find a query")?;
            let query = query.replace("$__rate_interval", "60s").replace("$instance", ".*");
            let values = scraped.query(&query).with_context(|| query.clone())?;
            count += 1;
            // Nothing was left out of labels, and that query shows only what was.
            if values.is_empty() && !query.contains("label_values_dropped") {
                empty.push(query);
            }
        }
    }
    ensure!(empty.is_empty(), "these queries of the dashboard have no value: {empty:#?}");
    Ok(count)
}
