//! Processes that have ended and were not waited for.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use crate::host::process::{numbers, stat::Stat, task_name};

/// How many zombies the parents of each name have, the most first.
///
/// # Errors
/// `/proc` cannot be read.
pub fn by_parent() -> io::Result<Vec<(String, u64)>> {
    let mut parents: BTreeMap<u32, u64> = BTreeMap::new();
    for pid in numbers("/proc")? {
        if let Some(stat) = Stat::read(pid).filter(|stat| stat.state == 'Z') {
            *parents.entry(stat.ppid).or_default() += 1;
        }
    }
    let mut names: BTreeMap<String, u64> = BTreeMap::new();
    for (pid, count) in parents {
        // A parent that is gone by now has left its zombies to another one, which waits for them.
        if let Some(name) = task_name(pid) {
            *names.entry(name).or_default() += count;
        }
    }
    let mut all: Vec<_> = names.into_iter().collect();
    all.sort_by(|(name, count), (other, others)| others.cmp(count).then_with(|| name.cmp(other)));
    Ok(all)
}

/// A count of zombies that is taken anew now and then: it takes a look at every process.
#[derive(Debug)]
pub struct Counted {
    every: Duration,
    at: Option<Instant>,
    last: Option<Vec<(String, u64)>>,
}

impl Counted {
    /// A count that is taken anew no more often than `every` so long.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, at: None, last: None }
    }

    /// How many zombies the parents of each name have, as [`by_parent`] says; [`None`] where `/proc` cannot be
    /// read.
    pub fn get(&mut self) -> Option<Vec<(String, u64)>> {
        if self.at.is_none_or(|at| at.elapsed() >= self.every) {
            (self.at, self.last) = (Some(Instant::now()), by_parent().ok());
        }
        self.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_that_nobody_waits_for_is_found() {
        let own = task_name(std::process::id()).unwrap();
        let count = || {
            let found = by_parent().unwrap();
            found.iter().find(|(name, _)| *name == own).map_or(0, |(_, count)| *count)
        };
        let mut child = Command::new("true").spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while count() == 0 {
            assert!(Instant::now() < end, "{:?}", by_parent());
        }
        child.wait().unwrap();
    }
}
