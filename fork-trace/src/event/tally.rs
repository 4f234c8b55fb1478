//! Counts and distributions of the forks that are shown, in bounded memory.

use std::collections::BTreeMap;

use foldhash::HashMap;
use fork_trace_common::stage::{Row, STAGES};

use crate::event::{
    follow_up::VforkDone,
    fork::Fork,
    span::by_name,
    summary::{Percentiles, StageTimes, Summary},
    values::{Kind, Name},
};

/// How many attempts are remembered at once whose callers are still held.
const MOST_HELD: usize = 16_384;

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
    held: BTreeMap<String, Kind>,
    /// A place for each row of [`STAGES`].
    stages: Vec<Option<OfStage>>,
}

/// What was shown of a stage.
#[derive(Clone, Debug, Default)]
struct OfStage {
    total: Distribution,
    /// Its own times; `None` as long as they are the totals, as they are of a stage that has none within.
    own: Option<Distribution>,
}

impl OfStage {
    fn add(&mut self, own_ns: u64, total_ns: u64) {
        if own_ns != total_ns && self.own.is_none() {
            self.own = Some(self.total.clone());
        }
        self.total.add(total_ns);
        if let Some(own) = &mut self.own {
            own.add(own_ns);
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            attempts: 0,
            succeeded: 0,
            fell_back: 0,
            by_kind: BTreeMap::new(),
            failures: BTreeMap::new(),
            totals: BTreeMap::new(),
            held: BTreeMap::new(),
            stages: vec![None; STAGES.len()],
        }
    }

    /// Attempts counted.
    #[must_use]
    pub const fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Counts one attempt.
    pub fn add(&mut self, fork: &Fork) {
        self.attempts += 1;
        if let Some(kind) = fork.kind {
            *self.by_kind.entry(kind).or_default() += 1;
        }
        if fork.succeeded() {
            self.succeeded += 1;
            match (fork.kind, fork.took_ns()) {
                (Some(kind), Some(ns)) => self.totals.entry(kind).or_default().add(ns),
                (Some(Kind::Vfork), None) if self.held.len() < MOST_HELD => {
                    self.held.insert(fork.id.clone(), Kind::Vfork);
                }
                _ => {}
            }
        } else if fork.fell_back_to.is_some() {
            self.fell_back += 1;
        } else {
            *self.failures.entry(cause(fork)).or_default() += 1;
        }
        self.add_stages(fork);
    }

    /// Counts the time of an attempt that was shown while its caller was held: it is over.
    pub fn add_held(&mut self, done: &VforkDone) {
        if let (Some(kind), Some(ns)) = (self.held.remove(&done.fork_id), done.held_ns) {
            self.totals.entry(kind).or_default().add(ns);
        }
    }

    fn add_stages(&mut self, fork: &Fork) {
        let mut find = by_name(STAGES, |row| row.name);
        for span in &fork.stages {
            let Some((own_ns, total_ns)) = span.self_ns.zip(span.dur_ns) else { continue };
            let Some((place, _)) = find(&span.name) else { continue };
            if let Some(stage) = self.stages.get_mut(place) {
                stage.get_or_insert_default().add(own_ns, total_ns);
            }
        }
    }

    /// The counts and distributions; what only the tracer knows is left empty.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.complete(Summary::default())
    }

    /// `summary`, with the counts and distributions of what was shown.
    ///
    /// `totals` is of the attempts that made a task and whose entry was seen: how soon a call
    /// failed says nothing of how long forks take. `by_stage` is of all attempts; stages that are
    /// not in this version's table are left out.
    #[must_use]
    pub fn complete(&self, summary: Summary) -> Summary {
        let stage = |(row, stage): (&Row, &Option<OfStage>)| {
            let stage = stage.as_ref()?;
            Some(StageTimes {
                name: Name::Borrowed(row.name),
                total: stage.total.percentiles(),
                own: stage.own.as_ref().map(Distribution::percentiles),
            })
        };
        let by_name = |kind: &Kind| Name::Borrowed(kind.name());
        let total = |(kind, distribution): (&Kind, &Distribution)| {
            (by_name(kind), distribution.percentiles())
        };
        Summary {
            attempts: self.attempts,
            succeeded: self.succeeded,
            failed: self.attempts - self.succeeded - self.fell_back,
            fell_back: self.fell_back,
            by_kind: self.by_kind.iter().map(|(kind, count)| (by_name(kind), *count)).collect(),
            failures_by_cause: self.failures.clone(),
            totals: self.totals.iter().map(total).collect(),
            by_stage: STAGES.iter().zip(&self.stages).filter_map(stage).collect(),
            ..summary
        }
    }
}

/// Under what a failure is counted.
fn cause(fork: &Fork) -> Name {
    if let Some(cause) = &fork.cause {
        return Name::Borrowed(cause.kind.name());
    }
    let number = || fork.errno.map(|errno| Name::Owned(format!("errno {errno}")));
    // An attempt without an error number has made no task by the time when its caller was last seen, as
    // one that was killed in the middle of it.
    let unseen = Name::Borrowed("return-not-seen");
    fork.errno_name.clone().or_else(number).unwrap_or(unseen)
}

/// A distribution of durations, in bounded memory.
///
/// Durations are counted by their first [`Self::BITS`] binary digits, so a percentile is off by
/// 0.05 % at most; there are some 55,000 such beginnings, and a stage meets a few hundred of them.
#[derive(Clone, Debug, Default)]
struct Distribution {
    /// How many by the duration with its further digits zero.
    counts: HashMap<u64, u64>,
    count: u64,
    max_ns: u64,
}

impl Distribution {
    const BITS: u32 = 11;

    /// Binary digits of `ns` that are dropped.
    const fn dropped(ns: u64) -> u32 {
        (u64::BITS - ns.leading_zeros()).saturating_sub(Self::BITS)
    }

    fn add(&mut self, ns: u64) {
        let dropped = Self::dropped(ns);
        *self.counts.entry(ns >> dropped << dropped).or_default() += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The smallest duration with `percent` of all at or below it: the middle of those that are
    /// counted with it. `sorted` are the counts, by duration.
    fn percentile(&self, sorted: &[(u64, u64)], percent: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut passed = 0_u128;
        for (ns, count) in sorted {
            passed += u128::from(*count);
            if passed >= rank {
                let middle = ns + (1 << Self::dropped(*ns) >> 1);
                return middle.min(self.max_ns);
            }
        }
        self.max_ns
    }

    fn percentiles(&self) -> Percentiles {
        let mut sorted: Vec<_> = self.counts.iter().map(|(ns, count)| (*ns, *count)).collect();
        sorted.sort_unstable();
        let [p50_ns, p90_ns, p99_ns] =
            [50, 90, 99].map(|percent| self.percentile(&sorted, percent));
        Percentiles { count: self.count, p50_ns, p90_ns, p99_ns, max_ns: self.max_ns }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fork(json: &str) -> Fork {
        let head = r#"{"id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1"#;
        let parent = r#""parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0}"#;
        serde_json::from_str(&format!("{head},{parent},{json}}}")).unwrap()
    }

    fn span(name: &str, self_ns: u64) -> String {
        format!(
            r#"{{"name":"{name}","start_ns":0,"dur_ns":{self_ns},"self_ns":{self_ns},"status":"done","precision":"bounded"}}"#
        )
    }

    #[test]
    fn nothing_gives_an_empty_summary() {
        assert_eq!(Tally::new().summary(), Summary::default());
    }

    #[test]
    fn counts_totals_and_stages_in_the_tables_order() {
        let child = r#""child":{"pid":2,"tid":2,"comm":"a"}"#;
        let spans = [span("sys_exit", 5), span("copy_process", 70), span("no_such_stage", 9)];
        let mut tally = Tally::new();
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
        let summary = tally.summary();
        assert_eq!((summary.attempts, summary.succeeded, summary.failed), (7, 3, 3));
        assert_eq!(summary.fell_back, 1);
        let of = |map: &BTreeMap<Name, u64>| -> Vec<(String, u64)> {
            map.iter().map(|(name, count)| (name.to_string(), *count)).collect()
        };
        assert_eq!(of(&summary.by_kind), [("process".to_owned(), 2), ("thread".to_owned(), 2)]);
        let causes = ["EAGAIN", "cgroup-pids", "errno 4095"].map(|cause| (cause.to_owned(), 1));
        assert_eq!(of(&summary.failures_by_cause), causes);
        assert_eq!(summary.totals.len(), 1);
        let process = Percentiles { count: 2, p50_ns: 100, p90_ns: 300, p99_ns: 300, max_ns: 300 };
        assert_eq!(summary.totals.get("process"), Some(&process));
        let stages: Vec<&str> = summary.by_stage.iter().map(|stage| stage.name.as_ref()).collect();
        assert_eq!(stages, ["copy_process", "sys_exit"]);
    }

    #[test]
    fn a_vfork_that_was_shown_while_it_was_held_counts_when_it_is_over() {
        let child = r#""child":{"pid":2,"tid":2,"comm":"a"}"#;
        let done = |held_ns: u64| -> VforkDone {
            serde_json::from_str(&format!(
                r#"{{"fork_id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1,"pid":2,"wait_ns":1,
                    "held_ns":{held_ns}}}"#
            ))
            .unwrap()
        };
        let mut tally = Tally::new();
        tally.add(&fork(&format!(r#""kind":"vfork","syscall":"vfork","total_ns":9,{child}"#)));
        assert_eq!(tally.summary().totals.len(), 0, "it is held");
        tally.add_held(&done(700));
        tally.add_held(&done(800));
        let all = tally.summary().totals;
        assert_eq!(all.get("vfork").map(|of| (of.count, of.max_ns)), Some((1, 700)));
        tally.add(&fork(&format!(r#""kind":"vfork","total_ns":9,"held_ns":50,{child}"#)));
        tally.add_held(&done(50));
        assert_eq!(tally.summary().totals.get("vfork").map(|of| of.count), Some(2), "once");
    }

    fn duration() -> impl Strategy<Value = u64> {
        prop_oneof![0..5_000_u64, 0..10_000_000_u64, 0..3_600_000_000_000_u64, any::<u64>()]
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_values(
            mut values in proptest::collection::vec(duration(), 1..400),
        ) {
            let mut distribution = Distribution::default();
            for value in &values {
                distribution.add(*value);
            }
            values.sort_unstable();
            let got = distribution.percentiles();
            prop_assert_eq!(got.count, values.len() as u64);
            prop_assert_eq!(got.max_ns, values[values.len() - 1]);
            for (percent, got) in [(50, got.p50_ns), (90, got.p90_ns), (99, got.p99_ns)] {
                let want = values[(values.len() * percent).div_ceil(100) - 1];
                prop_assert!(got.abs_diff(want) <= want / 1000, "p{}: {} for {}", percent, got, want);
            }
        }
    }
}
