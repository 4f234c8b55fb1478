//! What is exposed: every metric with its name, its labels and its help.

use std::time::{Duration, Instant};

use fork_trace_common::stage::STAGES;

#[cfg(feature = "otlp")]
use crate::output::metrics::{OtlpCounts, SIGNALS};
use crate::output::{
    metrics::{
        Metrics, Readings,
        bounded::OTHER,
        family::{Family, Labels, Type, Value},
        histogram::Histogram,
    },
    recorder::{Counts, Left, Trigger},
};

/// For how long a limit is exposed after an attempt failed at it: nobody looks at it afterwards.
const LIMIT_FRESH: Duration = Duration::from_secs(300);

/// The metrics of one family.
type Series = Vec<(Labels, Value)>;

/// A family: its name, its type, its help and its metrics.
type Row = (&'static str, Type, &'static str, Series);

fn label(name: &'static str, value: impl Into<String>) -> (&'static str, String) {
    (name, value.into())
}

fn distribution(histogram: &Histogram) -> Value {
    Value::Histogram(Box::new(histogram.clone()))
}

/// One metric without labels, if it is known.
fn single(value: Option<Value>) -> Series {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

/// What the flight recorder did.
fn recorder(counts: &Counts) -> [Row; 3] {
    let by = |name, values: &[(&str, u64)]| {
        let of = |(value, count): &(&str, u64)| (vec![label(name, *value)], Value::Count(*count));
        values.iter().map(of).collect()
    };
    let written: Vec<_> =
        Trigger::ALL.iter().map(|trigger| trigger.name()).zip(counts.written).collect();
    let Left { age, size, too_long } = counts.left;
    [
        (
            "fork_trace_recordings",
            Type::Counter,
            "Recordings that the flight recorder wrote, by what made it write.",
            by("trigger", &written),
        ),
        (
            "fork_trace_recordings_failed",
            Type::Counter,
            "Recordings that could not be written.",
            single(Some(Value::Count(counts.failed))),
        ),
        (
            "fork_trace_recorder_lines_left",
            Type::Counter,
            "Lines that the flight recorder has in memory no more, by the bound that they met.",
            by("bound", &[("age", age), ("size", size), ("too_long", too_long)]),
        ),
    ]
}

/// What was sent by OTLP.
#[cfg(feature = "otlp")]
fn otlp(counts: &OtlpCounts) -> [Row; 2] {
    let by = |result, counts: [u64; SIGNALS.len()]| {
        SIGNALS.into_iter().zip(counts).map(move |(signal, count)| {
            (vec![label("signal", signal), label("result", result)], Value::Count(count))
        })
    };
    [
        (
            "fork_trace_otlp_requests",
            Type::Counter,
            "Requests to a Collector, by signal and by whether they were taken.",
            by("ok", counts.taken).chain(by("failed", counts.failed)).collect(),
        ),
        (
            "fork_trace_otlp_records_dropped",
            Type::Counter,
            "Log records that were not sent to a Collector.",
            single(Some(Value::Count(counts.dropped))),
        ),
    ]
}

impl Metrics {
    /// Every metric with a value at `now`, in order.
    pub(super) fn families(&mut self, readings: &Readings, now: Instant) -> Vec<Family> {
        let fresh = |at: Instant| now.saturating_duration_since(at) < LIMIT_FRESH;
        self.limits.retain(|_, limit| fresh(limit.at));
        let zombies = self.zombies(readings);
        let counted = |count: &u64| Value::Count(*count);
        let rows: [Row; 17] = [
            (
                "fork_trace_attempts",
                Type::Counter,
                "Attempts to make a task, by kind and by what they came to.",
                self.attempts
                    .iter()
                    .map(|((kind, result), count)| {
                        (vec![label("kind", *kind), label("result", *result)], counted(count))
                    })
                    .collect(),
            ),
            (
                "fork_trace_failures",
                Type::Counter,
                "Attempts that failed, by error and by the kind of cause.",
                self.failures
                    .iter()
                    .map(|([errno, cause], count)| {
                        (vec![label("errno", &**errno), label("cause", &**cause)], counted(count))
                    })
                    .collect(),
            ),
            (
                "fork_trace_duration_seconds",
                Type::Histogram,
                "Time from the entry of a call to its return, without the wait of a vfork.",
                self.durations
                    .iter()
                    .map(|(kind, times)| (vec![label("kind", *kind)], distribution(times)))
                    .collect(),
            ),
            (
                "fork_trace_held_seconds",
                Type::Histogram,
                "Time from the entry of a call until its caller ran in user space again.",
                self.held
                    .iter()
                    .map(|(kind, times)| (vec![label("kind", *kind)], distribution(times)))
                    .collect(),
            ),
            (
                "fork_trace_child_wait_seconds",
                Type::Histogram,
                "Time from a child being runnable to its first moment on a CPU.",
                single(Some(distribution(&self.child_wait))),
            ),
            (
                "fork_trace_stage_seconds",
                Type::Histogram,
                "Own time of a stage, without the stages within it.",
                STAGES
                    .iter()
                    .zip(&self.stages)
                    .filter_map(|(row, times)| {
                        Some((vec![label("stage", row.name)], distribution(times.as_ref()?)))
                    })
                    .collect(),
            ),
            (
                "fork_trace_wait_seconds",
                Type::Counter,
                "Time in which callers stood still inside forks, by reason.",
                self.waits_ns
                    .iter()
                    .map(|([reason], ns)| (vec![label("reason", &**reason)], Value::Time(*ns)))
                    .collect(),
            ),
            (
                "fork_trace_limit_used_ratio",
                Type::Gauge,
                "How full a limit was when an attempt last failed at it, in the last five minutes.",
                self.limits
                    .iter()
                    .map(|((limit, path), used)| {
                        let mut labels = vec![label("limit", &**limit)];
                        labels.extend((!path.is_empty()).then(|| label("path", path)));
                        #[expect(clippy::cast_precision_loss, reason = "a share needs few digits")]
                        let ratio = used.current as f64 / used.max as f64;
                        (labels, Value::Ratio(ratio))
                    })
                    .collect(),
            ),
            (
                "fork_trace_forks_by_comm",
                Type::Counter,
                "Attempts by the name of the caller, of those names that fork most.",
                self.by_comm(|counts| Value::Count(counts.forks)),
            ),
            (
                "fork_trace_held_seconds_by_comm",
                Type::Counter,
                "Time for which forks held their callers, by the name of the caller.",
                self.by_comm(|counts| Value::Time(counts.held_ns)),
            ),
            (
                "fork_trace_label_values_dropped",
                Type::Counter,
                "Events that were counted without a label value of their own, by label.",
                self.dropped
                    .counts()
                    .map(|(of, count)| (vec![label("label", of)], Value::Count(count)))
                    .collect(),
            ),
            (
                "fork_trace_zombies",
                Type::Gauge,
                "Processes that have ended and were not waited for, by the name of their parent.",
                zombies,
            ),
            (
                "fork_trace_stuck",
                Type::Gauge,
                "Attempts that have lasted for a second or more and have not ended.",
                single(readings.stuck.map(Value::Count)),
            ),
            (
                "fork_trace_lost_records",
                Type::Counter,
                "Records that were lost, by the place where there was no room for them.",
                self.lost
                    .iter()
                    .map(|([sort], count)| (vec![label("kind", &**sort)], counted(count)))
                    .collect(),
            ),
            (
                "fork_trace_overhead_seconds",
                Type::Counter,
                "Time of fork-trace itself on CPUs, its programs in the kernel apart.",
                single(readings.cpu_ns.map(|ns| Value::Time(ns.into()))),
            ),
            (
                "fork_trace_kernel_forks",
                Type::Counter,
                "Tasks made since boot, as the kernel counts them.",
                single(readings.kernel_forks.map(Value::Count)),
            ),
            (
                "fork_trace_build",
                Type::Info,
                "The version of fork-trace, and that of the kernel.",
                self.versions
                    .iter()
                    .map(|(version, kernel)| {
                        (vec![label("version", version), label("kernel", kernel)], Value::Count(1))
                    })
                    .collect(),
            ),
        ];
        let recorder = readings.recorder.iter().flat_map(recorder);
        let families = rows.into_iter().chain(recorder);
        #[cfg(feature = "otlp")]
        let families = families.chain(readings.otlp.iter().flat_map(otlp));
        families.map(|(name, kind, help, metrics)| Family { name, help, kind, metrics }).collect()
    }

    fn by_comm(&self, value: impl Fn(super::bounded::Counts) -> Value) -> Series {
        let counts = self.comms.counts().into_iter();
        counts.map(|(comm, counts)| (vec![label("comm", comm)], value(counts))).collect()
    }

    /// The parents with the most zombies, and the others together.
    fn zombies(&self, readings: &Readings) -> Series {
        let Some(zombies) = &readings.zombies else { return Vec::new() };
        let (told, others) = zombies.split_at(zombies.len().min(self.top));
        let other: u64 = others.iter().map(|(_, count)| *count).sum();
        // A parent may itself be called so.
        let named: u64 =
            told.iter().filter(|(comm, _)| comm == OTHER).map(|(_, count)| *count).sum();
        let other = Some(other + named).filter(|count| *count > 0);
        let other = other.map(|count| (OTHER.to_owned(), count));
        let told = told.iter().filter(|(comm, _)| comm != OTHER).cloned().chain(other);
        told.map(|(comm, count)| (vec![label("comm", comm)], Value::Count(count))).collect()
    }
}
