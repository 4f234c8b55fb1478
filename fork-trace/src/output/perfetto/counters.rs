//! How many forks and failures there were in each second.

use std::collections::BTreeMap;

/// A second.
const SECOND_NS: u64 = 1_000_000_000;

/// Seconds that are kept open for attempts that are told late: lines come when their events are complete.
const OPEN: usize = 16;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) forks: u64,
    pub(super) failures: u64,
}

/// A second's counts, and when it began.
pub(super) type Second = (u64, Counts);

/// Counts attempts by the second in which they ended.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    open: BTreeMap<u64, Counts>,
    /// The second after the last one that was told.
    told: Option<u64>,
    /// Attempts that came after their second had been told.
    pub(super) late: u64,
}

impl Seconds {
    /// Counts an attempt that ended at `at_ns`; returns what is complete by now.
    pub(super) fn add(&mut self, at_ns: u64, forks: u64, failures: u64) -> Vec<Second> {
        let second = at_ns / SECOND_NS;
        if self.told.is_some_and(|told| second < told) {
            self.late += 1;
            return Vec::new();
        }
        let counts = self.open.entry(second).or_default();
        counts.forks += forks;
        counts.failures += failures;
        if self.open.len() > OPEN { self.tell() } else { Vec::new() }
    }

    /// The end: returns what was not told yet.
    pub(super) fn finish(&mut self) -> Vec<Second> {
        let mut told = Vec::new();
        while !self.open.is_empty() {
            told.extend(self.tell());
        }
        told.extend(
            self.told.take().map(|next| (next.saturating_mul(SECOND_NS), Counts::default())),
        );
        told
    }

    /// The oldest second, after a word on there having been none before it.
    fn tell(&mut self) -> Vec<Second> {
        let Some((second, counts)) = self.open.pop_first() else { return Vec::new() };
        let quiet = self.told.filter(|told| *told < second).map(|told| (told, Counts::default()));
        self.told = Some(second + 1);
        let seconds = quiet.into_iter().chain([(second, counts)]);
        seconds.map(|(second, counts)| (second.saturating_mul(SECOND_NS), counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counts(forks: u64, failures: u64) -> Counts {
        Counts { forks, failures }
    }

    #[test]
    fn each_second_is_told_once_and_quiet_ones_are_told() {
        let mut seconds = Seconds::default();
        let mut told = Vec::new();
        for second in [3, 3, 5, 4, 3, 9] {
            told.extend(seconds.add(second * SECOND_NS + 7, 1, 0));
        }
        told.extend(seconds.add(9 * SECOND_NS, 0, 1));
        assert!(told.is_empty(), "late ones may still come");
        told.extend(seconds.finish());
        let told: Vec<_> = told.iter().map(|(ns, counts)| (ns / SECOND_NS, *counts)).collect();
        let wanted = [
            (3, counts(3, 0)),
            (4, counts(1, 0)),
            (5, counts(1, 0)),
            (6, counts(0, 0)),
            (9, counts(1, 1)),
            (10, counts(0, 0)),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_comes_too_late_is_counted_apart() {
        let mut seconds = Seconds::default();
        let told: usize = (0..100).map(|second| seconds.add(second * SECOND_NS, 1, 0).len()).sum();
        assert_eq!(told, 100 - OPEN);
        assert!(seconds.add(0, 1, 0).is_empty());
        assert_eq!(seconds.late, 1);
        assert_eq!(seconds.finish().len(), OPEN + 1);
    }
}
