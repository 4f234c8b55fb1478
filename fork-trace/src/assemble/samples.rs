//! What an attempt did for long: samples of its kernel stack, and the own time of a stage split
//! among the functions that were seen on them. Pure.
//!
//! A timer interrupts the attempt some thousand times a second, so samples are spread evenly over the
//! time for which it had a CPU. When a sample was taken tells the stage by the marks, and its stack
//! tells which function of the table really ran. Where that is another stage, the stage of the marks
//! gets rows for what was seen in it, each with its share of the time that it worked. Fewer samples
//! than a handful say nothing.

use std::collections::{BTreeMap, VecDeque};

use foldhash::HashMap;
use fork_trace_common::{callee::sampled_stage, sample::SampleRecord, stage::Stage};

use crate::event::{
    fork::{Fork, OTHER},
    span::{Precision, Source, Span, Status, worked_ns},
    values::Name,
};

/// Fewer samples than this say nothing.
pub const HANDFUL: usize = 5;
/// How many samples of an attempt are kept. When there are more, every second one is dropped.
pub const MOST: usize = 1024;
/// How many samples of all attempts are kept at once.
pub const MOST_HELD: usize = 65_536;
/// How many attempts have samples at once.
pub const MOST_ATTEMPTS: usize = 1024;

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken.
    pub at_ns: u64,
    /// The kernel stack: the interrupted instruction, then return addresses.
    pub stack: Box<[u64]>,
}

/// The samples of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// In order.
    pub samples: Vec<Sample>,
    /// For how many samples that were taken one of them stands.
    pub stride: u64,
}

/// A thread, and when its attempt began.
type Key = (u32, u64);

/// The samples of an attempt under way.
struct UnderWay {
    start_ns: u64,
    /// How many were taken.
    count: u64,
    sampled: Sampled,
}

impl UnderWay {
    const fn new(start_ns: u64) -> Self {
        Self { start_ns, count: 0, sampled: Sampled { samples: Vec::new(), stride: 1 } }
    }

    fn push(&mut self, record: &SampleRecord) {
        let Sampled { samples, stride } = &mut self.sampled;
        if samples.len() == MOST {
            let mut keep = false;
            samples.retain(|_| {
                keep = !keep;
                keep
            });
            *stride *= 2;
        }
        if self.count.is_multiple_of(*stride) {
            let frames = usize::try_from(record.frames).unwrap_or(usize::MAX);
            let stack = record.stack.iter().take(frames).copied().collect();
            samples.push(Sample { at_ns: record.at_ns, stack });
        }
        self.count += 1;
    }

    /// When the last sample was taken.
    fn last_ns(&self) -> u64 {
        self.sampled.samples.last().map_or(0, |sample| sample.at_ns)
    }
}

/// Gathers the samples of attempts under way, by thread.
#[derive(Default)]
pub struct Samples {
    under_way: HashMap<u32, UnderWay>,
    /// How many samples these have.
    held: usize,
    /// Attempts whose samples were dropped to make room: what comes of them later says nothing.
    dropped: VecDeque<Key>,
}

impl Samples {
    /// Takes a sample.
    pub fn push(&mut self, record: &SampleRecord) {
        let key = (record.tid, record.start_ns);
        let is_same = |attempt: &UnderWay| attempt.start_ns == record.start_ns;
        if !self.under_way.get(&record.tid).is_some_and(is_same) {
            if self.dropped.contains(&key) {
                return;
            }
            self.remove(record.tid);
            self.under_way.insert(record.tid, UnderWay::new(record.start_ns));
        }
        let Some(attempt) = self.under_way.get_mut(&record.tid) else { return };
        self.held -= attempt.sampled.samples.len();
        attempt.push(record);
        self.held += attempt.sampled.samples.len();
        while self.under_way.len() > MOST_ATTEMPTS || self.held > MOST_HELD {
            let oldest = self.under_way.iter().min_by_key(|(_, attempt)| attempt.last_ns());
            let Some((tid, start_ns)) = oldest.map(|(tid, attempt)| (*tid, attempt.start_ns))
            else {
                break;
            };
            self.remove(tid);
            self.dropped.push_back((tid, start_ns));
            if self.dropped.len() > MOST_ATTEMPTS {
                self.dropped.pop_front();
            }
        }
    }

    /// The samples of an attempt that is over, if there is a handful.
    pub fn take(&mut self, tid: u32, start_ns: u64) -> Sampled {
        let attempt = self.remove(tid).filter(|attempt| attempt.start_ns == start_ns);
        let sampled = attempt.map(|attempt| attempt.sampled).unwrap_or_default();
        if sampled.samples.len() < HANDFUL { Sampled::default() } else { sampled }
    }

    fn remove(&mut self, tid: u32) -> Option<UnderWay> {
        let attempt = self.under_way.remove(&tid)?;
        self.held -= attempt.sampled.samples.len();
        Some(attempt)
    }
}

/// A sample, with the stages on its stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was taken.
    at_ns: u64,
    /// The stages that functions on the stack tell, the innermost first.
    stages: Vec<Stage>,
}

/// The samples of an attempt with the stages on their stacks; `names` turns a stack into the names of
/// its functions. Empty where no stack could be read.
#[must_use]
pub fn seen(sampled: &Sampled, names: &mut dyn FnMut(&[u64]) -> Option<Vec<String>>) -> Vec<Seen> {
    let mut known: HashMap<String, Option<Stage>> = HashMap::default();
    let mut seen = Vec::with_capacity(sampled.samples.len());
    for sample in &sampled.samples {
        // Of return addresses the byte before counts; this instruction is still to be run.
        let mut stack = sample.stack.to_vec();
        if let Some(first) = stack.first_mut() {
            *first = first.saturating_add(1);
        }
        let names = names(&stack).unwrap_or_default();
        let stages = names
            .into_iter()
            .filter_map(|name| *known.entry(name).or_insert_with_key(|name| sampled_stage(name)));
        seen.push(Seen { at_ns: sample.at_ns, stages: stages.collect() });
    }
    if seen.iter().all(|seen| seen.stages.is_empty()) {
        seen.clear();
    }
    seen
}

/// Where a sample was taken: in the stage at this place, or in none.
type Place = Option<usize>;

/// What was seen in the own time of one stage.
#[derive(Default)]
struct InStage {
    samples: usize,
    by_stage: BTreeMap<Stage, usize>,
}

/// Splits the own times of an attempt's stages among what was seen in them. `began_ns` is when the
/// attempt began, and `period_ns` how long it had a CPU from one sample to the next. The waits have
/// to be in their stages already.
pub fn add(fork: &mut Fork, began_ns: u64, period_ns: u64, seen: &[Seen]) {
    let mut places: BTreeMap<Place, InStage> = BTreeMap::new();
    for one in seen {
        let Some(since_ns) = one.at_ns.checked_sub(began_ns) else { continue };
        let Some(place) = place(fork, since_ns, &one.stages) else { continue };
        let within = places.entry(place).or_default();
        within.samples += 1;
        if let Some(told) = one.stages.first()
            && !is_exact_elsewhere(&fork.stages, *told, place)
        {
            *within.by_stage.entry(*told).or_default() += 1;
        }
    }
    // From the last stage to the first, so that places stay what they are.
    for (place, within) in places.iter().rev().filter(|(place, _)| place.is_some()) {
        split(fork, *place, within, period_ns);
    }
    if let Some(within) = places.get(&None) {
        split(fork, None, within, period_ns);
    }
}

/// The stage in whose own time a sample was taken; `None`: after the attempt.
fn place(fork: &Fork, since_ns: u64, on_stack: &[Stage]) -> Option<Place> {
    // All runs of a function are one stage, and its time is not where that began.
    let runs = on_stack.iter().find_map(|stage| {
        let name = stage.row().name;
        fork.stages.iter().position(|span| span.runs.is_some() && span.name == name)
    });
    if runs.is_some() {
        return Some(runs);
    }
    let lasts = fork.stages.iter().enumerate().filter(|(_, span)| {
        let (Some(start_ns), Some(dur_ns)) = (span.start_ns, span.dur_ns) else { return false };
        // What waits alone tell of has no beginning and no end.
        let is_interval = span.runs.is_none() && span.source != Some(Source::Switch);
        is_interval && (start_ns..start_ns.saturating_add(dur_ns)).contains(&since_ns)
    });
    let depth = |span: &Span| span.stage().map(|stage| stage.row().depth());
    let innermost = lasts.max_by_key(|(_, span)| depth(span)).map(|(place, _)| place);
    let within = fork.total_ns.is_some_and(|total_ns| since_ns < total_ns);
    (innermost.is_some() || within).then_some(innermost)
}

/// Whether a stage has a time of its own that is exact, at another place: then nothing has to be said
/// of it.
fn is_exact_elsewhere(stages: &[Span], told: Stage, place: Place) -> bool {
    let is = |span: &Span| span.precision == Precision::Exact && span.name == told.row().name;
    stages.iter().enumerate().any(|(other, span)| Some(other) != place && is(span))
}

/// How long an attempt worked at a place.
fn work_ns(fork: &Fork, place: Place) -> Option<u64> {
    match place {
        Some(place) => worked_ns(&fork.stages, fork.stages.get(place)?),
        None => {
            let outermost = fork.stages.iter().filter(|span| {
                let around = |outer: &Span| {
                    let timed = outer.dur_ns.is_some() && !outer.is_sampled();
                    timed
                        && span
                            .stage()
                            .zip(outer.stage())
                            .is_some_and(|(span, outer)| span.is_within(outer))
                };
                !fork.stages.iter().any(around)
            });
            let charged_ns: u64 = outermost.filter_map(|span| span.off_cpu_ns).sum();
            let off_ns = fork.off_cpu_ns.unwrap_or_default().saturating_sub(charged_ns);
            Some(fork.other_ns?.saturating_sub(off_ns))
        }
    }
}

/// Gives what was seen at a place its rows.
fn split(fork: &mut Fork, place: Place, within: &InStage, period_ns: u64) {
    let Some(mut work_ns) = work_ns(fork, place) else { return };
    let samples = within.samples as u64;
    // Where interrupts were off for long, the timer came too late, and samples stand for other time.
    let seen_ns = samples.saturating_mul(period_ns);
    // Where waits may be missing, it worked for no longer than it was seen to.
    if fork.waits_incomplete.is_some() {
        work_ns = work_ns.min(seen_ns);
    }
    let few = seen_ns.saturating_mul(2) < work_ns;
    // The other way round the time off the CPU is in the wrong place.
    let many = seen_ns > work_ns.saturating_add(period_ns).saturating_mul(2);
    if within.samples < HANDFUL || few || many {
        return;
    }
    let span = place.and_then(|place| fork.stages.get(place));
    let of = span.map_or(Name::Borrowed(OTHER), |span| span.name.clone());
    let told = within.by_stage.iter().filter(|(_, count)| **count >= HANDFUL);
    if told.clone().all(|(stage, _)| stage.row().name == of) {
        return;
    }
    let rows = told.map(|(stage, count)| {
        let count = *count as u64;
        let dur_ns = u128::from(work_ns) * u128::from(count) / u128::from(samples.max(1));
        Span {
            name: Name::Borrowed(stage.row().name),
            start_ns: None,
            dur_ns: Some(u64::try_from(dur_ns).unwrap_or(work_ns)),
            self_ns: None,
            off_cpu_ns: None,
            runs: None,
            status: Status::Done,
            precision: Precision::Sampled,
            source: Some(Source::Sample),
            as_covered: false,
            until: None,
            includes_undo: None,
            tracer_ns: None,
            samples: Some(count),
            of: Some(of.clone()),
        }
    });
    let rows: Vec<_> = rows.collect();
    let next = place.map_or(fork.stages.len(), |place| place + 1);
    if let Some(span) = place.and_then(|place| fork.stages.get_mut(place)) {
        span.samples = Some(samples);
    }
    fork.stages.splice(next..next, rows);
}

#[cfg(test)]
mod tests {
    use fork_trace_common::stage::STAGES;
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn span(stage: Stage, start_ns: u64, dur_ns: u64, self_ns: u64) -> Span {
        let json = serde_json::json!({"name": stage.row().name, "start_ns": start_ns,
            "dur_ns": dur_ns, "self_ns": self_ns, "status": "done", "precision": "bounded",
            "source": "tracepoint"});
        serde_json::from_value(json).unwrap()
    }

    /// A fork of 100 ms: 20 ms until `copy_process`, which has 60 ms in `copy_page_range`, and 10 ms
    /// after it that belong to no stage.
    fn fork() -> Fork {
        let head = r#"{"id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1,"kind":"process",
            "syscall":"fork","parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0},
            "total_ns":100000000,"stages":[]}"#;
        let mut fork: Fork = serde_json::from_str(head).unwrap();
        fork.other_ns = Some(10 * MS);
        fork.stages = vec![
            span(Stage::SysEnter, 0, 20 * MS, 20 * MS),
            span(Stage::CopyProcess, 20 * MS, 70 * MS, 10 * MS),
            span(Stage::CopyPageRange, 25 * MS, 60 * MS, 60 * MS),
        ];
        fork
    }

    fn own(fork: &Fork) -> u64 {
        fork.stages.iter().filter_map(|span| span.self_ns).sum::<u64>()
            + fork.other_ns.unwrap_or_default()
    }

    /// A sample every millisecond from `from` on.
    fn every_ms(from: u64, count: u64, stages: &[Stage]) -> Vec<Seen> {
        let one = |at: u64| Seen { at_ns: at * MS + MS / 2, stages: stages.to_vec() };
        (from..from + count).map(one).collect()
    }

    /// Name, what it is of, duration in milliseconds, samples: of the rows that are sampled.
    fn rows(fork: &Fork) -> Vec<(&str, &str, u64, u64)> {
        let rows = fork.stages.iter().filter(|span| span.is_sampled());
        rows.map(|span| {
            let of = span.of.as_deref().unwrap_or_default();
            (span.name.as_ref(), of, span.dur_ns.unwrap() / MS, span.samples.unwrap())
        })
        .collect()
    }

    #[test]
    fn the_own_time_of_a_stage_is_split_by_what_was_seen_in_it() {
        let mut fork = fork();
        let mut seen = every_ms(25, 45, &[Stage::AnonVmaFork, Stage::DupMmap, Stage::CopyProcess]);
        seen.extend(every_ms(70, 12, &[Stage::CopyPageRange, Stage::DupMmap]));
        // Too few to be told, and one of which nothing is known.
        seen.extend(every_ms(82, 2, &[Stage::VmAreaDup]));
        seen.extend(every_ms(84, 1, &[]));
        add(&mut fork, 0, MS, &seen);
        assert_eq!(
            rows(&fork),
            [
                ("copy_page_range", "copy_page_range", 12, 12),
                ("anon_vma_fork", "copy_page_range", 45, 45)
            ]
        );
        let around = &fork.stages[2];
        assert_eq!(
            (around.samples, around.dur_ns, around.self_ns),
            (Some(60), Some(60 * MS), Some(60 * MS))
        );
        assert_eq!(own(&fork), 100 * MS);
        assert_eq!(fork.slowest(), Some(("anon_vma_fork", 45 * MS)));
    }

    #[test]
    fn what_only_its_own_function_was_seen_in_is_not_split() {
        let mut fork = fork();
        add(&mut fork, 0, MS, &every_ms(25, 60, &[Stage::CopyPageRange, Stage::DupMmap]));
        assert_eq!(rows(&fork), []);
        assert_eq!(fork.stages[2].samples, None);
    }

    #[test]
    fn less_than_a_handful_says_nothing() {
        let mut short = fork();
        short.stages[2] = span(Stage::CopyPageRange, 25 * MS, 4 * MS, 4 * MS);
        add(&mut short, 0, MS, &every_ms(25, 4, &[Stage::AnonVmaFork]));
        assert_eq!(rows(&short), []);
        // The timer came far too seldom: interrupts were off for long.
        let mut fork = fork();
        add(&mut fork, 0, MS, &every_ms(25, 29, &[Stage::AnonVmaFork]));
        assert_eq!(rows(&fork), []);
        add(&mut fork, 0, MS, &every_ms(25, 30, &[Stage::AnonVmaFork]));
        assert_eq!(rows(&fork), [("anon_vma_fork", "copy_page_range", 60, 30)]);
    }

    #[test]
    fn what_contradicts_the_time_off_the_cpu_says_nothing() {
        let mut fork = fork();
        fork.off_cpu_ns = Some(40 * MS);
        for place in [1, 2] {
            fork.stages[place].off_cpu_ns = Some(40 * MS);
        }
        add(&mut fork, 0, MS, &every_ms(25, 50, &[Stage::AnonVmaFork]));
        assert_eq!(rows(&fork), []);
    }

    #[test]
    fn where_waits_may_be_missing_no_more_is_work_than_was_seen() {
        let mut fork = fork();
        fork.waits_incomplete = Some(true);
        add(&mut fork, 0, MS, &every_ms(25, 20, &[Stage::AnonVmaFork]));
        assert_eq!(rows(&fork), [("anon_vma_fork", "copy_page_range", 20, 20)]);
    }

    #[test]
    fn a_stage_that_waits_alone_tell_of_has_no_place() {
        let mut fork = fork();
        fork.stages.truncate(2);
        fork.stages[1] = span(Stage::CopyProcess, 20 * MS, 70 * MS, 50 * MS);
        let mut waited = span(Stage::CopyPageRange, 25 * MS, 20 * MS, 20 * MS);
        (waited.source, waited.off_cpu_ns) = (Some(Source::Switch), Some(20 * MS));
        fork.stages.push(waited);
        (fork.stages[1].off_cpu_ns, fork.off_cpu_ns) = (Some(20 * MS), Some(20 * MS));
        add(&mut fork, 0, MS, &every_ms(30, 50, &[Stage::AnonVmaFork, Stage::DupMmap]));
        assert_eq!(rows(&fork), [("anon_vma_fork", "copy_process", 50, 50)]);
    }

    #[test]
    fn time_off_the_cpu_is_not_split() {
        let mut fork = fork();
        fork.off_cpu_ns = Some(40 * MS);
        for place in [1, 2] {
            fork.stages[place].off_cpu_ns = Some(40 * MS);
        }
        add(&mut fork, 0, MS, &every_ms(25, 20, &[Stage::AnonVmaFork]));
        assert_eq!(rows(&fork), [("anon_vma_fork", "copy_page_range", 20, 20)]);
    }

    #[test]
    fn time_in_no_stage_is_split_too() {
        let mut fork = fork();
        let mut seen = every_ms(90, 8, &[Stage::CgroupPostFork, Stage::CopyProcess]);
        seen.extend(every_ms(98, 5, &[]));
        add(&mut fork, 0, MS, &seen);
        // Of these only two lie within the total.
        assert_eq!(rows(&fork), [("cgroup_post_fork", "other", 8, 8)]);
        assert_eq!(fork.stages.last().unwrap().name, "cgroup_post_fork");
        assert_eq!(own(&fork), 100 * MS);
    }

    #[test]
    fn a_stage_that_is_exact_is_left_alone() {
        let mut fork = fork();
        let mut runs = span(Stage::AnonVmaFork, 26 * MS, 20 * MS, 20 * MS);
        (runs.runs, runs.precision) = (Some(500), Precision::Exact);
        fork.stages.push(runs);
        let mut exact = span(Stage::CopyNamespaces, 85 * MS, MS, MS);
        exact.precision = Precision::Exact;
        fork.stages.push(exact);
        let mut seen = every_ms(25, 20, &[Stage::AnonVmaFork, Stage::DupMmap]);
        seen.extend(every_ms(45, 40, &[Stage::CopyNamespaces]));
        add(&mut fork, 0, MS, &seen);
        assert_eq!(rows(&fork), []);
    }

    fn record(tid: u32, start_ns: u64, at_ns: u64) -> SampleRecord {
        SampleRecord { tid, start_ns, at_ns, frames: 2, ..SampleRecord::zeroed() }
    }

    #[test]
    fn samples_go_to_their_own_attempt_only() {
        let mut samples = Samples::default();
        for at_ns in 0..6 {
            samples.push(&record(1, 10, at_ns));
            samples.push(&record(2, 10, at_ns));
        }
        assert_eq!(samples.take(1, 11), Sampled::default());
        assert_eq!(samples.take(1, 10), Sampled::default(), "gone");
        samples.push(&record(2, 20, 7));
        assert_eq!(samples.take(2, 20), Sampled::default(), "less than a handful");
        assert_eq!((samples.held, samples.under_way.len()), (0, 0));
    }

    #[test]
    fn a_long_attempt_keeps_samples_of_all_its_time() {
        let mut samples = Samples::default();
        for at_ns in 0..10_000 {
            samples.push(&record(1, 10, at_ns));
        }
        let Sampled { samples, stride } = samples.take(1, 10);
        assert_eq!(stride, 16);
        let at: Vec<_> = samples.iter().map(|sample| sample.at_ns).collect();
        let all: Vec<_> = (0..10_000).step_by(16).collect();
        assert_eq!(at, all);
    }

    #[test]
    fn what_is_held_is_bounded_and_a_rest_says_nothing() {
        let mut samples = Samples::default();
        let many = u32::try_from(MOST_ATTEMPTS).unwrap() + 10;
        for tid in 0..many {
            for at_ns in 0..100 {
                samples.push(&record(tid, 10, at_ns + u64::from(tid)));
            }
        }
        assert!(samples.held <= MOST_HELD && samples.under_way.len() <= MOST_ATTEMPTS);
        for at_ns in 0..100 {
            samples.push(&record(0, 10, at_ns + 50_000));
        }
        assert_eq!(samples.take(0, 10), Sampled::default());
        assert_eq!(samples.take(many - 1, 10).samples.len(), 100);
    }

    proptest! {
        /// Whatever is seen, and wherever: the own times add up as before, shares are no more than
        /// what they are a share of worked, and each has a handful of samples.
        #[test]
        fn samples_change_no_sum(
            samples in proptest::collection::vec((0u64..120, 0usize..STAGES.len() + 1, 0usize..STAGES.len() + 1), 0..200),
            off_ms in 0u64..60,
            period_ns in 0u64..2_000_000,
        ) {
            let mut fork = fork();
            fork.off_cpu_ns = Some(off_ms * MS);
            for place in [1, 2] {
                fork.stages[place].off_cpu_ns = Some(off_ms * MS);
            }
            let before = fork.clone();
            let seen: Vec<_> = samples.iter().map(|(at, inner, outer)| {
                let stages = [inner, outer].into_iter().filter_map(|place| STAGES.get(*place));
                Seen { at_ns: at * MS, stages: stages.map(|row| row.stage).collect() }
            }).collect();
            add(&mut fork, 0, period_ns, &seen);
            prop_assert_eq!(own(&fork), 100 * MS);
            for span in before.stages.iter() {
                let shares = fork.stages.iter().filter(|share| share.of.as_ref() == Some(&span.name));
                let shares_ns: u64 = shares.clone().map(|share| share.dur_ns.unwrap()).sum();
                prop_assert!(shares_ns <= worked_ns(&before.stages, span).unwrap());
                for share in shares {
                    prop_assert!(share.samples.unwrap() >= HANDFUL as u64 && share.self_ns.is_none());
                }
            }
            let same = |span: &&Span| !span.is_sampled();
            for (now, before) in fork.stages.iter().filter(same).zip(&before.stages) {
                prop_assert_eq!((now.dur_ns, now.self_ns), (before.dur_ns, before.self_ns));
            }
        }
    }
}
