//! Labels that anybody may choose, in bounded memory: those that matter most are told apart, and the others are
//! one, which is counted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use foldhash::HashMap;

use crate::event::values::Name;

/// The label of all those that are not told apart.
pub(super) const OTHER: &str = "other";

/// How often it is looked which names matter most.
const ROUND: Duration = Duration::from_secs(60);

/// Names that are counted in a round to find those that matter.
const MOST_WAITING: usize = 1024;

/// How many values of a label that the tables of this program bound are told apart, whatever they are.
const MOST_WORDS: usize = 128;

/// What is counted for one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) forks: u64,
    pub(super) held_ns: u128,
}

/// The names that fork most.
///
/// Every attempt is counted once, under its name or under [`OTHER`], and no number that is exposed ever becomes
/// smaller: so rates are right. A name that forks more than twice as often in a round as one that is told apart
/// takes its place, and begins at 0; the count of the one before is told no more.
#[derive(Debug)]
pub(super) struct Top {
    most: usize,
    told: HashMap<String, Told>,
    other: Counts,
    /// How often others forked in this round.
    waiting: HashMap<String, u64>,
    began: Option<Instant>,
}

#[derive(Debug, Default)]
struct Told {
    counts: Counts,
    /// How often it forked in this round.
    recent: u64,
}

impl Top {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            told: HashMap::default(),
            other: Counts::default(),
            waiting: HashMap::default(),
            began: None,
        }
    }

    /// Counts an attempt at `now`; returns whether its name is told apart.
    pub(super) fn fork(&mut self, name: &str, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= ROUND {
            self.next_round(now);
        }
        if name != OTHER {
            if !self.told.contains_key(name) && self.told.len() < self.most {
                self.told.insert(name.to_owned(), Told::default());
            }
            if let Some(told) = self.told.get_mut(name) {
                told.counts.forks += 1;
                told.recent += 1;
                return true;
            }
            if let Some(count) = self.waiting.get_mut(name) {
                *count += 1;
            } else if self.waiting.len() < MOST_WAITING {
                self.waiting.insert(name.to_owned(), 1);
            }
        }
        self.other.forks += 1;
        false
    }

    /// Counts for how long an attempt held its caller.
    pub(super) fn held(&mut self, name: &str, ns: u64) {
        let told = self.told.get_mut(name).map(|told| &mut told.counts);
        told.unwrap_or(&mut self.other).held_ns += u128::from(ns);
    }

    /// Those who wait take the places of those who fork less than half as often.
    fn next_round(&mut self, now: Instant) {
        let mut waiting: Vec<_> = self.waiting.drain().collect();
        waiting.sort_unstable_by(|(name, count), (other, others)| {
            others.cmp(count).then_with(|| name.cmp(other))
        });
        let mut told: Vec<_> =
            self.told.iter().map(|(name, it)| (it.recent, name.clone())).collect();
        told.sort_unstable();
        for ((name, count), (recent, least)) in waiting.into_iter().zip(told) {
            if count <= recent.saturating_mul(2) {
                break;
            }
            self.told.remove(&least);
            self.told.insert(name, Told::default());
        }
        for told in self.told.values_mut() {
            told.recent = 0;
        }
        self.began = Some(now);
    }

    /// Every name that is told apart, in order, and then the others, if there were any.
    pub(super) fn counts(&self) -> Vec<(String, Counts)> {
        let mut all: Vec<_> =
            self.told.iter().map(|(name, told)| (name.clone(), told.counts)).collect();
        all.sort_unstable_by(|(name, _), (other, _)| name.cmp(other));
        if self.other != Counts::default() {
            all.push((OTHER.to_owned(), self.other));
        }
        all
    }
}

/// How much is left out of labels, by label.
#[derive(Debug)]
pub(super) struct Dropped(BTreeMap<&'static str, u64>);

impl Dropped {
    /// Nothing yet of these labels.
    pub(super) fn new(labels: &[&'static str]) -> Self {
        Self(labels.iter().map(|label| (*label, 0)).collect())
    }

    pub(super) fn add(&mut self, label: &'static str, count: u64) {
        *self.0.entry(label).or_default() += count;
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(label, count)| (*label, *count))
    }
}

/// Numbers by words of this program's own tables, `N` of them for each number. There are few of them; should there
/// be more than [`MOST_WORDS`], the others are one.
#[derive(Debug)]
pub(super) struct Words<const N: usize, V>(BTreeMap<[Name; N], V>);

impl<const N: usize, V: Default> Words<N, V> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The number of these words, and whether they are told apart.
    pub(super) fn of(&mut self, words: [Name; N]) -> (&mut V, bool) {
        let known = self.0.len() < MOST_WORDS || self.0.contains_key(&words);
        let words = if known { words } else { [const { Name::Borrowed(OTHER) }; N] };
        (self.0.entry(words).or_default(), known)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[Name; N], &V)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(top: &Top) -> u64 {
        top.counts().iter().map(|(_, counts)| counts.forks).sum()
    }

    #[test]
    fn many_names_are_bounded_and_each_attempt_is_counted_once() {
        let (mut top, now) = (Top::new(50), Instant::now());
        for number in 0..10_000 {
            top.fork(&format!("name {number}"), now);
            top.held(&format!("name {number}"), 2);
        }
        let counts = top.counts();
        assert_eq!((counts.len(), total(&top)), (51, 10_000));
        assert_eq!(counts[50], (OTHER.to_owned(), Counts { forks: 9_950, held_ns: 19_900 }));
        assert!(top.waiting.len() <= MOST_WAITING);
    }

    #[test]
    fn who_forks_most_is_told_apart_after_a_round() {
        let (mut top, now) = (Top::new(2), Instant::now());
        for name in ["once", "often", "often"] {
            assert!(top.fork(name, now));
        }
        for _ in 0..5 {
            assert!(!top.fork("late", now));
        }
        let later = now + ROUND;
        assert!(top.fork("late", later), "it takes the place of the one that forked least");
        assert!(!top.fork("once", later) && top.fork("often", later));
        let forks = |name: &str| {
            let counts = top.counts();
            counts.into_iter().find(|(other, _)| other == name).map(|(_, counts)| counts.forks)
        };
        assert_eq!((forks("late"), forks("often"), forks("once")), (Some(1), Some(3), None));
        assert_eq!(forks(OTHER), Some(6), "what was counted there stays there");
    }

    #[test]
    fn places_do_not_change_for_little() {
        let (mut top, now) = (Top::new(1), Instant::now());
        top.fork("a", now);
        top.fork("b", now);
        top.fork("b", now);
        assert!(!top.fork("b", now + ROUND), "twice as often is not enough");
        assert!(top.fork("a", now + ROUND));
    }

    #[test]
    fn a_task_may_be_called_other() {
        let (mut top, now) = (Top::new(1), Instant::now());
        assert!(!top.fork(OTHER, now) && top.fork("a", now) && !top.fork("b", now));
        assert_eq!(top.counts().len(), 2);
        assert_eq!(total(&top), 3);
    }

    #[test]
    fn words_are_bounded() {
        let mut words: Words<1, u64> = Words::new();
        let mut dropped = 0;
        for number in 0..1_000 {
            let (count, known) = words.of([Name::Owned(number.to_string())]);
            *count += 1;
            dropped += u64::from(!known);
        }
        assert_eq!((words.iter().count(), dropped), (MOST_WORDS + 1, 1_000 - 128));
        assert_eq!(words.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
    }
}
