//! The metrics of a host, for Prometheus: counted from the same events as every output, and exposed when somebody
//! asks.
//!
//! [`Metrics`] counts, `histogram` and `bounded` are what it counts in, `family` holds a moment's values, and
//! `text` and `proto` are the formats; `http` reads requests and `server` answers them. The thread that counts
//! and the one that answers share the numbers behind a mutex, which is held while an event is counted or while
//! the values are copied. The loop of the trace never waits for it.

mod bounded;
mod exposed;
mod family;
mod histogram;
mod http;
#[cfg(feature = "otlp")]
mod otlp;
mod proto;
pub mod server;
mod text;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

#[cfg(feature = "otlp")]
use std::ops::Range;

use foldhash::HashMap;
use fork_trace_common::stage::STAGES;

#[cfg(feature = "otlp")]
use crate::output::protobuf::Message;
use crate::{
    event::{
        Event,
        cause::{Cause, CauseKind},
        follow_up::VforkDone,
        fork::{Fork, UNKNOWN},
        notice::Loss,
        span::{Span, by_name},
        values::{Kind, Name, Ts},
        wait::Slow,
    },
    output::{
        metrics::{
            bounded::{Dropped, Top, Words},
            histogram::{Exemplar, Histogram},
            text::Dialect,
        },
        recorder,
        sink::Sink,
    },
};

/// Attempts that are remembered at once because their callers are still held.
const MOST_HELD: usize = 4096;

/// Limits that are told of at once.
const MOST_LIMITS: usize = 64;

/// The reason of the wait of a vfork's caller.
const VFORK: &str = "vfork";

/// What an attempt came to.
const RESULTS: [&str; 3] = ["ok", "failed", "fell_back"];

/// Kinds whose counts are exposed from the start, as 0.
const USUAL: [Kind; 3] = [Kind::Process, Kind::Vfork, Kind::Thread];

/// The sort of loss of attempts that were told while their callers were held, when too many were.
const HELD_FULL: &str = "held_full";

/// What the numbers are of, and how many there may be.
#[derive(Clone, Debug)]
pub struct Scope {
    /// How many names of callers are told apart.
    pub top: usize,
    /// Sorts of losses that there are, exposed from the start.
    pub losses: Vec<&'static str>,
}

/// What is not counted from events, but read when somebody asks. What cannot be read is not exposed.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Processes that have ended and were not waited for, by their parent's name, the most first.
    pub zombies: Option<Vec<(String, u64)>>,
    /// Attempts that have lasted for a second or more.
    pub stuck: Option<u64>,
    /// Tasks made since boot.
    pub kernel_forks: Option<u64>,
    /// Time of this process on CPUs.
    pub cpu_ns: Option<u64>,
    /// What the flight recorder did, where there is one.
    pub recorder: Option<recorder::Counts>,
    /// What was sent by OTLP, where it is.
    #[cfg(feature = "otlp")]
    pub otlp: Option<OtlpCounts>,
}

/// The signals that are sent by OTLP, in the order of [`OtlpCounts`].
#[cfg(feature = "otlp")]
pub(super) const SIGNALS: [&str; 2] = ["metrics", "logs"];

/// What was sent by OTLP so far.
#[cfg(feature = "otlp")]
#[derive(Clone, Copy, Debug, Default)]
pub struct OtlpCounts {
    /// Requests that were taken, by signal.
    pub taken: [u64; SIGNALS.len()],
    /// Requests that were not, each time that they were tried.
    pub failed: [u64; SIGNALS.len()],
    /// Log records that were not sent.
    pub dropped: u64,
}

/// A limit at which an attempt failed.
#[derive(Debug)]
struct Limit {
    current: u64,
    max: u64,
    at: Instant,
}

/// The numbers so far.
#[derive(Debug)]
pub struct Metrics {
    top: usize,
    attempts: BTreeMap<(&'static str, &'static str), u64>,
    /// By error and cause.
    failures: Words<2, u64>,
    durations: BTreeMap<&'static str, Histogram>,
    held: BTreeMap<&'static str, Histogram>,
    child_wait: Histogram,
    /// In the order of the table of stages.
    stages: Vec<Option<Histogram>>,
    waits_ns: Words<1, u128>,
    /// By limit and path.
    limits: BTreeMap<(Name, String), Limit>,
    comms: Top,
    lost: Words<1, u64>,
    dropped: Dropped,
    /// Callers by the ids of their attempts, which were told while they were held.
    still_held: HashMap<String, String>,
    /// The version of this program and that of the kernel.
    versions: Option<(String, String)>,
}

impl Metrics {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let mut metrics = Self {
            top: scope.top,
            attempts: BTreeMap::new(),
            failures: Words::new(),
            durations: BTreeMap::new(),
            held: BTreeMap::new(),
            child_wait: Histogram::default(),
            stages: vec![None; STAGES.len()],
            waits_ns: Words::new(),
            limits: BTreeMap::new(),
            comms: Top::new(scope.top),
            lost: Words::new(),
            dropped: Dropped::new(&["cause", "comm", "kind", "path", "reason"]),
            still_held: HashMap::default(),
            versions: None,
        };
        // A counter that begins with its first event seems not to have grown by it.
        for kind in USUAL {
            for result in RESULTS {
                metrics.attempts.insert((kind.name(), result), 0);
            }
        }
        for sort in scope.losses.iter().chain(&[HELD_FULL]) {
            metrics.lost.of([Name::Borrowed(sort)]);
        }
        metrics
    }

    /// Counts an attempt, which is told of at `now`.
    pub fn fork(&mut self, fork: &Fork, now: Instant) {
        let kind = fork.kind.map_or(UNKNOWN, Kind::name);
        let result = match fork {
            fork if fork.succeeded() => 0,
            fork if fork.is_failure() => 1,
            _ => 2,
        };
        *self
            .attempts
            .entry((kind, RESULTS.get(result).copied().unwrap_or(UNKNOWN)))
            .or_default() += 1;
        let comm = &fork.parent.comm;
        if !self.comms.fork(comm, now) {
            self.dropped.add("comm", 1);
        }
        if fork.is_failure() {
            self.failure(fork, now);
        }
        if let Some(ns) = fork.total_ns {
            self.durations.entry(kind).or_default().add(ns);
        }
        match fork.took_ns() {
            Some(ns) => self.held_for(kind, comm, ns, || (fork.id.clone(), fork.ts)),
            None if fork.succeeded() && fork.kind == Some(Kind::Vfork) => {
                if self.still_held.len() < MOST_HELD {
                    self.still_held.insert(fork.id.clone(), comm.clone());
                } else {
                    self.lose(&Name::Borrowed(HELD_FULL), 1);
                }
            }
            None => {}
        }
        if let Some(ns) = fork.child_start.as_ref().and_then(|start| start.queued_ns) {
            self.child_wait.add(ns);
        }
        self.add_stages(&fork.stages);
        self.add_waits(fork);
    }

    /// Counts what is no attempt.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Start(start) => {
                self.versions = Some((start.version.clone(), start.host.kernel.clone()));
            }
            Event::VforkDone(done) => self.vfork_done(done),
            Event::Loss(Loss { by, .. }) => {
                by.iter().for_each(|(sort, count)| self.lose(sort, *count));
            }
            // Live there are no lines of single stages, and what is left says nothing that is counted.
            Event::Fork(_)
            | Event::Stage(_)
            | Event::Exec(_)
            | Event::Exit(_)
            | Event::Stuck(_)
            | Event::Warning(_)
            | Event::Summary(_) => {}
        }
    }

    fn failure(&mut self, fork: &Fork, now: Instant) {
        let number = || fork.errno.map(|errno| Name::Owned(format!("errno {errno}")));
        let errno = fork.errno_name.clone().or_else(number);
        let cause = fork.cause.as_ref().map_or(CauseKind::Unknown, |cause| cause.kind);
        let words = [errno.unwrap_or(Name::Borrowed(UNKNOWN)), Name::Borrowed(cause.name())];
        let (count, known) = self.failures.of(words);
        *count += 1;
        self.dropped.add("cause", u64::from(!known));
        if let Some(Cause {
            limit: Some(limit), current: Some(current), max: Some(max), path, ..
        }) = &fork.cause
            && *max > 0
        {
            let (current, max) = (*current, *max);
            let path = path.clone().unwrap_or_default();
            self.limit((limit.clone(), path), Limit { current, max, at: now });
        }
    }

    /// Remembers a limit; one that was met long ago has to go if there are too many.
    fn limit(&mut self, key: (Name, String), limit: Limit) {
        if self.limits.len() >= MOST_LIMITS && !self.limits.contains_key(&key) {
            let oldest = self.limits.iter().min_by_key(|(_, limit)| limit.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.limits.remove(&oldest);
                self.dropped.add("path", 1);
            }
        }
        self.limits.insert(key, limit);
    }

    fn held_for(
        &mut self,
        kind: &'static str,
        comm: &str,
        ns: u64,
        whose: impl FnOnce() -> (String, Ts),
    ) {
        self.comms.held(comm, ns);
        let held = self.held.entry(kind).or_default();
        if ns < Slow::FROM_NS {
            held.add(ns);
            return;
        }
        let (fork_id, ts) = whose();
        held.add_with(ns, Exemplar { fork_id, ns, ts });
    }

    /// The caller of a vfork is back.
    fn vfork_done(&mut self, done: &VforkDone) {
        let Some(comm) = self.still_held.remove(&done.fork_id) else { return };
        let (wait_ns, _) = self.waits_ns.of([Name::Borrowed(VFORK)]);
        *wait_ns += u128::from(done.wait_ns);
        if let Some(ns) = done.held_ns {
            let kind = Kind::Vfork.name();
            self.held_for(kind, &comm, ns, || (done.fork_id.clone(), done.ts));
        }
    }

    fn lose(&mut self, sort: &Name, count: u64) {
        let (lost, known) = self.lost.of([sort.clone()]);
        *lost += count;
        self.dropped.add("kind", if known { 0 } else { count });
    }

    /// Adds the own times of stages that were measured.
    fn add_stages(&mut self, stages: &[Span]) {
        let mut find = by_name(STAGES, |row| row.name);
        for span in stages.iter().filter(|span| !span.is_sampled()) {
            let Some((ns, (place, _))) = span.self_ns.zip(find(&span.name)) else { continue };
            if let Some(stage) = self.stages.get_mut(place) {
                stage.get_or_insert_default().add(ns);
            }
        }
    }

    /// Adds the waits of an attempt by their reasons.
    fn add_waits(&mut self, fork: &Fork) {
        for (reason, ns) in fork.waits_ns() {
            let (sum_ns, known) = self.waits_ns.of([reason]);
            *sum_ns += u128::from(ns);
            self.dropped.add("reason", u64::from(!known));
        }
    }
}

/// The numbers, shared by the thread that counts and the one that exposes them.
pub type Shared = Arc<Mutex<Metrics>>;

/// Counts every event.
pub struct Counting(pub Shared);

impl Counting {
    fn with(&self, count: impl FnOnce(&mut Metrics)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Sink for Counting {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        self.with(|metrics| metrics.fork(fork, Instant::now()));
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.with(|metrics| metrics.event(event));
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is exposed of `metrics` now, as `OpenMetrics` text.
#[must_use]
pub fn open_metrics(metrics: &mut Metrics, readings: &Readings, now: Instant) -> String {
    text::text(&metrics.families(readings, now), Dialect::OpenMetrics)
}

/// What is sent of `metrics` now by OTLP, counted in `times`, in nanoseconds since 1970.
#[cfg(feature = "otlp")]
pub(super) fn otlp_request(
    metrics: &Shared,
    readings: &Readings,
    resource: &Message,
    times: &Range<u64>,
) -> Vec<u8> {
    // The numbers are copied at once, and turned into bytes when they are free again.
    let families = {
        let mut metrics = metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.families(readings, Instant::now())
    };
    otlp::bytes(&families, resource, times)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::tests::{done, fork};

    fn metrics() -> Metrics {
        Metrics::new(&Scope { top: 50, losses: vec!["ring_full"] })
    }

    fn counted(forks: &[(&str, &str)]) -> Metrics {
        let (mut metrics, now) = (metrics(), Instant::now());
        for (id, fields) in forks {
            metrics.fork(&fork(id, fields), now);
        }
        metrics
    }

    fn exposed(metrics: &mut Metrics, readings: &Readings) -> String {
        open_metrics(metrics, readings, Instant::now())
    }

    /// The value of a metric as it is spelt; `None` where there is no such line.
    fn value<'a>(text: &'a str, metric: &str) -> Option<&'a str> {
        text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))
    }

    fn called(comm: &str) -> String {
        let comm = serde_json::to_string(comm).unwrap();
        format!(
            r#","kind":"process","held_ns":5,"child":{{"pid":2,"tid":2}},
            "parent":{{"pid":1,"tid":1,"ppid":0,"comm":{comm},"uid":0}}"#
        )
    }

    #[test]
    fn counters_begin_at_zero_and_unknown_values_are_absent() {
        let text = exposed(&mut metrics(), &Readings::default());
        for kind in ["process", "vfork", "thread"] {
            for result in ["ok", "failed", "fell_back"] {
                let metric =
                    format!("fork_trace_attempts_total{{kind=\"{kind}\",result=\"{result}\"}}");
                assert_eq!(value(&text, &metric), Some("0"), "{metric}");
            }
        }
        assert_eq!(value(&text, "fork_trace_lost_records_total{kind=\"ring_full\"}"), Some("0"));
        for metric in
            ["fork_trace_stuck", "fork_trace_overhead_seconds_total", "fork_trace_zombies"]
        {
            assert_eq!(value(&text, metric), None);
        }
        assert!(!text.contains("pid") && text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_attempt_is_counted_everywhere_once() {
        let mut metrics = counted(&[
            (
                "1-1",
                r#","kind":"process","syscall":"clone","total_ns":20000,"held_ns":50000000,
                "child":{"pid":2,"tid":2},"child_start":{"queued_ns":7,"cpu":0},
                "stages":[{"name":"copy_mm","dur_ns":9,"self_ns":4}],
                "waits":[{"at_ns":1,"dur_ns":30,"state":"runnable","reason":"preempted"}],
                "waits_more":{"count":3,"dur_ns":10,"preempted_ns":2,"quota_ns":5}"#,
            ),
            (
                "1-2",
                r#","kind":"thread","syscall":"clone3","total_ns":9,"held_ns":9,"errno":11,
                "errno_name":"EAGAIN","cause":{"kind":"cgroup-pids","what":"x","limit":"pids.max",
                "current":9,"max":10,"path":"/a","confidence":"certain","hint":"y"}"#,
            ),
            ("1-3", r#","errno":38,"fell_back_to":"1-4""#),
            ("1-5", r#","errno":999"#),
        ]);
        let text = exposed(&mut metrics, &Readings::default());
        for (metric, wanted) in [
            ("attempts_total{kind=\"process\",result=\"ok\"}", "1"),
            ("attempts_total{kind=\"thread\",result=\"failed\"}", "1"),
            ("attempts_total{kind=\"unknown\",result=\"fell_back\"}", "1"),
            ("attempts_total{kind=\"unknown\",result=\"failed\"}", "1"),
            ("failures_total{errno=\"EAGAIN\",cause=\"cgroup-pids\"}", "1"),
            ("failures_total{errno=\"errno 999\",cause=\"unknown\"}", "1"),
            ("duration_seconds_bucket{kind=\"process\",le=\"1.6e-05\"}", "0"),
            ("duration_seconds_bucket{kind=\"process\",le=\"3.2e-05\"}", "1"),
            ("duration_seconds_bucket{kind=\"process\",le=\"+Inf\"}", "1"),
            ("duration_seconds_sum{kind=\"process\"}", "0.000020000"),
            ("held_seconds_count{kind=\"process\"}", "1"),
            (
                "held_seconds_bucket{kind=\"process\",le=\"0.065536\"}",
                "1 # {fork_id=\"1-1\"} 0.050000000 1767225600.000",
            ),
            ("held_seconds_bucket{kind=\"thread\",le=\"1.6e-05\"}", "1"),
            ("child_wait_seconds_sum", "0.000000007"),
            ("stage_seconds_sum{stage=\"copy_mm\"}", "0.000000004"),
            ("wait_seconds_total{reason=\"preempted\"}", "0.000000032"),
            ("wait_seconds_total{reason=\"cpu-quota\"}", "0.000000005"),
            ("wait_seconds_total{reason=\"unknown\"}", "0.000000003"),
            ("limit_used_ratio{limit=\"pids.max\",path=\"/a\"}", "0.9"),
            ("forks_by_comm_total{comm=\"a\"}", "4"),
            ("held_seconds_by_comm_total{comm=\"a\"}", "0.050000009"),
        ] {
            assert_eq!(
                value(&text, &format!("fork_trace_{metric}")),
                Some(wanted),
                "{metric}\n{text}"
            );
        }
    }

    #[test]
    fn a_vfork_that_was_held_is_counted_when_its_caller_is_back() {
        let mut metrics = counted(&[(
            "1-1",
            r#","kind":"vfork","syscall":"vfork","total_ns":9,"child":{"pid":2,"tid":2}"#,
        )]);
        let held = "fork_trace_held_seconds_sum{kind=\"vfork\"}";
        let before = exposed(&mut metrics, &Readings::default());
        assert_eq!(value(&before, held), None);
        metrics.event(&done("1-1", 20_000_000));
        metrics.event(&done("1-1", 20_000_000));
        metrics.event(&done("9-9", 20_000_000));
        let text = exposed(&mut metrics, &Readings::default());
        assert_eq!(value(&text, held), Some("0.020000000"));
        assert_eq!(
            value(&text, "fork_trace_wait_seconds_total{reason=\"vfork\"}"),
            Some("0.000000001")
        );
        assert!(text.contains("# {fork_id=\"1-1\"} 0.020000000"), "{text}");
    }

    #[test]
    fn everything_is_bounded_and_what_does_not_fit_is_counted() {
        let (mut metrics, now) = (metrics(), Instant::now());
        for number in 0..10_000 {
            metrics.fork(&fork("1-1", &called(&format!("name {number}"))), now);
            let vfork = r#","kind":"vfork","syscall":"vfork","child":{"pid":2,"tid":2}"#;
            metrics.fork(&fork(&format!("2-{number}"), vfork), now);
            let failed = format!(
                r#","errno":{number},"cause":{{"kind":"pid-max","what":"x","limit":"pid_max","current":9,
                "max":10,"path":"/{number}","confidence":"certain","hint":"y"}},
                "waits":[{{"at_ns":1,"dur_ns":1,"state":"blocked","reason":"{number}"}}]"#
            );
            metrics.fork(&fork(&format!("3-{number}"), &failed), now);
        }
        let text = exposed(&mut metrics, &Readings::default());
        let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("fork_trace_forks_by_comm_total"), 51);
        assert_eq!(lines("fork_trace_failures_total"), 129);
        assert_eq!(lines("fork_trace_wait_seconds_total"), 129);
        assert_eq!(lines("fork_trace_limit_used_ratio"), 64);
        assert!(text.lines().count() < 1_000, "{}", text.lines().count());
        for (label, count) in
            [("comm", "9951"), ("cause", "9872"), ("reason", "9872"), ("path", "9936")]
        {
            let metric = format!("fork_trace_label_values_dropped_total{{label=\"{label}\"}}");
            assert_eq!(value(&text, &metric), Some(count), "{label}");
        }
        let full = "fork_trace_lost_records_total{kind=\"held_full\"}";
        assert_eq!(value(&text, full), Some("5904"));
        let of_others = value(&text, "fork_trace_forks_by_comm_total{comm=\"other\"}");
        assert_eq!(of_others, Some("9951"));
    }

    #[test]
    fn hostile_names_stay_in_their_labels() {
        let hostile = "a\"} 9\n# EOF\nfork_trace_x 1\\\u{1b}[2J\u{202e}";
        let mut metrics = counted(&[("1-1", &called(hostile))]);
        let text = exposed(&mut metrics, &Readings::default());
        let line = text.lines().find(|line| line.contains("comm=\"a")).unwrap();
        assert_eq!(
            line,
            "fork_trace_forks_by_comm_total{comm=\"a\\\"} 9\\\\n# EOF\\\\nfork_trace_x \
             1\\\\\\\\x1b[2J\\\\u{202e}\"} 1"
        );
        assert_eq!(text.matches("# EOF\n").count(), 1);
    }

    #[test]
    fn a_limit_is_told_for_as_long_as_it_is_fresh() {
        let mut metrics = metrics();
        let now = Instant::now();
        let failed = r#","errno":11,"cause":{"kind":"threads-max","what":"x","limit":"threads-max",
            "current":12,"max":10,"confidence":"certain","hint":"y"}"#;
        metrics.fork(&fork("1-1", failed), now);
        let ratio = |metrics: &mut Metrics, after| {
            let text =
                open_metrics(metrics, &Readings::default(), now + Duration::from_secs(after));
            value(&text, "fork_trace_limit_used_ratio{limit=\"threads-max\"}").map(str::to_owned)
        };
        assert_eq!(ratio(&mut metrics, 299).as_deref(), Some("1.2"));
        assert_eq!(ratio(&mut metrics, 300), None);
    }

    #[test]
    fn zombies_are_those_of_the_parents_that_have_most() {
        let mut metrics = Metrics::new(&Scope { top: 2, losses: Vec::new() });
        let zombies = [("a", 9), ("other", 3), ("b", 2), ("c", 1)];
        let zombies = zombies.map(|(name, count)| (name.to_owned(), count)).to_vec();
        let readings = Readings { zombies: Some(zombies), stuck: Some(4), ..Readings::default() };
        let text = exposed(&mut metrics, &readings);
        assert_eq!(value(&text, "fork_trace_zombies{comm=\"a\"}"), Some("9"));
        assert_eq!(value(&text, "fork_trace_zombies{comm=\"other\"}"), Some("6"));
        assert_eq!(value(&text, "fork_trace_zombies{comm=\"b\"}"), None);
        assert_eq!(value(&text, "fork_trace_stuck"), Some("4"));
    }
}
