//! A distribution of durations, in bounded memory.

use foldhash::HashMap;

use crate::event::summary::Percentiles;

/// A distribution of durations, in bounded memory.
///
/// Durations are counted by their first [`Self::BITS`] binary digits, so a percentile is off by
/// 0.05 % at most; there are some 55,000 such beginnings, and a stage meets a few hundred of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distribution {
    /// How many by the duration with its further digits zero.
    counts: HashMap<u64, u64>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Distribution {
    const BITS: u32 = 11;

    /// Binary digits of `ns` that are dropped.
    const fn dropped(ns: u64) -> u32 {
        (u64::BITS - ns.leading_zeros()).saturating_sub(Self::BITS)
    }

    pub(crate) fn add(&mut self, ns: u64) {
        let dropped = Self::dropped(ns);
        *self.counts.entry(ns >> dropped << dropped).or_default() += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all that `other` has.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (ns, count) in &other.counts {
            *self.counts.entry(*ns).or_default() += count;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// All durations together.
    pub(crate) const fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// The longest; `None` where there is nothing.
    pub(crate) fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The percentiles, unless there is nothing.
    pub(crate) fn some_percentiles(&self) -> Option<Percentiles> {
        (self.count > 0).then(|| self.percentiles())
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

    pub(crate) fn percentiles(&self) -> Percentiles {
        let mut sorted: Vec<_> = self.counts.iter().map(|(ns, count)| (*ns, *count)).collect();
        sorted.sort_unstable();
        let [p50_ns, p90_ns, p99_ns] =
            [50, 90, 99].map(|percent| self.percentile(&sorted, percent));
        let sum_ns = u64::try_from(self.sum_ns).ok();
        Percentiles { count: self.count, sum_ns, p50_ns, p90_ns, p99_ns, max_ns: self.max_ns }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
            prop_assert_eq!(got.sum_ns, u64::try_from(sum).ok());
            for (percent, got) in [(50, got.p50_ns), (90, got.p90_ns), (99, got.p99_ns)] {
                let want = values[(values.len() * percent).div_ceil(100) - 1];
                prop_assert!(got.abs_diff(want) <= want / 1000, "p{}: {} for {}", percent, got, want);
            }
        }

        #[test]
        fn two_that_are_merged_are_one_of_all_values(
            values in proptest::collection::vec(duration(), 1..200),
            split in any::<proptest::sample::Index>(),
        ) {
            let of = |values: &[u64]| {
                let mut distribution = Distribution::default();
                values.iter().for_each(|value| distribution.add(*value));
                distribution
            };
            let (left, right) = values.split_at(split.index(values.len()));
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(merged.percentiles(), of(&values).percentiles());
        }
    }
}
