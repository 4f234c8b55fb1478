//! A recording in figures, to be put beside another one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::event::{
    Event,
    compare::{Compare, Failures, Figures, Recorded, Times},
    start::{Coverage, SCHEMA_VERSION},
    summary::{Percentiles, Summary},
    tally::{Tally, distribution::Distribution},
    values::{Kind, Name},
    wait::Share,
};

/// With fewer attempts than this figures say little.
const FEW: u64 = 20;

/// What is counted of a recording.
#[derive(Debug, Default)]
pub struct Sample {
    tally: Tally,
    /// `total_ns` by kind, of attempts that made a task.
    totals: BTreeMap<Kind, Distribution>,
    /// `total_ns` and `off_cpu_ns` of all attempts together of which both are known.
    sums_ns: (u128, u128),
    /// It tells how long callers were held, and when they had no CPU.
    waits: bool,
    coverage: Vec<Coverage>,
}

/// A recording's figures, and what else is said of it.
type Side = (Summary, Sample, Recorded);

impl Sample {
    /// Counts an event.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Start(start) => {
                self.waits = start.waits != Some(false);
                self.coverage.clone_from(&start.coverage);
            }
            Event::Fork(fork) => {
                self.tally.add(fork);
                let Some(total_ns) = fork.total_ns else { return };
                if let Some(kind) = fork.kind.filter(|_| fork.succeeded()) {
                    self.totals.entry(kind).or_default().add(total_ns);
                }
                if self.waits && fork.waits_incomplete.is_none() {
                    self.sums_ns.0 += u128::from(total_ns);
                    self.sums_ns.1 += u128::from(fork.off_cpu_ns.unwrap_or_default());
                }
            }
            Event::Stage(stage) => self.tally.add_stage(stage),
            Event::VforkDone(done) => self.tally.add_held(done),
            _ => {}
        }
    }

    /// Two recordings beside each other; each comes with what else is said of it.
    #[must_use]
    pub fn compare([a, b]: [(Self, Recorded); 2]) -> Compare {
        let [a, b] = [a, b].map(|(sample, recorded)| sample.side(recorded));
        let held = a.1.waits && b.1.waits;
        let of_kinds = |(summary, sample, _): &Side| -> Vec<(Name, Percentiles)> {
            if held {
                return summary.totals.clone().into_iter().collect();
            }
            let name = |kind: &Kind| Name::Borrowed(kind.name());
            sample.totals.iter().map(|(kind, ns)| (name(kind), ns.percentiles())).collect()
        };
        let of_stages = |(summary, ..): &Side| -> Vec<(Name, Percentiles)> {
            summary.by_stage.iter().map(|stage| (stage.name.clone(), stage.total.clone())).collect()
        };
        let mut stages = times(of_stages(&a), of_stages(&b));
        for stage in &mut stages {
            let differs = bounds(&a.1.coverage, &stage.name) != bounds(&b.1.coverage, &stage.name);
            stage.other_bounds = differs.then_some(true);
        }
        // Stable: what is alike stays in the kernel's order.
        stages.sort_by_key(rank);
        let mut kinds = times(of_kinds(&a), of_kinds(&b));
        kinds.sort_by_key(rank);
        Compare {
            schema_version: SCHEMA_VERSION,
            compared: Name::Borrowed(if held { "held_ns" } else { "total_ns" }),
            ordered_by: Name::Borrowed("p50_moved_ns"),
            kinds,
            stages,
            failures: failures(&a, &b),
            a: a.2,
            b: b.2,
        }
    }

    fn side(self, recorded: Recorded) -> Side {
        let summary = self.tally.complete(Summary::default());
        #[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
        let per_second = recorded
            .traced_ns
            .filter(|ns| *ns > 0)
            .map(|ns| summary.attempts as f64 / (ns as f64 / 1e9));
        let (total_ns, off_cpu_ns) = self.sums_ns;
        let thousandths = (off_cpu_ns * 1000).checked_div(total_ns);
        let share = thousandths.map(|share| Share(u16::try_from(share.min(1000)).unwrap_or(1000)));
        let recorded = Recorded {
            attempts: summary.attempts,
            succeeded: summary.succeeded,
            failed: summary.failed,
            per_second,
            off_cpu_share: share,
            ..recorded
        };
        (summary, self, recorded)
    }
}

/// The points between which the time of a stage counts, and what else lies there.
fn bounds<'a>(coverage: &'a [Coverage], name: &str) -> impl PartialEq + use<'a> {
    let stage = coverage.iter().find(|stage| stage.name == name);
    stage.map(|stage| (stage.precision, &stage.opens, &stage.closes, &stage.includes))
}

/// The first list has the names in their order; those that only the second one has follow.
fn times(a: Vec<(Name, Percentiles)>, b: Vec<(Name, Percentiles)>) -> Vec<Times> {
    let mut names: Vec<Name> = Vec::new();
    for (name, _) in a.iter().chain(&b) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let figures = |of: &[(Name, Percentiles)], wanted: &Name| {
        let found = of.iter().find(|(name, _)| name == wanted).map(|(_, figures)| figures);
        found.map_or_else(Figures::default, |figures| Figures {
            count: figures.count,
            p50_ns: Some(figures.p50_ns),
            p99_ns: Some(figures.p99_ns),
        })
    };
    let row = |name: Name| {
        let (a, b) = (figures(&a, &name), figures(&b, &name));
        Times {
            name,
            a,
            b,
            p50_moved_ns: moved(a.p50_ns, b.p50_ns),
            p99_moved_ns: moved(a.p99_ns, b.p99_ns),
            thin: (a.count.min(b.count) < FEW).then_some(true),
            other_bounds: None,
        }
    };
    names.into_iter().map(row).collect()
}

fn moved(a: Option<u64>, b: Option<u64>) -> Option<i64> {
    i64::try_from(i128::from(b?) - i128::from(a?)).ok()
}

/// By what the times are ordered: those that say something, and of these the one whose median moved most.
fn rank(times: &Times) -> (bool, Reverse<Option<u64>>) {
    let says_little = times.thin.is_some() || times.other_bounds.is_some();
    (says_little, Reverse(times.p50_moved_ns.map(i64::unsigned_abs)))
}

fn failures(a: &Side, b: &Side) -> Vec<Failures> {
    let names: BTreeSet<_> =
        [a, b].into_iter().flat_map(|(summary, ..)| summary.failures_by_cause.keys()).collect();
    let count =
        |side: &Side, name: &Name| side.0.failures_by_cause.get(name).copied().unwrap_or_default();
    let thin = (a.2.attempts.min(b.2.attempts) < FEW).then_some(true);
    let row =
        |name: &Name| Failures { name: name.clone(), a: count(a, name), b: count(b, name), thin };
    let mut rows: Vec<_> = names.into_iter().map(row).collect();
    // The difference of two rates is this by the product of both times, which is the same for all.
    let (a_ns, b_ns) = a.2.traced_ns.zip(b.2.traced_ns).unwrap_or((1, 1));
    rows.sort_by_key(|row| {
        let [a, b] = [(row.a, b_ns), (row.b, a_ns)].map(|(n, ns)| u128::from(n) * u128::from(ns));
        Reverse(a.abs_diff(b))
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{start::Start, tests::fork};

    fn start(more: &str) -> Start {
        serde_json::from_str(&format!(
            r#"{{"schema_version":2,"version":"1","ts":"2026-01-01T00:00:00Z","mono_ns":1,
                "host":{{"name":"h","kernel":"k","arch":"a","cpus":1,"boot_id":"b"}},
                "backend":"tracepoint","filters":{{}}{more}}}"#
        ))
        .unwrap()
    }

    const NO_COVERAGE: &str = r#","coverage":[]"#;

    /// A recording of `count` forks each of these fields.
    fn sample(more: &str, forks: &[(u64, &str)]) -> (Sample, Recorded) {
        let start = start(more);
        let traced_ns = Some(2_000_000_000);
        let recorded = Recorded { traced_ns, ..Recorded::new("x".to_owned(), &start) };
        let mut sample = Sample::default();
        sample.add(&Event::Start(Box::new(start)));
        for (count, fields) in forks {
            (0..*count).for_each(|_| sample.add(&Event::Fork(fork("1-1", fields))));
        }
        (sample, recorded)
    }

    fn made(kind: &str, total: u64, held: u64, stage: u64) -> String {
        format!(
            r#","kind":"{kind}","child":{{"pid":2,"tid":2}},"total_ns":{total},"held_ns":{held},
            "off_cpu_ns":{},"stages":[{{"name":"copy_mm","start_ns":0,"dur_ns":{stage},
            "self_ns":{stage},"precision":"exact"}}]"#,
            total / 4
        )
    }

    fn names(times: &[Times]) -> Vec<(&str, Option<bool>)> {
        times.iter().map(|times| (times.name.as_ref(), times.thin)).collect()
    }

    #[test]
    fn what_moved_most_comes_first_and_what_is_thin_last() {
        let a = [
            (20, made("process", 100, 200, 50)),
            (20, made("thread", 100, 100, 50)),
            (19, made("vfork", 100, 100, 50)),
        ];
        let b = [
            (20, made("process", 100, 210, 90)),
            (40, made("thread", 100, 80, 90)),
            (90, made("vfork", 100, 9_000, 90)),
        ];
        let of = |side: &[(u64, String)]| {
            let forks: Vec<_> = side.iter().map(|(count, json)| (*count, json.as_str())).collect();
            sample(NO_COVERAGE, &forks)
        };
        let compare = Sample::compare([of(&a), of(&b)]);
        let wanted = [("thread", None), ("process", None), ("vfork", Some(true))];
        assert_eq!(names(&compare.kinds), wanted);
        let thread = &compare.kinds[0];
        assert_eq!((thread.a.count, thread.b.count), (20, 40));
        assert_eq!((thread.p50_moved_ns, thread.p99_moved_ns), (Some(-20), Some(-20)));
        assert_eq!((compare.a.attempts, compare.b.attempts), (59, 150));
        assert_eq!((compare.a.per_second, compare.b.per_second), (Some(29.5), Some(75.0)));
        assert_eq!(compare.a.off_cpu_share, Some(Share(250)));
        assert_eq!(compare.stages[0].p50_moved_ns, Some(40));
        assert_eq!(compare.compared, "held_ns");
    }

    #[test]
    fn totals_are_compared_where_one_does_not_tell_how_long_callers_were_held() {
        let forks = made("process", 100, 900, 50);
        let without = format!(r#"{NO_COVERAGE},"waits":false"#);
        let [a, b] = [NO_COVERAGE, &without].map(|more| sample(more, &[(30, &forks)]));
        let compare = Sample::compare([a, b]);
        assert_eq!(compare.compared, "total_ns");
        assert_eq!(compare.kinds[0].a.p50_ns, Some(100));
        assert_eq!(compare.b.off_cpu_share, None);
    }

    #[test]
    fn a_stage_that_is_bounded_otherwise_says_little() {
        let forks = made("process", 100, 900, 50);
        let coverage = |closes: &str| {
            format!(
                r#","coverage":[{{"name":"copy_mm","precision":"bounded","opens":"a",
                "closes":"{closes}"}}]"#
            )
        };
        let of = |closes: &str| sample(&coverage(closes), &[(30, &forks)]);
        assert_eq!(Sample::compare([of("b"), of("b")]).stages[0].other_bounds, None);
        assert_eq!(Sample::compare([of("b"), of("c")]).stages[0].other_bounds, Some(true));
    }

    #[test]
    fn failures_are_ordered_by_how_far_their_rate_moved() {
        let failed = |name: &str| format!(r#","errno":11,"errno_name":"{name}""#);
        let [one, two] = ["EAGAIN", "ENOMEM"].map(failed);
        let a = sample(NO_COVERAGE, &[(30, &one), (30, &two)]);
        let mut b = sample(NO_COVERAGE, &[(60, &one), (30, &two)]);
        // In twice the time.
        b.1.traced_ns = Some(4_000_000_000);
        let compare = Sample::compare([a, b]);
        let rows = compare.failures.iter().map(|row| (row.name.as_ref(), row.a, row.b, row.thin));
        assert_eq!(rows.collect::<Vec<_>>(), [("ENOMEM", 30, 30, None), ("EAGAIN", 30, 60, None)]);
    }

    #[test]
    fn what_only_one_has_is_there_and_thin() {
        let forks = made("process", 100, 900, 50);
        let a = sample(NO_COVERAGE, &[]);
        let compare = Sample::compare([a, sample(NO_COVERAGE, &[(30, &forks)])]);
        let kind = &compare.kinds[0];
        assert_eq!((kind.a, kind.b.count, kind.p50_moved_ns), (Figures::default(), 30, None));
        assert_eq!(kind.thin, Some(true));
    }
}
