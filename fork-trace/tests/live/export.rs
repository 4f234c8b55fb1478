//! Metrics: what is scraped is what was forked, in lines that a strict reader takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{
    Folder, forker, kill, lines, live_test, of_type, run, slower, summary, tool, wait,
};

/// A running export.
struct Export {
    child: Option<Child>,
    address: SocketAddr,
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Export {
    /// Starts it on a free port, and waits until it says which.
    fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("fork-trace: metrics at http://");
        let address = address.and_then(|rest| rest.trim().strip_suffix("/metrics"));
        let address = address.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { child: Some(child), address }
    }

    /// What it answers, head and body.
    fn ask(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
        (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end + 4..].to_vec())
    }

    fn scrape(&self) -> BTreeMap<String, f64> {
        let (head, body) = self.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("Content-Type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(format!("{head}\r\n").contains(&length), "{head}");
        read(&String::from_utf8(body).unwrap())
    }
}

/// The samples of an exposition, which has to be as `OpenMetrics` wants it: each family once, with its help, type and
/// unit before its samples, each sample of a name that its type allows, none twice, and an end.
fn read(text: &str) -> BTreeMap<String, f64> {
    let lines = text.strip_suffix("# EOF\n").expect("an end");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), String::new());
    for line in lines.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let [word, name, value] = [(); 3].map(|()| words.next().unwrap_or_default().to_owned());
            match word.as_str() {
                "HELP" => {
                    assert!(families.insert(name.clone()) && !value.is_empty(), "{line}");
                    helped = name;
                }
                "TYPE" => {
                    assert_eq!(name, helped, "{line}");
                    assert!(["counter", "gauge", "histogram", "info"].contains(&value.as_str()));
                    (family, kind) = (name, value);
                }
                "UNIT" => assert!(name == family && name.ends_with(&format!("_{value}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, _exemplar) = line.split_once(" # ").unwrap_or((line, ""));
        let (metric, value) = sample.rsplit_once(' ').unwrap();
        let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
        assert!(labels.ends_with('}') && !labels.contains(['\x1b', '\t']), "{line}");
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line}"));
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            _ => &["_bucket", "_count", "_sum"],
        };
        assert!(suffixes.contains(&suffix), "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(metric.to_owned(), value).is_none(), "{line}");
    }
    samples
}

fn attempts(samples: &BTreeMap<String, f64>) -> f64 {
    let own = samples.iter().filter(|(metric, _)| metric.contains("_forks_by_comm_total"));
    own.filter(|(metric, _)| metric.contains("\"fork-test\"")).map(|(_, count)| count).sum()
}

#[test]
fn a_scrape_has_every_fork_and_the_end_is_clean() {
    live_test!();
    let folder = Folder::new("export");
    let socket = folder.file("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_nanos(slower(20_000_000_000)))).unwrap();
    let heard = || {
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut command = tool();
    command.args(["export", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
    let mut export = Export::start(&mut command);
    assert_eq!(heard(), "READY=1");
    let before = export.scrape();
    // A name of its own, so that no other program's forks are counted with these.
    let script =
        "printf fork-test > /proc/$$/comm; i=0; while [ $i -lt 20 ]; do (:); i=$((i+1)); done";
    assert!(run(Command::new("sh").args(["-c", script])).status.success());
    let end = Instant::now() + Duration::from_nanos(slower(10_000_000_000));
    let mut after = export.scrape();
    while attempts(&after) < 20.0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        after = export.scrape();
    }
    assert_eq!((attempts(&before), attempts(&after)), (0.0, 20.0));
    let made = "fork_trace_attempts_total{kind=\"process\",result=\"ok\"}";
    assert!(after[made] >= before[made] + 20.0);
    assert_eq!(after["fork_trace_duration_seconds_count{kind=\"process\"}"], after[made]);
    assert!(
        after["fork_trace_kernel_forks_total"] >= before["fork_trace_kernel_forks_total"] + 20.0
    );
    assert!(after["fork_trace_overhead_seconds_total"] > 0.0);
    assert!(after.keys().all(|metric| metric.len() < 200 && !metric.contains("pid=")));

    // The other formats, and what is no scrape.
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                  encoding=delimited";
    let (head, body) = export.ask(&format!("GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n"));
    assert!(head.contains("application/vnd.google.protobuf"), "{head}");
    assert!(body.windows(25).any(|part| part == b"fork_trace_attempts_total"), "{body:x?}");
    let (head, body) = export.ask("GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(!String::from_utf8(body).unwrap().contains("# EOF"));
    assert!(export.ask("GET /healthz HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 200"));
    assert!(export.ask("GET / HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 404"));
    assert!(export.ask("PUT /metrics HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 405"));
    assert!(export.ask("hello\r\n\r\n").0.starts_with("HTTP/1.1 400"));
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(8 << 10));
    assert!(export.ask(&long).0.starts_with("HTTP/1.1 431"));

    // Clients that say nothing hold up nobody else: as many as there may be connections end by themselves.
    let idle: Vec<_> = (0..15).map(|_| TcpStream::connect(export.address).unwrap()).collect();
    export.scrape();
    drop(idle);

    assert_eq!(heard(), "WATCHDOG=1");
    kill(export.child.as_ref().unwrap().id(), Signal::SIGTERM);
    let output = wait(export.child.take().unwrap(), Duration::from_nanos(slower(20_000_000_000)));
    assert_eq!(output.status.code(), Some(0));
    let mut last = heard();
    while last == "WATCHDOG=1" {
        last = heard();
    }
    assert_eq!(last, "STOPPING=1");
    assert!(TcpStream::connect(export.address).is_err(), "the port is closed");
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_is_attached() {
    live_test!();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(tool().args(["export", "--listen", &address]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot listen at {address}: Address already in use")),
        "{said}"
    );
    assert!(said.contains("hint: choose another address with --listen"), "{said}");
}

/// Waits for a recording of this reason in a folder.
fn recording(folder: &Path, reason: &str) -> PathBuf {
    let ending = format!("-{reason}.json.gz");
    let end = Instant::now() + Duration::from_nanos(slower(20_000_000_000));
    loop {
        let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        let found: Vec<_> =
            entries.filter(|path| path.to_str().unwrap().ends_with(&ending)).collect();
        if let [path] = found.as_slice() {
            return path.clone();
        }
        assert!(found.is_empty() && Instant::now() < end, "{ending}: {found:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_refused_fork_and_a_signal_are_recorded_and_replayed() {
    live_test!();
    let folder = Folder::new("record");
    // It is made.
    let place = folder.file("flight/recordings");
    let mut command = tool();
    command.args(["export", "-n", "forker", "--listen", "127.0.0.1:0", "--record-pause", "1h"]);
    command.arg("--record").arg(&place);
    let export = Export::start(&mut command);
    for _ in 0..3 {
        assert!(run(Command::new(forker()).arg("einval-thread")).status.success());
    }
    let failure = recording(&place, "failure");
    kill(export.child.as_ref().unwrap().id(), Signal::SIGUSR1);
    let signal = recording(&place, "signal");
    for (path, least) in [(&failure, 1), (&signal, 3)] {
        let output = run(tool().args(["replay", path.to_str().unwrap(), "--json"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown = lines(output.stdout);
        let refused: Vec<_> = of_type(&shown, "fork")
            .into_iter()
            .filter(|fork| fork["parent"]["comm"] == "forker" && fork["errno_name"] == "EINVAL")
            .collect();
        assert!(refused.len() >= least, "{refused:?}");
        for fork in &refused {
            assert_eq!(fork["cause"]["kind"], "invalid-flags", "{fork}");
            // Names are looked up for those who read single attempts.
            assert!(fork["parent"]["exe"].as_str().unwrap().ends_with("forker"), "{fork}");
        }
        let causes = &summary(&shown)["failures_by_cause"];
        assert!(causes["invalid-flags"].as_u64().unwrap() >= least as u64, "{causes}");
    }
    let samples = export.scrape();
    for trigger in ["failure", "signal"] {
        let metric = format!("fork_trace_recordings_total{{trigger=\"{trigger}\"}}");
        assert_eq!(samples[&metric], 1.0, "{samples:?}");
    }
    assert_eq!(samples["fork_trace_recordings_failed_total"], 0.0);
    assert_eq!(samples["fork_trace_recorder_lines_left_total{bound=\"size\"}"], 0.0);
}
