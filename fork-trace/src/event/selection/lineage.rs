//! Whose attempts are shown where processes are named: by what the recording tells of callers and children.

use std::collections::{BTreeSet, HashMap};

use crate::event::{filters::Filters, fork::Fork};

/// How many descendants are remembered at once.
const MOST: usize = 1 << 20;

/// The named processes, and those that descend from them.
///
/// A process descends from another one if the recording has the attempt that made it, or an attempt of its own
/// that tells who its parent is. A process id may be given again, so it stands for a process that was made
/// at a certain time.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// The named processes; empty: all.
    pids: BTreeSet<u32>,
    follow: bool,
    /// Descendants by their process id: no more than [`MOST`].
    born: HashMap<u32, Life>,
    left_out: u64,
}

/// When a process was made, at the earliest and at the latest, and when it ended.
#[derive(Clone, Copy, Debug)]
struct Life {
    since_ns: u64,
    by_ns: u64,
    ended_ns: u64,
}

impl Life {
    /// Of which nothing is known.
    const UNKNOWN: Self = Self { since_ns: 0, by_ns: u64::MAX, ended_ns: u64::MAX };
}

impl Lineage {
    /// As `filters` say it.
    pub(super) fn new(filters: &Filters) -> Self {
        let pids = filters.pids.iter().copied().collect();
        Self { pids, follow: filters.follow == Some(true), ..Self::default() }
    }

    /// Descendants that were not remembered.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether the attempts of a process are shown that was made at `start_ns`.
    pub(super) fn has(&self, pid: u32, start_ns: Option<u64>) -> bool {
        let is_it = |life: &Life| {
            start_ns.is_none_or(|start_ns| (life.since_ns..=life.by_ns).contains(&start_ns))
        };
        self.pids.is_empty() || self.pids.contains(&pid) || self.born.get(&pid).is_some_and(is_it)
    }

    /// Learns from an attempt; returns whether it is shown.
    pub(super) fn add(&mut self, fork: &Fork) -> bool {
        let parent = &fork.parent;
        if !self.follow || self.pids.is_empty() {
            return self.has(parent.pid, parent.start_ns);
        }
        if !self.has(parent.pid, parent.start_ns) && self.is_child_of(parent.ppid, parent.start_ns)
        {
            let made_ns = parent.start_ns;
            let life = made_ns.map_or(Life::UNKNOWN, |ns| Life {
                since_ns: ns,
                by_ns: ns,
                ended_ns: u64::MAX,
            });
            self.insert(parent.pid, life);
        }
        let shown = self.has(parent.pid, parent.start_ns);
        if let Some(child) = fork.child.as_ref().filter(|child| shown && child.pid != parent.pid) {
            let by_ns = fork.total_ns.and_then(|ns| fork.mono_ns.checked_add(ns));
            let by_ns = by_ns.unwrap_or(u64::MAX);
            self.insert(child.pid, Life { since_ns: fork.mono_ns, by_ns, ended_ns: u64::MAX });
        }
        shown
    }

    /// The same of an attempt of which only the processes are known.
    pub(super) fn add_child(&mut self, pid: u32, child: Option<u32>) -> bool {
        let shown = self.has(pid, None);
        if let Some(child) = child.filter(|_| shown && self.follow && !self.pids.is_empty()) {
            self.insert(child, Life::UNKNOWN);
        }
        shown
    }

    /// A process ended.
    pub(super) fn ended(&mut self, pid: u32, at_ns: u64) {
        if let Some(life) = self.born.get_mut(&pid) {
            life.ended_ns = at_ns;
        }
    }

    /// Whether a process that was made at `start_ns` and has this parent descends from a named process.
    fn is_child_of(&self, ppid: u32, start_ns: Option<u64>) -> bool {
        let was_there =
            |life: &Life| start_ns.is_none_or(|ns| (life.since_ns..=life.ended_ns).contains(&ns));
        self.pids.contains(&ppid) || self.born.get(&ppid).is_some_and(was_there)
    }

    fn insert(&mut self, pid: u32, life: Life) {
        if self.born.len() < MOST || self.born.contains_key(&pid) {
            self.born.insert(pid, life);
        } else {
            self.left_out += 1;
        }
    }
}
