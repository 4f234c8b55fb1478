//! Which process and thread has which track.
//!
//! A number is given anew when its process has ended, and then it is another track: Perfetto takes a second
//! track of the same number for a new process or thread.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, Hash},
};

use foldhash::fast::FixedState;

/// Processes, and threads, that are remembered. Of one that does more than so many later, and was forgotten,
/// the track begins anew under the same name.
const MOST: usize = 1 << 16;

/// A task, as far as an event tells.
pub(super) struct Task<'a> {
    pub(super) pid: u32,
    pub(super) tid: u32,
    /// Its name; absent where only its process is known.
    pub(super) comm: Option<&'a str>,
    /// Of its process.
    pub(super) start_ns: Option<u64>,
    pub(super) exe: Option<&'a str>,
    pub(super) argv: &'a [String],
}

impl<'a> Task<'a> {
    /// One of which no more is known.
    pub(super) const fn of(pid: u32, tid: u32) -> Self {
        Self { pid, tid, comm: None, start_ns: None, exe: None, argv: &[] }
    }
}

/// The process that a track belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) uuid: u64,
    /// When it was made, where that is known.
    pub(super) start_ns: Option<u64>,
    /// Whether its name was told: Perfetto keeps the first one.
    pub(super) named: bool,
}

/// The thread that a track belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) uuid: u64,
    /// The track of its process.
    pub(super) process: u64,
    /// The name that was told.
    pub(super) comm: String,
    /// Of a vfork whose caller is held: when the attempt began, and when its own work was done.
    pub(super) held: Option<(u64, u64)>,
}

/// A number for a track or an arrow, from what it is; the same in each run, and never 0, which Perfetto keeps
/// for itself.
pub(super) fn number(what: impl Hash) -> u64 {
    FixedState::default().hash_one(what).max(1)
}

/// The latest [`MOST`] entries.
#[derive(Debug)]
pub(super) struct Latest<T> {
    entries: HashMap<u32, T>,
    /// Their keys, the oldest first.
    order: VecDeque<u32>,
}

impl<T> Latest<T> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn get(&mut self, key: u32) -> Option<&mut T> {
        self.entries.get_mut(&key)
    }

    pub(super) fn insert(&mut self, key: u32, value: T) {
        if self.entries.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_latest_are_kept() {
        let mut latest = Latest::new();
        let most = u32::try_from(MOST).unwrap();
        for key in 0..most + 10 {
            latest.insert(key, key);
            latest.insert(key, key + 1);
        }
        assert_eq!((latest.entries.len(), latest.order.len()), (MOST, MOST));
        assert_eq!(latest.get(9), None);
        assert_eq!(latest.get(10), Some(&mut 11));
    }

    #[test]
    fn numbers_are_the_same_in_each_run() {
        assert_eq!(number(("thread", 1_u32, 2_u64)), number(("thread", 1_u32, 2_u64)));
        assert_ne!(number(("thread", 1_u32, 2_u64)), number(("thread", 2_u32, 1_u64)));
    }
}
