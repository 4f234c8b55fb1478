//! A histogram of durations, classic and native at once: Prometheus takes the one or the other.

use std::collections::BTreeMap;

use crate::event::values::Ts;

/// The smallest classic bucket holds what took no longer than this.
const FIRST_NS: u64 = 16_000;

/// Classic buckets, each twice as wide as the one before: the last ends at 16.8 s.
pub(super) const CLASSIC: usize = 21;

/// Native buckets for each doubling, as a power of two: a bucket is 9 % wide.
pub(super) const SCHEMA: i32 = 3;

/// Native buckets that a histogram may have, enough for everything from 1 ns to 49 days.
const MOST: usize = 420;

/// One attempt that a bucket is an example of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exemplar {
    /// Its `id`.
    pub(super) fork_id: String,
    pub(super) ns: u64,
    /// When it began.
    pub(super) ts: Ts,
}

/// How many durations lie in each bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Durations by classic bucket; the last is of those that are longer than all others.
    classic: [u64; CLASSIC + 1],
    /// Durations by native bucket.
    native: BTreeMap<i32, u64>,
    zeros: u64,
    count: u64,
    sum_ns: u128,
    /// The latest of each classic bucket, where there is one.
    exemplars: BTreeMap<usize, Exemplar>,
}

/// The end of a classic bucket, included; `None`: it has no end.
pub(super) fn end_ns(bucket: usize) -> Option<u64> {
    (bucket < CLASSIC).then_some(FIRST_NS << bucket)
}

/// The native bucket of a duration that is not zero.
///
/// Bucket `i` holds what is above 2^((i-1)/8) and up to 2^(i/8), in seconds.
fn native_bucket(ns: u64) -> i32 {
    #[expect(clippy::cast_precision_loss, reason = "a bucket is wider than what is lost")]
    let eighths = (ns as f64 / 1e9).log2() * f64::from(1 << SCHEMA);
    #[expect(clippy::cast_possible_truncation, reason = "it lies between -240 and 274")]
    let bucket = eighths.ceil() as i32;
    bucket
}

impl Histogram {
    /// Counts a duration; returns its classic bucket.
    pub(super) fn add(&mut self, ns: u64) -> usize {
        let bucket = (0..CLASSIC).find(|bucket| end_ns(*bucket) >= Some(ns)).unwrap_or(CLASSIC);
        if let Some(count) = self.classic.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum_ns += u128::from(ns);
        if ns == 0 {
            self.zeros += 1;
        } else {
            self.add_native(native_bucket(ns));
        }
        bucket
    }

    /// The same, with the attempt that took so long.
    pub(super) fn add_with(&mut self, ns: u64, exemplar: Exemplar) {
        let bucket = self.add(ns);
        self.exemplars.insert(bucket, exemplar);
    }

    fn add_native(&mut self, bucket: i32) {
        // What is longer than anything that a fork can take shares the last bucket.
        let full = self.native.len() >= MOST && !self.native.contains_key(&bucket);
        let last = || self.native.last_key_value().map(|(last, _)| *last);
        let bucket = if full { last().unwrap_or(bucket) } else { bucket };
        *self.native.entry(bucket).or_default() += 1;
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) const fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    pub(super) const fn zeros(&self) -> u64 {
        self.zeros
    }

    /// How many are in each classic bucket or in one before it, with its end and its example.
    pub(super) fn classic(&self) -> impl Iterator<Item = (Option<u64>, u64, Option<&Exemplar>)> {
        let mut so_far = 0;
        self.classic.iter().enumerate().map(move |(bucket, count)| {
            so_far += count;
            (end_ns(bucket), so_far, self.exemplars.get(&bucket))
        })
    }

    /// Native buckets in a row: how many are left out before the row, and the counts in it.
    pub(super) fn spans(&self) -> Vec<(i32, Vec<u64>)> {
        let mut spans: Vec<(i32, Vec<u64>)> = Vec::new();
        let mut next = 0;
        for (bucket, count) in &self.native {
            match spans.last_mut() {
                Some((_, counts)) if *bucket == next => counts.push(*count),
                // The first one says where it begins.
                _ => spans.push((bucket - next, vec![*count])),
            }
            next = bucket + 1;
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_includes_its_end() {
        let mut histogram = Histogram::default();
        for (ns, bucket) in [(0, 0), (16_000, 0), (16_001, 1), (16_777_216_000, 20)] {
            assert_eq!(histogram.add(ns), bucket, "{ns}");
        }
        assert_eq!(histogram.add(16_777_216_001), CLASSIC);
        assert_eq!(histogram.add(u64::MAX), CLASSIC);
        let counts: Vec<_> = histogram.classic().map(|(_, count, _)| count).collect();
        assert_eq!((counts[0], counts[1], counts[20], counts[21]), (2, 3, 4, 6));
        assert_eq!((histogram.count(), histogram.zeros()), (6, 1));
    }

    #[test]
    fn native_buckets_are_those_of_prometheus() {
        // The ends of buckets that are powers of two, which are exact.
        assert_eq!(native_bucket(1_000_000_000), 0);
        assert_eq!(native_bucket(1_000_000_001), 1);
        assert_eq!(native_bucket(500_000_000), -8);
        assert_eq!(native_bucket(2_000_000_000), 8);
        // 2^(-3/8) = 0.7711
        assert_eq!((native_bucket(771_000_000), native_bucket(772_000_000)), (-3, -2));
    }

    #[test]
    fn rows_of_native_buckets_say_what_lies_between_them() {
        let mut histogram = Histogram::default();
        for ns in [500_000_000, 1_000_000_000, 1_000_000_000, 1_000_000_001, 8_000_000_000] {
            histogram.add(ns);
        }
        assert_eq!(histogram.spans(), [(-8, vec![1]), (7, vec![2, 1]), (22, vec![1])]);
        assert!(Histogram::default().spans().is_empty());
    }

    proptest! {
        #[test]
        fn a_native_bucket_holds_what_is_in_it(ns in 1..u64::MAX) {
            let (bucket, seconds) = (native_bucket(ns), ns as f64 / 1e9);
            let end = |bucket: i32| (f64::from(bucket) / 8.0).exp2();
            prop_assert!(seconds <= end(bucket) * 1.000_000_1, "{} {}", ns, bucket);
            prop_assert!(seconds > end(bucket - 1) * 0.999_999_9, "{} {}", ns, bucket);
        }

        #[test]
        fn native_buckets_are_bounded(values in proptest::collection::vec(any::<u64>(), 1..900)) {
            let mut histogram = Histogram::default();
            for ns in 0..64 {
                histogram.add(1 << ns);
            }
            for ns in &values {
                histogram.add(*ns);
            }
            let spans = histogram.spans();
            let buckets: usize = spans.iter().map(|(_, counts)| counts.len()).sum();
            prop_assert!(buckets <= MOST);
            let native: u64 = spans.iter().flat_map(|(_, counts)| counts).sum();
            prop_assert_eq!(native + histogram.zeros(), histogram.count());
        }
    }
}
