//! What each query has to answer of recordings, by their lines and without ClickHouse.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::deploy::{clickhouse::recording::Recording, json::at};

/// Rows that the queries with a limit tell.
const MOST: usize = 20;

/// An attempt, and its host.
#[derive(Clone, Copy)]
struct Fork<'a> {
    host: &'a str,
    line: &'a Value,
}

impl<'a> Fork<'a> {
    /// A word of its line; empty where there is none.
    fn word(&self, pointer: &str) -> &'a str {
        at(self.line, pointer).as_str().unwrap_or_default()
    }

    fn number(&self, pointer: &str) -> Option<u64> {
        at(self.line, pointer).as_u64()
    }

    fn comm(&self) -> &'a str {
        self.word("/parent/comm")
    }

    fn failed(&self) -> bool {
        !self.word("/errno_name").is_empty() && self.word("/fell_back_to").is_empty()
    }

    /// Its moment as ClickHouse tells it.
    fn ts(&self) -> String {
        self.word("/ts").trim_end_matches('Z').replace('T', " ")
    }
}

/// Attempts by what `key` says of them.
fn by<'a, K: Ord>(forks: &[Fork<'a>], key: impl Fn(&Fork<'a>) -> K) -> BTreeMap<K, Vec<Fork<'a>>> {
    let mut groups: BTreeMap<K, Vec<Fork<'a>>> = BTreeMap::new();
    for fork in forks {
        groups.entry(key(fork)).or_default().push(*fork);
    }
    groups
}

/// A percentile of the known values in milliseconds, between neighbours in proportion; null where none is known.
fn percentile(values: impl Iterator<Item = Option<u64>>, percent: usize) -> Value {
    let mut values: Vec<u64> = values.flatten().collect();
    values.sort_unstable();
    let Some(last) = values.len().checked_sub(1) else { return Value::Null };
    let (low, rest) = (percent * last / 100, percent * last % 100);
    let at = |place: usize| values.get(place).copied().unwrap_or_default() as f64;
    let (low, high) = (at(low), at((low + 1).min(last)));
    json!((low + (high - low) * rest as f64 / 100.0) / 1e6)
}

fn held<'a>(forks: &'a [Fork<'_>]) -> impl Iterator<Item = Option<u64>> + 'a {
    forks.iter().map(|fork| fork.number("/held_ns"))
}

/// The sum of known values in seconds; null where none is known.
fn seconds(values: impl Iterator<Item = Option<u64>>) -> Value {
    let sum = values.flatten().fold(None, |sum, value| Some(sum.unwrap_or(0) + value));
    sum.map_or(Value::Null, |sum| json!(sum as f64 / 1e9))
}

fn hosts(forks: &[Fork<'_>]) -> usize {
    forks.iter().map(|fork| fork.host).collect::<BTreeSet<_>>().len()
}

fn failures(forks: &[Fork<'_>]) -> usize {
    forks.iter().filter(|fork| fork.failed()).count()
}

/// Rows in the order of a number, the largest first; equal ones stay in their order. No more than a query tells.
fn largest(mut rows: Vec<Value>, pointer: &str) -> Vec<Value> {
    let number = |row: &Value| at(row, pointer).as_f64().unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|row, other| number(other).total_cmp(&number(row)));
    rows.truncate(MOST);
    rows
}

/// What the query of this name has to answer: of each row the columns that the lines decide.
pub(super) fn wanted(name: &str, recordings: &[Recording]) -> Result<Vec<Value>> {
    let forks: Vec<Fork<'_>> = recordings
        .iter()
        .flat_map(|of| of.of("fork").map(|line| Fork { host: &of.host, line }))
        .collect();
    Ok(match name {
        "callers" => {
            let row = |(comm, forks): (&str, Vec<Fork<'_>>)| {
                json!({
                    "comm": comm, "forks": forks.len(), "failures": failures(&forks), "hosts": hosts(&forks),
                    "held_s": seconds(held(&forks)), "p50_ms": percentile(held(&forks), 50),
                    "p99_ms": percentile(held(&forks), 99),
                })
            };
            largest(by(&forks, Fork::comm).into_iter().map(row).collect(), "/forks")
        }
        "slowest" => {
            let row = |fork: &Fork<'_>| {
                json!({
                    "host": fork.host, "ts": fork.ts(), "comm": fork.comm(), "pid": fork.number("/parent/pid"),
                    "held_ms": fork.number("/held_ns").map(|ns| ns as f64 / 1e6), "slow": fork.word("/slow/kind"),
                    "slow_text": fork.word("/slow/text"), "cgroup": fork.word("/parent/cgroup"),
                    "rss_mib": fork.number("/memory/rss_pages").map(|pages| pages as f64 / 256.0),
                })
            };
            let known = forks.iter().filter(|fork| fork.number("/held_ns").is_some());
            largest(known.map(row).collect(), "/held_ms")
        }
        "failures" => {
            let failed: Vec<_> = forks.iter().filter(|fork| fork.failed()).copied().collect();
            let groups = by(&failed, |fork| (fork.word("/cause/kind"), fork.word("/errno_name")));
            let row = |((cause, errno), forks): ((&str, &str), Vec<Fork<'_>>)| {
                json!({
                    "cause": cause, "errno": errno, "failures": forks.len(), "hosts": hosts(&forks),
                    "comms": by(&forks, Fork::comm).into_keys().collect::<Vec<_>>(),
                    "first": forks.iter().map(Fork::ts).min(), "last": forks.iter().map(Fork::ts).max(),
                })
            };
            largest(groups.into_iter().map(row).collect(), "/failures")
        }
        "minutes" => {
            let minute = |fork: &Fork<'_>| fork.ts().get(..16).unwrap_or_default().to_owned();
            let row = |((minute, kind), forks): ((String, &str), Vec<Fork<'_>>)| {
                json!({
                    "minute": format!("{minute}:00"), "kind": kind, "forks": forks.len(),
                    "p50_ms": percentile(held(&forks), 50), "p99_ms": percentile(held(&forks), 99),
                    "max_ms": held(&forks).flatten().max().map(|ns| ns as f64 / 1e6),
                })
            };
            by(&forks, |fork| (minute(fork), fork.word("/kind"))).into_iter().map(row).collect()
        }
        "waits" => waits(&forks),
        "places" => {
            let place = |fork: &Fork<'_>| {
                let words = [
                    ("container", "/parent/container/id"),
                    ("unit", "/parent/unit"),
                    ("cgroup", "/parent/cgroup"),
                ];
                let words = words.map(|(what, pointer)| (what, fork.word(pointer)));
                let known = words.into_iter().find(|(_, word)| !word.is_empty());
                let (what, place) = known.unwrap_or_default();
                (place.to_owned(), what)
            };
            let row = |((place, what), forks): ((String, &str), Vec<Fork<'_>>)| {
                json!({
                    "what": what, "place": place, "pod": "", "forks": forks.len(), "failures": failures(&forks),
                    "hosts": hosts(&forks), "held_s": seconds(held(&forks)), "p99_ms": percentile(held(&forks), 99),
                })
            };
            largest(by(&forks, place).into_iter().map(row).collect(), "/forks")
        }
        "hosts" => differing(&forks),
        "storms" => {
            let second = |fork: &Fork<'_>| fork.ts().get(..19).map(str::to_owned);
            let row = |((host, comm), forks): ((&str, &str), Vec<Fork<'_>>)| {
                let counts: Vec<_> =
                    by(&forks, second).into_values().map(|forks| forks.len()).collect();
                json!({
                    "host": host, "comm": comm, "most_in_a_second": counts.iter().max(),
                    "storms": counts.iter().filter(|count| **count > 1000).count(),
                })
            };
            let groups = by(&forks, |fork| (fork.host, fork.comm()));
            largest(groups.into_iter().map(row).collect(), "/most_in_a_second")
        }
        "limits" => limits(&forks),
        "vforks" => vforks(recordings, &forks)?,
        other => bail!("nothing is known of what the query {other:?} has to answer"),
    })
}

fn waits(forks: &[Fork<'_>]) -> Vec<Value> {
    let mut by_reason: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for fork in forks {
        for wait in at(fork.line, "/waits").as_array().into_iter().flatten() {
            let reason = at(wait, "/reason").as_str().unwrap_or_default();
            let ns = at(wait, "/dur_ns").as_u64().unwrap_or_default();
            by_reason.entry(reason).or_default().push((fork.host, ns));
        }
    }
    let row = |(reason, waits): (&str, Vec<(&str, u64)>)| {
        let ns = || waits.iter().map(|(_, ns)| Some(*ns));
        json!({
            "reason": reason, "waits": waits.len(), "waited_s": seconds(ns()), "p99_ms": percentile(ns(), 99),
            "hosts": waits.iter().map(|(host, _)| host).collect::<BTreeSet<_>>().len(),
        })
    };
    let mut rows: Vec<_> = by_reason.into_iter().map(row).collect();
    let sum = |row: &Value| at(row, "/waited_s").as_f64().unwrap_or_default();
    rows.sort_by(|row, other| sum(other).total_cmp(&sum(row)));
    rows
}

fn differing(forks: &[Fork<'_>]) -> Vec<Value> {
    let row = |(host, forks): (&str, Vec<Fork<'_>>)| {
        json!({
            "host": host, "forks": forks.len(), "failures": failures(&forks), "p99_ms": percentile(held(&forks), 99),
        })
    };
    let rows: Vec<_> = by(forks, |fork| fork.host).into_iter().map(row).collect();
    largest(rows, "/p99_ms")
}

fn limits(forks: &[Fork<'_>]) -> Vec<Value> {
    let at_limits: Vec<_> = forks
        .iter()
        .filter(|fork| fork.failed() && !fork.word("/cause/limit").is_empty())
        .copied()
        .collect();
    let groups = by(&at_limits, |fork| {
        (fork.host, fork.word("/cause/limit"), fork.word("/cause/path"), fork.comm())
    });
    let row = |((host, limit, path, comm), refused): ((&str, &str, &str, &str), Vec<Fork<'_>>)| {
        let first = refused.iter().min_by_key(|fork| fork.ts());
        let ts = first.map(Fork::ts).unwrap_or_default();
        let holders = first.and_then(|fork| at(fork.line, "/cause/holders").as_array());
        let holder = |it: &Value| json!([at(it, "/comm"), at(it, "/state"), at(it, "/count")]);
        // The recordings are shorter than a minute.
        let made = forks.iter().filter(|fork| {
            fork.host == host
                && fork.comm() == comm
                && fork.ts() < ts
                && fork.word("/errno_name").is_empty()
        });
        json!({
            "host": host, "limit_name": limit, "limit_path": path, "comm": comm, "refusals": refused.len(),
            "limit_max": refused.iter().filter_map(|fork| fork.number("/cause/max")).max(),
            "first": ts, "made_before": made.count(),
            "filled_by": holders.into_iter().flatten().map(holder).collect::<Vec<_>>(),
        })
    };
    largest(groups.into_iter().map(row).collect(), "/refusals")
}

fn vforks(recordings: &[Recording], forks: &[Fork<'_>]) -> Result<Vec<Value>> {
    let known: BTreeMap<_, _> =
        forks.iter().map(|fork| ((fork.host, fork.word("/id")), fork.comm())).collect();
    let mut groups: BTreeMap<(&str, &str), Vec<(&str, u64)>> = BTreeMap::new();
    for recording in recordings {
        for done in recording.of("vfork_done") {
            let ns = at(done, "/wait_ns").as_u64().context("find wait_ns")?;
            let id = at(done, "/fork_id").as_str().unwrap_or_default();
            let Some(comm) = known.get(&(recording.host.as_str(), id)) else { continue };
            if ns >= 10_000_000 {
                let released = at(done, "/released_by").as_str().unwrap_or_default();
                groups.entry((*comm, released)).or_default().push((&recording.host, ns));
            }
        }
    }
    let row = |((comm, released), waits): ((&str, &str), Vec<(&str, u64)>)| {
        json!({
            "comm": comm, "released_by": released, "vforks": waits.len(),
            "hosts": waits.iter().map(|(host, _)| host).collect::<BTreeSet<_>>().len(),
            "waited_s": seconds(waits.iter().map(|(_, ns)| Some(*ns))),
            "max_ms": waits.iter().map(|(_, ns)| *ns).max().map(|ns| ns as f64 / 1e6),
        })
    };
    Ok(largest(groups.into_iter().map(row).collect(), "/waited_s"))
}

/// Each row has to have what is wanted of it; it may have more columns.
pub(super) fn compare(rows: &[Value], wanted: &[Value]) -> Result<()> {
    ensure!(rows.len() == wanted.len(), "{} rows, and not {}", rows.len(), wanted.len());
    for (row, wanted) in rows.iter().zip(wanted) {
        for (column, value) in wanted.as_object().into_iter().flatten() {
            let is = row.get(column).unwrap_or(&Value::Null);
            ensure!(same(is, value), "{column} is {is}, and not {value}, in {row}");
        }
    }
    Ok(())
}

/// Numbers may differ in their last digits, and lists in their order.
fn same(is: &Value, wanted: &Value) -> bool {
    if let (Some(is), Some(wanted)) = (is.as_f64(), wanted.as_f64()) {
        return (is - wanted).abs() <= 1e-9 * wanted.abs().max(1.0);
    }
    match (is.as_array(), wanted.as_array()) {
        (Some(is), Some(wanted)) => {
            let sorted = |list: &[Value]| {
                let mut list: Vec<_> = list.iter().map(Value::to_string).collect();
                list.sort();
                list
            };
            sorted(is) == sorted(wanted)
        }
        _ => is == wanted,
    }
}
