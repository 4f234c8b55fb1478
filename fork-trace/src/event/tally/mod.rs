//! Counts and distributions of the forks that are shown, in bounded memory.

pub(crate) mod distribution;
mod groups;
pub mod sample;
pub(crate) mod slowest;
pub(crate) mod stages;

use std::collections::BTreeMap;

use foldhash::HashMap;

use crate::event::{
    follow_up::VforkDone,
    fork::{Fork, failure},
    stage::StageLine,
    summary::{By, FailedBy, Summary},
    tally::{
        distribution::Distribution,
        groups::{Grouped, Key},
        slowest::{HeldAttempt, Slowest},
        stages::Stages,
    },
    values::{Kind, Name},
};

/// How many attempts are remembered at once whose callers are still held.
const MOST_HELD: usize = 16_384;

/// How many pairs of a cause and a caller's name are remembered.
const MOST_FAILING: usize = 4_096;

/// How many callers are named for each cause.
const NAMED: usize = 5;

/// What was shown so far.
///
/// It grows with the number of kinds, errors and stages, and with the logarithm of the longest
/// duration, not with the number of forks.
#[derive(Clone, Debug)]
pub struct Tally {
    attempts: u64,
    succeeded: u64,
    fell_back: u64,
    by_kind: BTreeMap<Kind, u64>,
    failures: BTreeMap<Name, u64>,
    totals: BTreeMap<Kind, Distribution>,
    /// Attempts by id that were shown while their callers were held: no more than [`MOST_HELD`].
    held: BTreeMap<String, Held>,
    /// The attempt of the latest `stage` line.
    of_line: String,
    /// What only a summary tells that was asked for.
    asked: Option<Asked>,
    stages: Stages,
}

/// An attempt that was shown while its caller was held.
#[derive(Clone, Debug)]
struct Held {
    kind: Kind,
    group: Option<Key>,
    attempt: Option<HeldAttempt>,
}

/// What only a summary tells that was asked for.
#[derive(Clone, Debug)]
struct Asked {
    groups: Grouped,
    slowest: Slowest,
    /// Failures by cause and by the caller's name: no more than [`MOST_FAILING`].
    failing: HashMap<(Name, String), u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Tally {
    /// Of nothing yet; for a summary that puts attempts into groups `by` this, where it was asked for.
    #[must_use]
    pub fn new(by: Option<By>) -> Self {
        Self {
            attempts: 0,
            succeeded: 0,
            fell_back: 0,
            by_kind: BTreeMap::new(),
            failures: BTreeMap::new(),
            totals: BTreeMap::new(),
            held: BTreeMap::new(),
            of_line: String::new(),
            asked: by.map(|by| Asked {
                groups: Grouped::new(by),
                slowest: Slowest::default(),
                failing: HashMap::default(),
            }),
            stages: Stages::default(),
        }
    }

    /// Counts one attempt.
    pub fn add(&mut self, fork: &Fork) {
        self.attempts += 1;
        if let Some(kind) = fork.kind {
            *self.by_kind.entry(kind).or_default() += 1;
        }
        let group = self.asked.as_mut().and_then(|asked| asked.add(fork));
        if fork.succeeded() {
            self.succeeded += 1;
            match (fork.kind, fork.took_ns()) {
                (Some(kind), Some(ns)) => self.totals.entry(kind).or_default().add(ns),
                (Some(Kind::Vfork), None) if self.held.len() < MOST_HELD => {
                    let attempt = self.asked.as_ref().and_then(|_| HeldAttempt::new(fork));
                    let held = Held { kind: Kind::Vfork, group, attempt };
                    self.held.insert(fork.id.clone(), held);
                }
                _ => {}
            }
        } else if fork.fell_back_to.is_some() {
            self.fell_back += 1;
        } else {
            *self.failures.entry(fork.failure()).or_default() += 1;
        }
        self.stages.add(&fork.stages);
    }

    /// Counts a `stage` line; the lines of an attempt come one after the other. How long an attempt took is not
    /// in them.
    pub fn add_stage(&mut self, line: &StageLine) {
        if self.of_line != line.fork_id {
            self.of_line.clone_from(&line.fork_id);
            self.attempts += 1;
            self.succeeded += u64::from(line.child_tid.is_some());
            if let Some(kind) = line.kind {
                *self.by_kind.entry(kind).or_default() += 1;
            }
        }
        if line.fell_back_to.is_some() {
            self.fell_back += 1;
        } else if line.errno.is_some() {
            let name = failure(line.cause.as_ref(), line.errno, line.errno_name.as_ref());
            *self.failures.entry(name).or_default() += 1;
        }
        self.stages.add(std::slice::from_ref(&line.span));
    }

    /// Counts the time of an attempt that was shown while its caller was held: it is over.
    pub fn add_held(&mut self, done: &VforkDone) {
        let (Some(held), Some(ns)) = (self.held.remove(&done.fork_id), done.held_ns) else {
            return;
        };
        self.totals.entry(held.kind).or_default().add(ns);
        if let Some(asked) = &mut self.asked {
            if let Some(key) = held.group {
                asked.groups.add_held(&key, ns);
            }
            if let Some(attempt) = held.attempt {
                asked.slowest.add_held(attempt, ns);
            }
        }
    }

    /// `summary`, with the counts and distributions of what was shown.
    ///
    /// `totals` is of the attempts that made a task and whose entry was seen: how soon a call
    /// failed says nothing of how long forks take. `by_stage` is of all attempts; stages that are
    /// not in this version's table are left out.
    #[must_use]
    pub fn complete(&self, summary: Summary) -> Summary {
        let by_name = |kind: &Kind| Name::Borrowed(kind.name());
        let total = |(kind, distribution): (&Kind, &Distribution)| {
            (by_name(kind), distribution.percentiles())
        };
        let asked = self.asked.as_ref();
        Summary {
            attempts: self.attempts,
            succeeded: self.succeeded,
            failed: self.attempts.saturating_sub(self.succeeded + self.fell_back),
            fell_back: self.fell_back,
            by_kind: self.by_kind.iter().map(|(kind, count)| (by_name(kind), *count)).collect(),
            failures_by_cause: self.failures.clone(),
            totals: self.totals.iter().map(total).collect(),
            by_stage: self.stages.times(),
            groups: asked.map(|asked| asked.groups.summary()),
            slowest: asked.map(|asked| asked.slowest.summary()).unwrap_or_default(),
            failed_by: asked.map(Asked::failed_by).unwrap_or_default(),
            ..summary
        }
    }
}

impl Asked {
    /// Counts one attempt; returns its group.
    fn add(&mut self, fork: &Fork) -> Option<Key> {
        self.slowest.add(fork);
        if fork.is_failure() {
            let pair = (fork.failure(), fork.parent.comm.clone());
            if self.failing.len() < MOST_FAILING || self.failing.contains_key(&pair) {
                *self.failing.entry(pair).or_default() += 1;
            }
        }
        self.groups.add(fork)
    }

    /// Who failed most, by cause.
    fn failed_by(&self) -> BTreeMap<Name, Vec<FailedBy>> {
        let mut by_cause: BTreeMap<Name, Vec<FailedBy>> = BTreeMap::new();
        for ((cause, comm), count) in &self.failing {
            let failed = FailedBy { comm: comm.clone(), count: *count };
            by_cause.entry(cause.clone()).or_default().push(failed);
        }
        for callers in by_cause.values_mut() {
            callers.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.comm.cmp(&b.comm)));
            callers.truncate(NAMED);
        }
        by_cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::summary::Percentiles;

    /// A fork of these fields, and of those that every fork has.
    pub(super) fn fork(json: &str) -> Fork {
        let head = r#"{"id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1"#;
        let parent = match json.contains(r#""parent""#) {
            true => "",
            false => r#""parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0},"#,
        };
        serde_json::from_str(&format!("{head},{parent}{json}}}")).unwrap()
    }

    pub(super) fn span(name: &str, self_ns: u64) -> String {
        format!(
            r#"{{"name":"{name}","start_ns":0,"dur_ns":{self_ns},"self_ns":{self_ns},"status":"done","precision":"bounded"}}"#
        )
    }

    fn done(held_ns: u64) -> VforkDone {
        serde_json::from_str(&format!(
            r#"{{"fork_id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1,"pid":2,"wait_ns":1,
                "held_ns":{held_ns}}}"#
        ))
        .unwrap()
    }

    fn summary(tally: &Tally) -> Summary {
        tally.complete(Summary::default())
    }

    #[test]
    fn nothing_gives_an_empty_summary() {
        assert_eq!(summary(&Tally::default()), Summary::default());
    }

    #[test]
    fn counts_totals_and_stages_in_the_tables_order() {
        let child = r#""child":{"pid":2,"tid":2,"comm":"a"}"#;
        let spans = [span("sys_exit", 5), span("copy_process", 70), span("no_such_stage", 9)];
        let mut tally = Tally::default();
        tally.add(&fork(&format!(
            r#""kind":"process","total_ns":100,{child},"stages":[{}]"#,
            spans.join(",")
        )));
        tally.add(&fork(&format!(r#""kind":"process","total_ns":300,{child}"#)));
        tally.add(&fork(&format!(r#""kind":"thread",{child}"#)));
        tally.add(&fork(r#""kind":"thread","total_ns":7,"errno":11,"errno_name":"EAGAIN""#));
        tally.add(&fork(r#""errno":4095"#));
        let cause = r#""cause":{"kind":"cgroup-pids","what":"","confidence":"certain","hint":""}"#;
        tally.add(&fork(&format!(r#""errno":11,"errno_name":"EAGAIN",{cause}"#)));
        tally.add(&fork(r#""errno":38,"fell_back_to":"1-2""#));
        let summary = summary(&tally);
        assert_eq!((summary.attempts, summary.succeeded, summary.failed), (7, 3, 3));
        assert_eq!(summary.fell_back, 1);
        let of = |map: &BTreeMap<Name, u64>| -> Vec<(String, u64)> {
            map.iter().map(|(name, count)| (name.to_string(), *count)).collect()
        };
        assert_eq!(of(&summary.by_kind), [("process".to_owned(), 2), ("thread".to_owned(), 2)]);
        let causes = ["EAGAIN", "cgroup-pids", "errno 4095"].map(|cause| (cause.to_owned(), 1));
        assert_eq!(of(&summary.failures_by_cause), causes);
        assert_eq!(summary.totals.len(), 1);
        let process = Percentiles {
            count: 2,
            sum_ns: Some(400),
            p50_ns: 100,
            p90_ns: 300,
            p99_ns: 300,
            max_ns: 300,
        };
        assert_eq!(summary.totals.get("process"), Some(&process));
        let stages: Vec<&str> = summary.by_stage.iter().map(|stage| stage.name.as_ref()).collect();
        assert_eq!(stages, ["copy_process", "sys_exit"]);
    }

    #[test]
    fn the_lines_of_stages_count_as_their_attempts_do() {
        let child = r#""child":{"pid":2,"tid":2}"#;
        let spans = [span("sys_exit", 5), span("copy_process", 70)].join(",");
        let forks = [
            format!(r#""id":"1-1","kind":"process",{child},"stages":[{spans}]"#),
            format!(r#""id":"1-2","kind":"thread",{child},"stages":[{spans}]"#),
            r#""id":"1-3","kind":"process","errno":11,"errno_name":"EAGAIN""#.to_owned(),
            r#""id":"1-4","errno":38,"fell_back_to":"1-2""#.to_owned(),
        ];
        let (mut forked, mut staged) = (Tally::default(), Tally::default());
        for json in forks {
            let (id, rest) = json.split_once(',').unwrap();
            let mut fork = fork(rest);
            fork.id = id.trim_start_matches(r#""id":""#).trim_end_matches('"').to_owned();
            forked.add(&fork);
            crate::event::stage::lines(&fork).for_each(|line| staged.add_stage(&line));
        }
        assert_eq!(staged.complete(Summary::default()), forked.complete(Summary::default()));
    }

    #[test]
    fn a_vfork_that_was_shown_while_it_was_held_counts_when_it_is_over() {
        let child = r#""child":{"pid":2,"tid":2,"comm":"a"}"#;
        let mut tally = Tally::default();
        tally.add(&fork(&format!(r#""kind":"vfork","syscall":"vfork","total_ns":9,{child}"#)));
        assert_eq!(summary(&tally).totals.len(), 0, "it is held");
        tally.add_held(&done(700));
        tally.add_held(&done(800));
        let all = summary(&tally).totals;
        assert_eq!(all.get("vfork").map(|of| (of.count, of.max_ns)), Some((1, 700)));
        tally.add(&fork(&format!(r#""kind":"vfork","total_ns":9,"held_ns":50,{child}"#)));
        tally.add_held(&done(50));
        assert_eq!(summary(&tally).totals.get("vfork").map(|of| of.count), Some(2), "once");
    }
    #[test]
    fn a_held_vfork_is_in_its_group_and_among_the_slowest_when_it_is_over() {
        let mut tally = Tally::new(Some(By::Comm));
        tally.add(&fork(
            r#""kind":"vfork","syscall":"vfork","total_ns":9,"child":{"pid":2,"tid":2}"#,
        ));
        let before = summary(&tally);
        assert_eq!((before.groups.unwrap().rows[0].held.clone(), before.slowest.len()), (None, 0));
        tally.add_held(&done(700));
        let after = summary(&tally);
        let held = after.groups.unwrap().rows[0].held.clone().unwrap();
        assert_eq!((held.count, held.sum_ns), (1, Some(700)));
        assert_eq!(after.slowest[0].held_ns, 700);
    }

    #[test]
    fn those_who_failed_most_are_named_first_and_their_memory_is_bounded() {
        let failed = |comm: &str| {
            fork(&format!(
                r#""parent":{{"pid":1,"tid":1,"ppid":0,"comm":"{comm}","uid":0}},"errno":11,
                "errno_name":"EAGAIN""#
            ))
        };
        let mut tally = Tally::new(Some(By::Kind));
        for comm in ["b", "a", "c", "a", "d", "e", "f", "c", "a"] {
            tally.add(&failed(comm));
        }
        let by = summary(&tally).failed_by;
        let named = by["EAGAIN"].iter().map(|by| (by.comm.as_str(), by.count));
        let want = [("a", 3), ("c", 2), ("b", 1), ("d", 1), ("e", 1)];
        assert_eq!(named.collect::<Vec<_>>(), want);
        for number in 0..2 * MOST_FAILING {
            tally.add(&failed(&number.to_string()));
        }
        assert_eq!(tally.asked.as_ref().unwrap().failing.len(), MOST_FAILING);
        assert_eq!(summary(&tally).failures_by_cause["EAGAIN"], 9 + 2 * MOST_FAILING as u64);
    }

    #[test]
    fn what_a_stage_waited_is_apart() {
        let spans =
            span("copy_process", 70).replace("\"self_ns\"", "\"off_cpu_ns\":40,\"self_ns\"");
        let mut tally = Tally::default();
        tally.add(&fork(&format!(r#""total_ns":100,"stages":[{spans}]"#)));
        tally.add(&fork(&format!(r#""total_ns":100,"stages":[{}]"#, span("copy_process", 7))));
        let stage = summary(&tally).by_stage.remove(0);
        assert_eq!((stage.total.count, stage.total.sum_ns), (2, Some(77)));
        let waited = stage.off_cpu.unwrap();
        assert_eq!((waited.count, waited.sum_ns), (1, Some(40)));
    }
}
