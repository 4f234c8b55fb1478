//! Metrics as OTLP: one message `ExportMetricsServiceRequest` of `opentelemetry-proto`.
//!
//! Names are those of the text formats, as a Collector turns them around: `fork_trace.held` with the unit `s` becomes
//! `fork_trace_held_seconds` in Prometheus again.

use std::ops::Range;

use crate::output::{
    attributes::{scope, text, unix_ns},
    metrics::{
        family::{Family, Labels, Type, Value, seconds},
        histogram::{Exemplar, Histogram, end_ns},
    },
    protobuf::Message,
    text::line::printable,
};

/// Fields of a request, down to its metrics: each of these messages has the next.
mod request {
    pub(super) const RESOURCE_METRICS: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_METRICS: u32 = 2;
    pub(super) const SCOPE: u32 = 1;
    pub(super) const METRICS: u32 = 2;
}

/// Fields of a metric, and of what holds its points.
mod metric {
    pub(super) const NAME: u32 = 1;
    pub(super) const DESCRIPTION: u32 = 2;
    pub(super) const UNIT: u32 = 3;
    pub(super) const GAUGE: u32 = 5;
    pub(super) const SUM: u32 = 7;
    pub(super) const HISTOGRAM: u32 = 9;
    pub(super) const POINTS: u32 = 1;
    pub(super) const TEMPORALITY: u32 = 2;
    pub(super) const IS_MONOTONIC: u32 = 3;
    /// What is told counts from the start.
    pub(super) const CUMULATIVE: u32 = 2;
}

/// Fields of a point that is a number.
mod number {
    pub(super) const START: u32 = 2;
    pub(super) const TIME: u32 = 3;
    pub(super) const AS_DOUBLE: u32 = 4;
    pub(super) const AS_INT: u32 = 6;
    pub(super) const ATTRIBUTES: u32 = 7;
}

/// Fields of a point that is a histogram.
mod histogram {
    pub(super) const START: u32 = 2;
    pub(super) const TIME: u32 = 3;
    pub(super) const COUNT: u32 = 4;
    pub(super) const SUM: u32 = 5;
    pub(super) const BUCKET_COUNTS: u32 = 6;
    pub(super) const BOUNDS: u32 = 7;
    pub(super) const EXEMPLARS: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
}

/// Fields of an example.
mod exemplar {
    pub(super) const TIME: u32 = 2;
    pub(super) const AS_DOUBLE: u32 = 3;
    pub(super) const ATTRIBUTES: u32 = 7;
}

/// Counters that do not begin with the trace, but with this process or with the host.
const OLDER: [&str; 2] = ["fork_trace_overhead_seconds", "fork_trace_kernel_forks"];

/// How the names of all metrics begin.
const PREFIX: &str = "fork_trace_";

/// All families as a request, of what was counted in `times`, in nanoseconds since 1970.
pub(super) fn bytes(families: &[Family], resource: &Message, times: &Range<u64>) -> Vec<u8> {
    let mut out = Message::default();
    out.message(request::RESOURCE_METRICS, |out| {
        out.message(request::RESOURCE, |out| out.append(resource));
        out.message(request::SCOPE_METRICS, |out| {
            out.message(request::SCOPE, scope);
            for family in families.iter().filter(|family| !family.metrics.is_empty()) {
                out.message(request::METRICS, |out| add(out, family, times));
            }
        });
    });
    out.bytes().to_vec()
}

fn add(out: &mut Message, family: &Family, times: &Range<u64>) {
    let (unit, suffix) = match family.unit() {
        Some("seconds") => ("s", "_seconds"),
        Some("ratio") => ("1", "_ratio"),
        // Its unit stands inside of the name, and stays there.
        _ if family.name.contains("seconds") => ("s", ""),
        _ => ("", ""),
    };
    let name = family.name.strip_prefix(PREFIX).unwrap_or(family.name);
    let name = name.strip_suffix(suffix).unwrap_or(name);
    let info = if family.kind == Type::Info { "_info" } else { "" };
    out.raw_text(metric::NAME, &format!("fork_trace.{name}{info}"));
    out.raw_text(metric::DESCRIPTION, family.help);
    out.raw_text(metric::UNIT, unit);
    let field = match family.kind {
        Type::Counter => metric::SUM,
        Type::Gauge | Type::Info => metric::GAUGE,
        Type::Histogram => metric::HISTOGRAM,
    };
    let start =
        Some(times.start).filter(|_| !OLDER.contains(&family.name) && field != metric::GAUGE);
    out.message(field, |out| {
        for (labels, value) in &family.metrics {
            out.message(metric::POINTS, |out| match value {
                Value::Histogram(histogram) => add_histogram(out, labels, histogram, times),
                value => add_number(out, labels, value, start, times.end),
            });
        }
        if field != metric::GAUGE {
            out.number(metric::TEMPORALITY, metric::CUMULATIVE);
        }
        if field == metric::SUM {
            out.number(metric::IS_MONOTONIC, 1_u32);
        }
    });
}

fn add_labels(out: &mut Message, field: u32, labels: &Labels) {
    labels.iter().for_each(|(name, value)| text(out, field, name, &printable(value)));
}

fn add_number(out: &mut Message, labels: &Labels, value: &Value, start: Option<u64>, now: u64) {
    start.iter().for_each(|start| out.fixed(number::START, *start));
    out.fixed(number::TIME, now);
    match value {
        Value::Count(count) => out.fixed(number::AS_INT, *count),
        value => out.fixed(number::AS_DOUBLE, value.number().to_bits()),
    }
    add_labels(out, number::ATTRIBUTES, labels);
}

fn add_histogram(out: &mut Message, labels: &Labels, of: &Histogram, times: &Range<u64>) {
    out.fixed(histogram::START, times.start);
    out.fixed(histogram::TIME, times.end);
    out.fixed(histogram::COUNT, of.count());
    out.fixed(histogram::SUM, seconds(of.sum_ns()).to_bits());
    out.message(histogram::BUCKET_COUNTS, |out| {
        let mut before = 0;
        for (_, so_far, _) in of.classic() {
            out.bare_fixed(so_far - before);
            before = so_far;
        }
    });
    out.message(histogram::BOUNDS, |out| {
        let ends = (0..).map_while(end_ns);
        ends.for_each(|ns| out.bare_fixed(seconds(ns.into()).to_bits()));
    });
    for one in of.classic().filter_map(|(_, _, exemplar)| exemplar) {
        out.message(histogram::EXEMPLARS, |out| add_exemplar(out, one));
    }
    add_labels(out, histogram::ATTRIBUTES, labels);
}

fn add_exemplar(out: &mut Message, one: &Exemplar) {
    out.fixed(exemplar::TIME, unix_ns(one.ts.0));
    out.fixed(exemplar::AS_DOUBLE, seconds(one.ns.into()).to_bits());
    text(out, exemplar::ATTRIBUTES, "fork_trace.fork_id", &one.fork_id);
}
