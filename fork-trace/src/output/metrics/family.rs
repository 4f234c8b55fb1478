//! What is exposed, as values: metrics of one name, each with its labels. The formats are made of these.

use crate::output::metrics::histogram::Histogram;

/// The labels of one metric.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// They only grow.
    Counter,
    /// They are what they are just now.
    Gauge,
    /// They are distributions.
    Histogram,
    /// There is one, it is 1, and its labels say something.
    Info,
}

/// Metrics of one name.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Without the suffix that its type gives it.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Type,
    pub(super) metrics: Vec<(Labels, Value)>,
}

/// The value of a metric.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number of things.
    Count(u64),
    /// A time, in nanoseconds; it is exposed in seconds.
    Time(u128),
    /// A part of a whole.
    Ratio(f64),
    /// A distribution of times.
    Histogram(Box<Histogram>),
}

/// Units that a name may end in.
const UNITS: [&str; 2] = ["seconds", "ratio"];

impl Family {
    /// The unit that its name ends in.
    pub(super) fn unit(&self) -> Option<&'static str> {
        UNITS.into_iter().find(|unit| self.name.ends_with(unit))
    }
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a double is what Prometheus keeps")]
pub(super) fn seconds(ns: u128) -> f64 {
    ns as f64 / 1e9
}

impl Value {
    /// As a floating point number, as far as it is one number.
    #[expect(clippy::cast_precision_loss, reason = "a double is what Prometheus keeps")]
    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Count(count) => *count as f64,
            Self::Time(ns) => seconds(*ns),
            Self::Ratio(ratio) => *ratio,
            Self::Histogram(histogram) => histogram.count() as f64,
        }
    }
}
