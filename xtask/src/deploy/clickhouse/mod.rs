//! What `deploy/clickhouse` holds, tried with the real engine: recordings are made and taken in, nothing of them may
//! be missing, and each query has to answer what their lines say.

mod answers;
mod engine;
mod recording;
mod times;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    command::{output_and_result, root},
    deploy::{
        clickhouse::{engine::Engine, recording::Recording},
        json::at,
        programs::{Programs, folder},
    },
};

/// Checks everything; returns a remark.
pub(super) fn check(programs: &Programs, python: &Path, rows: Option<u64>) -> Result<String> {
    let folder = folder("clickhouse")?;
    let recordings = [recording::whole(programs, &folder)?, recording::cut_off(programs, &folder)?];
    let data = folder.join("data");
    fs::remove_dir_all(&data).ok();
    let mut engine = Engine::start(python, &data)?;
    for (_, statement) in statements("table.sql")? {
        engine.ask(&statement)?;
    }
    // What is there already is not taken in again.
    for recording in recordings.iter().chain(&recordings) {
        ingest(&mut engine, &recording.file)?;
    }
    // Of lines without their first it is not known which host they are of.
    let file = folder.join("headless.json");
    let text = fs::read_to_string(&recordings[1].file).context("read a recording")?;
    let (_, rest) = text.split_once('\n').context("find its first line")?;
    fs::write(&file, rest).with_context(|| format!("write {}", file.display()))?;
    ensure!(ingest(&mut engine, &file).is_err(), "lines without a start line are taken in");
    for recording in &recordings {
        complete(&mut engine, recording)?;
    }
    summarised(&mut engine, programs, &recordings)?;
    pods(&mut engine)?;
    engine.set("from", "2000-01-01 00:00:00")?;
    engine.set("to", "2100-01-01 00:00:00")?;
    let queries = statements("queries.sql")?;
    for (name, query) in &queries {
        let answer = engine.ask(query).with_context(|| name.clone())?.rows;
        let wanted = answers::wanted(name, &recordings)?;
        ensure!(!wanted.is_empty(), "the recordings have nothing for the query {name}");
        answers::compare(&answer, &wanted).with_context(|| format!("the query {name}"))?;
    }
    let remark = format!("ClickHouse {}: {} queries are right", engine.version()?, queries.len());
    let Some(rows) = rows else { return Ok(remark) };
    times::times(&mut engine, rows, &queries)?;
    Ok(remark)
}

/// Paths of groups as Kubernetes makes them, by either driver, and the pods that they are of.
const PODS: [(&str, &str); 5] = [
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1ad35ba3_8b5e_4a7c_9bd5_2a1d7f0c4e11.slice/\
         cri-containerd-0f4e.scope",
        "1ad35ba3-8b5e-4a7c-9bd5-2a1d7f0c4e11",
    ),
    (
        "/kubepods/besteffort/pod1ad35ba3-8b5e-4a7c-9bd5-2a1d7f0c4e11/0f4e",
        "1ad35ba3-8b5e-4a7c-9bd5-2a1d7f0c4e11",
    ),
    // A static pod, seen from another container's namespace of groups.
    (
        "/../../kubepods-pod0123456789abcdef0123456789abcdef.slice/crio-0f4e.scope",
        "0123456789abcdef0123456789abcdef",
    ),
    ("/system.slice/podman.service", ""),
    ("/system.slice/podcafe.service", ""),
];

/// The uid of a pod has to be found in the path of a group.
fn pods(engine: &mut Engine) -> Result<()> {
    engine.ask("CREATE TABLE fork_trace.pods AS fork_trace.forks")?;
    for (path, pod) in PODS {
        engine
            .ask(&format!("INSERT INTO fork_trace.pods (ts, cgroup) VALUES (now(), '{path}')"))?;
        let is = engine.one(&format!("SELECT pod FROM fork_trace.pods WHERE cgroup = '{path}'"))?;
        ensure!(is == json!({ "pod": pod }), "the pod of {path} is {is}");
    }
    engine.ask("DROP TABLE fork_trace.pods").map(drop)
}

/// Takes a recording in.
fn ingest(engine: &mut Engine, file: &Path) -> Result<()> {
    engine.set("file", &file.display().to_string())?;
    for (_, statement) in statements("ingest.sql")? {
        engine.ask(&statement).with_context(|| statement.clone())?;
    }
    Ok(())
}

/// The statements of a file, each with the name that its comment gives it.
fn statements(file: &str) -> Result<Vec<(String, String)>> {
    let path = root().join("deploy/clickhouse").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let named = |statement: &str| {
        let comments = statement.lines().filter_map(|line| line.strip_prefix("-- "));
        // A heading of the file may stand above the comment of its first statement.
        let name = comments.filter_map(|comment| comment.split_once(": ")).next_back();
        (name.map_or("", |(name, _)| name).to_owned(), statement.to_owned())
    };
    let all = text.split(";\n").filter(|statement| !statement.trim().is_empty());
    Ok(all.map(named).collect())
}

/// Each line of a recording has to be there once, with its figures.
fn complete(engine: &mut Engine, recording: &Recording) -> Result<()> {
    let host = &recording.host;
    let is = engine.one(&format!(
        "SELECT count() AS forks, sum(total_ns) AS total_ns, sum(held_ns) AS held_ns, count(child_pid) AS made, \
             sum(length(waits.reason)) AS waits, sum(length(holders.comm)) AS holders, sum(rss_pages) AS rss_pages, \
             sum(length(ancestors)) AS ancestors, sum(off_cpu_ns) AS off_cpu_ns, \
             sum(queued_ns) AS queued_ns, sum(copied_page_table_bytes) AS tables, sum(ppid) AS ppids, sum(threads) AS threads, \
             uniqExact(id) AS ids, sum(cityHash64(id)) AS hash \
         FROM fork_trace.forks WHERE host = '{host}'"
    ))?;
    let forks = || recording.of("fork");
    let sum = |pointer: &str| forks().filter_map(|fork| at(fork, pointer).as_u64()).sum::<u64>();
    let lengths = |pointer: &str| {
        forks().filter_map(|fork| at(fork, pointer).as_array()).map(Vec::len).sum::<usize>()
    };
    let ids: Vec<_> =
        forks().filter_map(|fork| at(fork, "/id").as_str()).map(|id| format!("'{id}'")).collect();
    let hash = engine.one(&format!(
        "SELECT sum(cityHash64(id)) AS hash FROM VALUES('id String', {})",
        ids.join(",")
    ))?;
    let wanted = json!({
        "forks": forks().count(),
        "total_ns": sum("/total_ns"),
        "held_ns": sum("/held_ns"),
        "made": forks().filter(|fork| at(fork, "/child/pid").is_u64()).count(),
        "waits": lengths("/waits"),
        "holders": lengths("/cause/holders"),
        "rss_pages": sum("/memory/rss_pages"),
        "ancestors": lengths("/ancestors"),
        "off_cpu_ns": sum("/off_cpu_ns"),
        "queued_ns": sum("/child_start/queued_ns"),
        "tables": sum("/memory/copied_page_table_bytes"),
        "ppids": sum("/parent/ppid"),
        "threads": sum("/parent/threads"),
        "ids": ids.len(),
        "hash": at(&hash, "/hash"),
    });
    ensure!(is == wanted, "of {host} there is {is}, and not {wanted}");
    for (kind, sum, pointer) in [
        ("exec", "count(nullIf(exe, ''))", None),
        ("exit", "sum(lifetime_ns)", Some("/lifetime_ns")),
        ("vfork_done", "sum(wait_ns)", Some("/wait_ns")),
    ] {
        let is = engine.one(&format!(
            "SELECT count() AS lines, {sum} AS sum FROM fork_trace.follow_ups WHERE host = '{host}' AND type = '{kind}'"
        ))?;
        let of = |line: &Value| match pointer {
            Some(pointer) => at(line, pointer).as_u64().unwrap_or_default(),
            None => u64::from(at(line, "/exe").is_string()),
        };
        let lines = recording.of(kind).count();
        ensure!(lines > 0, "the recording of {host} has no {kind} lines");
        let wanted = json!({"lines": lines, "sum": recording.of(kind).map(of).sum::<u64>()});
        ensure!(is == wanted, "of {kind} lines of {host} there is {is}, and not {wanted}");
    }
    let is = engine.one(&format!(
        "SELECT count() AS recordings, any(attempts) AS attempts, any(lost) AS lost FROM fork_trace.recordings \
         WHERE host = '{host}'"
    ))?;
    let summary = recording.of("summary").next().unwrap_or(&Value::Null);
    let wanted = json!({
        "recordings": 1, "attempts": at(summary, "/attempts"), "lost": at(summary, "/lost"),
    });
    ensure!(is == wanted, "of the recordings of {host} there is {is}, and not {wanted}");
    Ok(())
}

/// The sums have to be those that fork-trace itself makes of a recording.
fn summarised(engine: &mut Engine, programs: &Programs, recordings: &[Recording]) -> Result<()> {
    for recording in recordings {
        let mut replay = Command::new(&programs.fork_trace);
        replay.arg("replay").arg(&recording.file).args(["--json", "--summary=comm"]);
        // Of one that was cut off there is a summary too, but the exit status tells that.
        let (lines, _) = output_and_result(&mut replay)?;
        let summary = lines.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(summary).context("read the summary")?;
        let host = &recording.host;
        let is = engine.one(&format!(
            "SELECT count() AS attempts, countIf(failed) AS failed, countIf(fell_back) AS fell_back \
             FROM fork_trace.forks WHERE host = '{host}'"
        ))?;
        let wanted = json!({
            "attempts": at(&summary, "/attempts"),
            "failed": at(&summary, "/failed"),
            "fell_back": at(&summary, "/fell_back").as_u64().unwrap_or_default(),
        });
        ensure!(is == wanted, "the summary of {host} says {wanted}, and ClickHouse {is}");
        let groups = at(&summary, "/groups/rows").as_array().context("find groups")?;
        for group in groups {
            let name = at(group, "/name").as_str().unwrap_or_default();
            let is = engine.one(&format!(
                "SELECT count() AS count, sum(held_ns) AS sum_ns, max(held_ns) AS max_ns FROM fork_trace.forks \
                 WHERE host = '{host}' AND comm = '{name}'"
            ))?;
            let wanted = json!({
                "count": at(group, "/count"),
                "sum_ns": at(group, "/held/sum_ns"),
                "max_ns": at(group, "/held/max_ns"),
            });
            ensure!(is == wanted, "the summary of {name} of {host} says {wanted}, ClickHouse {is}");
        }
    }
    Ok(())
}
