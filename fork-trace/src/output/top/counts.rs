//! What is counted of attempts: since the start, and over the last seconds.

use std::ops::AddAssign;

use crate::event::{fork::Fork, values::Name};

/// Reasons of waits that are told apart.
const MOST_REASONS: usize = 16;

/// The seconds over which rates are told.
pub(super) const SECONDS: u64 = 5;

/// What stands for what is not told apart.
pub(super) const OTHER: &str = "other";

/// Adds `number` to the sum of `name`. Once there are `most` sums, what is new is added to that of [`OTHER`].
pub(super) fn add<N: AddAssign>(sums: &mut Vec<(Name, N)>, name: &Name, number: N, most: usize) {
    let is_known = sums.iter().any(|(known, _)| known == name);
    let name = if is_known || sums.len() < most { name } else { &Name::Borrowed(OTHER) };
    match sums.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum += number,
        None => sums.push((name.clone(), number)),
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Attempts.
    pub(super) forks: u64,
    /// Of these, those that failed.
    pub(super) failed: u64,
    /// For how long callers were held, as far as that is known.
    pub(super) held_ns: u128,
    /// Of that time, what they waited, by reason.
    pub(super) waits: Vec<(Name, u128)>,
}

impl Counts {
    /// Counts an attempt, without its time.
    pub(super) fn fork(&mut self, fork: &Fork) {
        self.forks += 1;
        self.failed += u64::from(fork.is_failure());
    }

    /// Counts for how long an attempt held its caller, and its waits.
    pub(super) fn held(&mut self, ns: u64, waits: &[(Name, u64)]) {
        self.held_ns += u128::from(ns);
        for (reason, ns) in waits {
            add(&mut self.waits, reason, u128::from(*ns), MOST_REASONS);
        }
    }

    /// Adds all that `other` has.
    pub(super) fn merge(&mut self, other: &Self) {
        self.forks += other.forks;
        self.failed += other.failed;
        self.held_ns += other.held_ns;
        for (reason, ns) in &other.waits {
            add(&mut self.waits, reason, *ns, MOST_REASONS);
        }
    }

    /// How long callers waited.
    pub(super) fn waited_ns(&self) -> u128 {
        self.waits.iter().map(|(_, ns)| ns).sum()
    }

    /// For what they waited longest.
    pub(super) fn longest_wait(&self) -> Option<&str> {
        let longest = self.waits.iter().max_by_key(|(_, ns)| ns);
        longest.map(|(reason, _)| reason.as_ref())
    }
}

/// What was counted in each of the last seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    /// The second under way, and what was counted in it.
    now: (u64, Counts),
    /// Those that have ended, no older than [`SECONDS`].
    ended: Vec<(u64, Counts)>,
}

impl Recent {
    /// What is counted in this second, counted from the start; seconds never go back.
    pub(super) fn at(&mut self, second: u64) -> &mut Counts {
        if self.now.0 < second {
            let ended = std::mem::replace(&mut self.now, (second, Counts::default()));
            self.ended.push(ended);
            self.ended.retain(|(of, _)| second - of <= SECONDS);
        }
        &mut self.now.1
    }

    /// Adds all that `other` has.
    pub(super) fn merge(&mut self, other: &Self) {
        self.at(other.now.0);
        for (second, counts) in other.ended.iter().chain([&other.now]) {
            match self.ended.iter_mut().find(|(of, _)| of == second) {
                _ if *second == self.now.0 => self.now.1.merge(counts),
                Some((_, known)) => known.merge(counts),
                None if self.now.0 - second <= SECONDS => {
                    self.ended.push((*second, counts.clone()));
                }
                None => {}
            }
        }
    }

    /// What was counted in the last [`SECONDS`] that have ended by `second`.
    pub(super) fn sum(&self, second: u64) -> Counts {
        let mut sum = Counts::default();
        let ended =
            |of: u64| second.checked_sub(of).is_some_and(|ago| (1..=SECONDS).contains(&ago));
        for (_, counts) in self.ended.iter().chain([&self.now]).filter(|(of, _)| ended(*of)) {
            sum.merge(counts);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds_that_have_ended() {
        let mut recent = Recent::default();
        for second in 0..20_u64 {
            for _ in 0..second {
                recent.at(second).forks += 1;
            }
            let first = second.saturating_sub(SECONDS);
            assert_eq!(recent.sum(second).forks, (first..second).sum::<u64>(), "{second}");
        }
        assert_eq!(recent.sum(22).forks, 17 + 18 + 19);
        assert_eq!(recent.sum(24).forks, 19);
        assert_eq!(recent.sum(25).forks, 0);
        recent.at(90).forks += 1;
        assert_eq!(recent.sum(91).forks, 1);
    }

    #[test]
    fn rates_that_are_merged_are_those_of_both() {
        let of = |seconds: &[u64]| {
            let mut recent = Recent::default();
            for second in seconds {
                recent.at(*second).forks += 1;
            }
            recent
        };
        for (left, right) in
            [(&[1, 3, 7][..], &[2, 3, 6, 6, 8, 9][..]), (&[9, 9], &[1]), (&[], &[4])]
        {
            for (left, right) in [(left, right), (right, left)] {
                let mut merged = of(left);
                merged.merge(&of(right));
                let second = 10;
                let sum = of(left).sum(second).forks + of(right).sum(second).forks;
                assert_eq!(merged.sum(second).forks, sum, "{left:?} {right:?}");
                assert!(merged.ended.len() <= 6);
            }
        }
    }

    #[test]
    fn reasons_are_bounded_and_no_time_is_lost() {
        let mut counts = Counts::default();
        for number in 0..100_u64 {
            counts.held(10, &[(Name::Owned(format!("r{number}")), 1), (Name::Borrowed("r0"), 2)]);
        }
        assert_eq!(counts.waits.len(), MOST_REASONS + 1);
        assert_eq!((counts.held_ns, counts.waited_ns()), (1_000, 300));
        assert_eq!(counts.longest_wait(), Some("r0"));
        let mut merged = Counts::default();
        merged.merge(&counts);
        merged.merge(&counts);
        assert_eq!((merged.waits.len(), merged.waited_ns()), (MOST_REASONS + 1, 600));
    }
}
