//! Metrics as Prometheus' protocol buffers, which alone have native histograms: messages of
//! `io.prometheus.client`, each after its length.
//!
//! The numbers are those of `io/prometheus/client/metrics.proto` in `prometheus/client_model`.

use crate::output::{
    metrics::{
        family::{Family, Labels, Type, Value, seconds},
        histogram::{Exemplar, Histogram, SCHEMA},
    },
    protobuf::Message,
    text::line::printable,
};

/// Fields of a family.
mod family {
    pub(super) const NAME: u32 = 1;
    pub(super) const HELP: u32 = 2;
    pub(super) const TYPE: u32 = 3;
    pub(super) const METRIC: u32 = 4;
    pub(super) const UNIT: u32 = 5;
}

/// Fields of a metric; those that hold a value have one field, 1.
mod metric {
    pub(super) const LABEL: u32 = 1;
    pub(super) const GAUGE: u32 = 2;
    pub(super) const COUNTER: u32 = 3;
    pub(super) const HISTOGRAM: u32 = 7;
    pub(super) const VALUE: u32 = 1;
}

/// Fields of a label.
mod label {
    pub(super) const NAME: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

/// Fields of a histogram.
mod histogram {
    pub(super) const COUNT: u32 = 1;
    pub(super) const SUM: u32 = 2;
    pub(super) const BUCKET: u32 = 3;
    pub(super) const SCHEMA: u32 = 5;
    pub(super) const ZERO_THRESHOLD: u32 = 6;
    pub(super) const ZERO_COUNT: u32 = 7;
    pub(super) const SPAN: u32 = 12;
    pub(super) const DELTA: u32 = 13;
    pub(super) const EXEMPLAR: u32 = 16;
    pub(super) const BUCKET_COUNT: u32 = 1;
    pub(super) const BUCKET_END: u32 = 2;
    pub(super) const BUCKET_EXEMPLAR: u32 = 3;
    pub(super) const SPAN_OFFSET: u32 = 1;
    pub(super) const SPAN_LENGTH: u32 = 2;
    /// What counts as zero, as Prometheus' own libraries have it: 2^-128.
    pub(super) const ZERO: f64 = 2.938_735_877_055_719e-39;
}

/// Fields of an example.
mod exemplar {
    pub(super) const LABEL: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const TIMESTAMP: u32 = 3;
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
}

/// All families as bytes.
pub(super) fn bytes(families: &[Family]) -> Vec<u8> {
    let mut out = Message::default();
    for family in families {
        out.delimited(|out| add(out, family));
    }
    out.bytes().to_vec()
}

fn add(out: &mut Message, family: &Family) {
    let (suffix, kind, field) = match family.kind {
        Type::Counter => ("_total", 0_u32, metric::COUNTER),
        Type::Gauge => ("", 1, metric::GAUGE),
        Type::Info => ("_info", 1, metric::GAUGE),
        Type::Histogram => ("", 4, metric::HISTOGRAM),
    };
    out.raw_text(family::NAME, &format!("{}{suffix}", family.name));
    out.raw_text(family::HELP, family.help);
    out.number(family::TYPE, kind);
    for (labels, value) in &family.metrics {
        out.message(family::METRIC, |out| {
            add_labels(out, metric::LABEL, labels);
            out.message(field, |out| match value {
                Value::Histogram(histogram) => add_histogram(out, histogram),
                value => out.fixed(metric::VALUE, value.number().to_bits()),
            });
        });
    }
    if let Some(unit) = family.unit() {
        out.raw_text(family::UNIT, unit);
    }
}

fn add_labels(out: &mut Message, field: u32, labels: &Labels) {
    for (name, value) in labels {
        out.message(field, |out| {
            out.raw_text(label::NAME, name);
            out.raw_text(label::VALUE, &printable(value));
        });
    }
}

fn add_histogram(out: &mut Message, histogram: &Histogram) {
    out.number(histogram::COUNT, histogram.count());
    out.fixed(histogram::SUM, seconds(histogram.sum_ns()).to_bits());
    for (end_ns, count, exemplar) in histogram.classic() {
        out.message(histogram::BUCKET, |out| {
            let end = end_ns.map_or(f64::INFINITY, |ns| seconds(ns.into()));
            out.number(histogram::BUCKET_COUNT, count);
            out.fixed(histogram::BUCKET_END, end.to_bits());
            if let Some(exemplar) = exemplar {
                out.message(histogram::BUCKET_EXEMPLAR, |out| add_exemplar(out, exemplar));
            }
        });
    }
    out.signed(histogram::SCHEMA, SCHEMA.into());
    out.fixed(histogram::ZERO_THRESHOLD, histogram::ZERO.to_bits());
    out.number(histogram::ZERO_COUNT, histogram.zeros());
    let spans = histogram.spans();
    for (offset, counts) in &spans {
        out.message(histogram::SPAN, |out| {
            out.signed(histogram::SPAN_OFFSET, (*offset).into());
            out.number(histogram::SPAN_LENGTH, u64::try_from(counts.len()).unwrap_or_default());
        });
    }
    // Each count is told by how much more it is than the one before.
    let mut before = 0;
    for count in spans.iter().flat_map(|(_, counts)| counts) {
        out.signed(histogram::DELTA, count.cast_signed().wrapping_sub(before));
        before = count.cast_signed();
    }
    for (_, _, exemplar) in histogram.classic() {
        if let Some(exemplar) = exemplar {
            out.message(histogram::EXEMPLAR, |out| add_exemplar(out, exemplar));
        }
    }
}

fn add_exemplar(out: &mut Message, one: &Exemplar) {
    add_labels(out, exemplar::LABEL, &vec![("fork_id", one.fork_id.clone())]);
    out.fixed(exemplar::VALUE, seconds(one.ns.into()).to_bits());
    out.message(exemplar::TIMESTAMP, |out| {
        out.number(exemplar::SECONDS, one.ts.0.as_second().cast_unsigned());
        out.number(exemplar::NANOS, one.ts.0.subsec_nanosecond().cast_unsigned());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_a_message_after_its_length() {
        let family = Family {
            name: "x",
            help: "h",
            kind: Type::Counter,
            metrics: vec![(vec![("a", "b".to_owned())], Value::Count(1))],
        };
        let one = 1.0_f64.to_bits().to_le_bytes();
        let counter = [&b"\x1a\x09\x09"[..], &one].concat();
        let metric = [&b"\x22\x13\x0a\x06\x0a\x01a\x12\x01b"[..], &counter].concat();
        let wanted = [&b"\x23\x0a\x07x_total\x12\x01h\x18\x00"[..], &metric].concat();
        assert_eq!(bytes(&[family]), wanted);
    }

    #[test]
    fn a_histogram_has_classic_and_native_buckets() {
        let mut histogram = Histogram::default();
        for ns in [500_000_000, 1_000_000_000, 1_000_000_000] {
            histogram.add(ns);
        }
        let mut out = Message::default();
        add_histogram(&mut out, &histogram);
        let bytes = out.bytes();
        // Schema 3, and the two rows: one bucket at -8, one 7 further on; the counts 1 and 1 more.
        let native = [&b"\x28\x06\x31"[..], &histogram::ZERO.to_bits().to_le_bytes()].concat();
        let rows = [
            &native[..],
            b"\x38\x00\x62\x04\x08\x0f\x10\x01\x62\x04\x08\x0e\x10\x01\x68\x02\x68\x02",
        ];
        assert!(bytes.ends_with(&rows.concat()), "{bytes:x?}");
        assert!(bytes.starts_with(b"\x08\x03\x11"));
        let infinite = f64::INFINITY.to_bits().to_le_bytes();
        assert!(bytes.windows(8).any(|eight| eight == infinite));
    }
}
