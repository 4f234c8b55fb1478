//! The attempts with the largest figure, in bounded memory, each with what became of its child.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::event::{Event, follow_up::VforkDone, fork::Fork};

/// How many attempts are kept, unless it is said otherwise.
/// One takes some 10 KB of memory.
pub const MOST: usize = 20_000;

/// How many follow-ups are kept.
const MOST_FOLLOW_UPS: usize = 400_000;

/// How many attempts are remembered at once whose callers are still held.
const MOST_HELD: usize = 16_384;

/// By what attempts are sorted, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// `total_ns`.
    Total,
    /// How long they held their callers.
    Held,
    /// `off_cpu_ns`.
    OffCpu,
    /// How long the child waited for its first CPU.
    ChildWait,
}

impl Figure {
    /// The figure of an attempt; `None` where it is not known.
    fn of(self, fork: &Fork) -> Option<u64> {
        match self {
            Self::Total => fork.total_ns,
            Self::Held => fork.took_ns(),
            Self::OffCpu => fork.off_cpu_ns,
            Self::ChildWait => fork.child_start.as_ref()?.queued_ns,
        }
    }
}

/// Where an attempt stands: the largest first, those of which the figure is not known last, and those with the
/// same figure in the order of the recording.
type Place = (Reverse<Option<u64>>, u64);

/// An attempt, and what became of its child.
#[derive(Debug)]
struct Kept {
    fork: Box<Fork>,
    follow_ups: Vec<Event>,
}

/// The largest so far.
#[derive(Debug)]
pub struct Largest {
    figure: Figure,
    most: usize,
    kept: BTreeMap<Place, Kept>,
    /// Where the attempts stand, by their ids.
    places: HashMap<String, Place>,
    /// Attempts by id that were recorded while their callers were held: no more than [`MOST_HELD`].
    held: HashMap<String, (u64, Kept)>,
    next: u64,
    follow_ups: usize,
    forgotten: u64,
}

impl Largest {
    /// None yet, and never more than `most`.
    #[must_use]
    pub fn new(figure: Figure, most: usize) -> Self {
        Self {
            figure,
            most,
            kept: BTreeMap::new(),
            places: HashMap::new(),
            held: HashMap::new(),
            next: 0,
            follow_ups: 0,
            forgotten: 0,
        }
    }

    /// Follow-ups that were too many to be kept.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes an attempt; returns one that is not among the largest, if there is one.
    pub fn add(&mut self, fork: Box<Fork>) -> Option<Box<Fork>> {
        let number = self.next;
        self.next += 1;
        let figure = self.figure.of(&fork);
        let kept = Kept { fork, follow_ups: Vec::new() };
        let may_be_held = self.figure == Figure::Held && figure.is_none() && kept.fork.succeeded();
        if may_be_held && self.held.len() < MOST_HELD {
            self.held.insert(kept.fork.id.clone(), (number, kept));
            return None;
        }
        self.insert((Reverse(figure), number), kept)
    }

    /// Takes what became of the child of an attempt; it is forgotten with the attempt. Returns an attempt that
    /// is not among the largest after that.
    pub fn follow_up(&mut self, fork_id: &str, event: Event) -> Option<Box<Fork>> {
        if self.follow_ups == MOST_FOLLOW_UPS {
            self.forgotten += 1;
            return None;
        }
        if let Event::VforkDone(VforkDone { held_ns: Some(ns), .. }) = &event
            && let Some((number, mut kept)) = self.held.remove(fork_id)
        {
            let place = (Reverse(Some(*ns)), number);
            kept.follow_ups.push(event);
            self.follow_ups += 1;
            return self.insert(place, kept);
        }
        let kept = match self.places.get(fork_id) {
            Some(place) => self.kept.get_mut(place),
            None => self.held.get_mut(fork_id).map(|(_, kept)| kept),
        };
        if let Some(kept) = kept {
            kept.follow_ups.push(event);
            self.follow_ups += 1;
        }
        None
    }

    /// The largest first, each followed by what became of its child; then those that are not among them.
    pub fn take(&mut self) -> (Vec<Event>, Vec<Box<Fork>>) {
        let held = std::mem::take(&mut self.held);
        let left = held
            .into_values()
            .filter_map(|(number, kept)| self.insert((Reverse(None), number), kept));
        let left = left.collect();
        self.places.clear();
        self.follow_ups = 0;
        let kept = std::mem::take(&mut self.kept).into_values();
        let events = kept.flat_map(|Kept { fork, follow_ups }| {
            std::iter::once(Event::Fork(fork)).chain(follow_ups)
        });
        (events.collect(), left)
    }

    fn insert(&mut self, place: Place, kept: Kept) -> Option<Box<Fork>> {
        self.places.insert(kept.fork.id.clone(), place);
        self.kept.insert(place, kept);
        if self.kept.len() <= self.most {
            return None;
        }
        let (_, Kept { fork, follow_ups }) = self.kept.pop_last()?;
        self.places.remove(&fork.id);
        self.follow_ups -= follow_ups.len();
        Some(fork)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{done, fork};

    /// The ids of what is taken, and those of the attempts that are left.
    fn ids(largest: &mut Largest) -> (Vec<String>, Vec<String>) {
        let (events, left) = largest.take();
        let id = |event: Event| match event {
            Event::Fork(fork) => fork.id,
            Event::VforkDone(done) => format!("{} is done", done.fork_id),
            other => panic!("{other:?}"),
        };
        (events.into_iter().map(id).collect(), left.into_iter().map(|fork| fork.id).collect())
    }

    #[test]
    fn the_largest_come_first_and_those_without_a_figure_last() {
        let mut largest = Largest::new(Figure::Total, 3);
        let mut left = Vec::new();
        for (id, total) in
            [("1-1", r#","total_ns":5"#), ("1-2", ""), ("1-3", r#","total_ns":9"#), ("1-4", "")]
        {
            left.extend(largest.add(fork(id, total)).map(|fork| fork.id));
        }
        assert_eq!(left, ["1-4"], "the later one of two without a figure");
        left.extend(largest.add(fork("1-5", r#","total_ns":5"#)).map(|fork| fork.id));
        assert_eq!(left, ["1-4", "1-2"]);
        assert_eq!(ids(&mut largest).0, ["1-3", "1-1", "1-5"], "equal ones as they were recorded");
    }

    #[test]
    fn a_held_vfork_has_its_place_when_it_is_over() {
        let mut largest = Largest::new(Figure::Held, 2);
        let child = r#","kind":"vfork","syscall":"vfork","total_ns":9,"child":{"pid":2,"tid":2}"#;
        for id in ["1-1", "1-2"] {
            assert!(largest.add(fork(id, child)).is_none());
        }
        for (id, ns) in [("1-3", 50), ("1-4", 70)] {
            assert!(largest.add(fork(id, &format!(r#","held_ns":{ns}"#))).is_none());
        }
        let left = largest.follow_up("1-2", done("1-2", 60));
        assert_eq!(left.map(|fork| fork.id).as_deref(), Some("1-3"));
        assert!(largest.follow_up("1-3", done("1-3", 1)).is_none(), "it is not kept");
        let (events, left) = ids(&mut largest);
        assert_eq!(events, ["1-4", "1-2", "1-2 is done"]);
        assert_eq!(left, ["1-1"], "nobody knows how long it was held");
    }
}
