//! Metrics as text: `OpenMetrics` 1.0, and the older format of Prometheus, which has neither examples nor an end.

use std::fmt::Write as _;

use crate::output::{
    metrics::{
        family::{Family, Labels, Type, Value, seconds},
        histogram::{Exemplar, Histogram},
    },
    text::line::printable,
};

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenMetrics,
    /// Version 0.0.4.
    Prometheus,
}

/// All families as text.
pub(super) fn text(families: &[Family], dialect: Dialect) -> String {
    let mut text = Text { out: String::new(), dialect };
    for family in families {
        text.family(family);
    }
    if dialect == Dialect::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

struct Text {
    out: String,
    dialect: Dialect,
}

impl Text {
    fn family(&mut self, family: &Family) {
        let (suffix, kind) = match family.kind {
            Type::Counter => ("_total", "counter"),
            Type::Gauge => ("", "gauge"),
            Type::Histogram => ("", "histogram"),
            Type::Info => ("_info", "info"),
        };
        let Family { name, help, .. } = family;
        // The older format knows the names of metrics, and no type for what only has labels.
        let (named, kind) = match (self.dialect, family.kind) {
            (Dialect::OpenMetrics, _) => ("", kind),
            (Dialect::Prometheus, Type::Info) => (suffix, "gauge"),
            (Dialect::Prometheus, _) => (suffix, kind),
        };
        self.line(format_args!("# HELP {name}{named} {help}"));
        self.line(format_args!("# TYPE {name}{named} {kind}"));
        if let (Some(unit), Dialect::OpenMetrics) = (family.unit(), self.dialect) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        for (labels, value) in &family.metrics {
            if let Value::Histogram(histogram) = value {
                self.histogram(name, labels, histogram);
            } else {
                let labels = braced(&pairs(labels));
                self.line(format_args!("{name}{suffix}{labels} {}", number(value)));
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: &Labels, histogram: &Histogram) {
        let pairs = pairs(labels);
        let comma = if pairs.is_empty() { "" } else { "," };
        for (end_ns, count, exemplar) in histogram.classic() {
            let le = end_ns.map_or_else(|| "+Inf".to_owned(), |ns| float(seconds(ns.into())));
            let exemplar = exemplar.filter(|_| self.dialect == Dialect::OpenMetrics);
            let exemplar = exemplar.map_or_else(String::new, example);
            self.line(format_args!("{name}_bucket{{{pairs}{comma}le=\"{le}\"}} {count}{exemplar}"));
        }
        let labels = braced(&pairs);
        self.line(format_args!("{name}_count{labels} {}", histogram.count()));
        self.line(format_args!("{name}_sum{labels} {}", exact(histogram.sum_ns())));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        _ = writeln!(self.out, "{line}");
    }
}

fn number(value: &Value) -> String {
    match value {
        Value::Count(count) => count.to_string(),
        Value::Time(ns) => exact(*ns),
        Value::Ratio(_) | Value::Histogram(_) => float(value.number()),
    }
}

/// Seconds, without losing a nanosecond.
fn exact(ns: u128) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// A number as `OpenMetrics` wants the end of a bucket, so that every format has the same: as `%g` of Go, with a
/// point.
fn float(value: f64) -> String {
    if value > 0.0 && value < 1e-4 {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once("e-").unwrap_or((&text, "0"));
        return format!("{digits}e-{exponent:0>2}");
    }
    format!("{value:?}")
}

fn example(exemplar: &Exemplar) -> String {
    let (value, ts) = (exact(exemplar.ns.into()), exemplar.ts.0);
    let (whole, millis) = (ts.as_second(), ts.subsec_millisecond());
    format!(" # {{{}}} {value} {whole}.{millis:03}", pair("fork_id", &exemplar.fork_id))
}

fn braced(pairs: &str) -> String {
    if pairs.is_empty() { String::new() } else { format!("{{{pairs}}}") }
}

fn pairs(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| pair(name, value)).collect::<Vec<_>>().join(",")
}

/// A label. What a terminal would obey is spelt out, and what would end the value is escaped.
fn pair(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", printable(value).replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelt_as_prometheus_does() {
        for (value, text) in [
            (0.000_016, "1.6e-05"),
            (0.000_064, "6.4e-05"),
            (0.000_128, "0.000128"),
            (0.131_072, "0.131072"),
            (1.0, "1.0"),
            (16.777_216, "16.777216"),
            (0.0, "0.0"),
        ] {
            assert_eq!(float(value), text);
        }
        assert_eq!(exact(1), "0.000000001");
        assert_eq!(exact(12_000_000_000), "12.000000000");
    }

    #[test]
    fn a_name_cannot_end_its_label() {
        let told = "comm=\"a\\\"} 1\\\\nb\\\\\\\\x1b\"";
        assert_eq!(pair("comm", "a\"} 1\nb\\\u{1b}"), told);
    }

    #[test]
    fn the_older_format_has_other_names_of_types_and_no_end() {
        let family = |kind, name, value| Family {
            name,
            help: "Help.",
            kind,
            metrics: vec![(vec![("a", "b".to_owned())], value)],
        };
        let families = [
            family(Type::Counter, "x_seconds", Value::Time(1)),
            family(Type::Info, "y", Value::Count(1)),
        ];
        assert_eq!(
            text(&families, Dialect::OpenMetrics),
            "# HELP x_seconds Help.\n# TYPE x_seconds counter\n# UNIT x_seconds seconds\n\
             x_seconds_total{a=\"b\"} 0.000000001\n\
             # HELP y Help.\n# TYPE y info\ny_info{a=\"b\"} 1\n# EOF\n"
        );
        assert_eq!(
            text(&families, Dialect::Prometheus),
            "# HELP x_seconds_total Help.\n# TYPE x_seconds_total counter\n\
             x_seconds_total{a=\"b\"} 0.000000001\n\
             # HELP y_info Help.\n# TYPE y_info gauge\ny_info{a=\"b\"} 1\n"
        );
    }
}
