//! Recordings of forks that are made for the purpose.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    command::output,
    deploy::{json::at, programs::Programs},
};

/// What the traced shell runs: each recording is of other forks, so that the hosts differ.
const WORK: [&str; 2] = [
    "\"$1\" loop --count 3000; \"$1\" eagain-pids; \"$1\" hold-vfork --ms 50 --count 3; \
     for i in 1 2 3 4 5 6 7 8 9 10; do /bin/sh -c 'exit 3'; done; true",
    "\"$1\" wait ptrace; \"$1\" eagain-pids; \"$1\" eagain-pids; \"$1\" hold-vfork --ms 20 --count 1; \
     for i in 1 2 3 4 5; do /bin/true; done",
];

/// A recording of one host.
pub(super) struct Recording {
    pub(super) host: String,
    pub(super) file: PathBuf,
    lines: Vec<Value>,
}

impl Recording {
    /// Its lines of a type.
    pub(super) fn of<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| at(line, "/type") == wanted)
    }
}

/// A recording that ended in order, compressed.
pub(super) fn whole(programs: &Programs, folder: &Path) -> Result<Recording> {
    let file = folder.join("whole.json.zst");
    let text = record(programs, &file, WORK[0])?;
    recording(file, &text)
}

/// A recording of another host that was cut off, so that it has no summary.
pub(super) fn cut_off(programs: &Programs, folder: &Path) -> Result<Recording> {
    let file = folder.join("cut-off.json");
    let text = record(programs, &file, WORK[1])?;
    let host = recording(file.clone(), &text)?.host;
    let text = text.replacen(&format!("\"name\":\"{host}\""), "\"name\":\"another\"", 1);
    let (text, summary) = text.trim_end().rsplit_once('\n').context("find the last line")?;
    ensure!(summary.starts_with("{\"type\":\"summary\""), "the last line is {summary}");
    fs::write(&file, format!("{text}\n")).with_context(|| format!("write {}", file.display()))?;
    recording(file, text)
}

/// Records what a shell runs; returns the lines.
fn record(programs: &Programs, file: &Path, work: &str) -> Result<String> {
    output(
        Command::new(&programs.fork_trace)
            .args(["--exec", "--exit", "--buffer", "64M", "-o"])
            .arg(file)
            .args(["--", "/bin/sh", "-c", work, "sh"])
            .arg(&programs.forker)
            .stdin(Stdio::null()),
    )?;
    output(Command::new(&programs.fork_trace).arg("replay").arg(file).arg("--json"))
}

fn recording(file: PathBuf, text: &str) -> Result<Recording> {
    let lines: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("read a line")?;
    let host = lines.first().map(|start| at(start, "/host/name").as_str().unwrap_or_default());
    Ok(Recording { host: host.unwrap_or_default().to_owned(), file, lines })
}
