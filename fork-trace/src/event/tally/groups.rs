//! Attempts in groups, in bounded memory: the groups that held their callers longest are kept apart.

use std::{cmp::Reverse, sync::Arc};

use foldhash::HashMap;

use crate::event::{
    fork::Fork,
    stack::chain,
    summary::{By, Group, Groups},
    tally::distribution::Distribution,
};

/// Groups that are kept apart at once. When there are more, the smaller half becomes one.
const MOST: usize = 512;

/// Groups that a summary has apart.
const SHOWN: usize = 32;

/// What the attempts of a group have in common; `None` where that is not known of them.
pub(super) type Key = Option<Arc<str>>;

/// The groups so far.
#[derive(Clone, Debug)]
pub(super) struct Grouped {
    by: By,
    groups: HashMap<Key, Counts>,
    /// The smallest groups of those times when there were too many.
    rest: Option<Counts>,
}

/// What was counted of a group.
#[derive(Clone, Debug, Default)]
struct Counts {
    user: Option<Arc<str>>,
    count: u64,
    failed: u64,
    held: Distribution,
    /// There were too many groups before this one, and it may have been among them.
    late: bool,
}

impl Grouped {
    /// None yet.
    pub(super) fn new(by: By) -> Self {
        Self { by, groups: HashMap::default(), rest: None }
    }

    /// Counts an attempt; returns its group, unless it belongs to none.
    pub(super) fn add(&mut self, fork: &Fork) -> Option<Key> {
        let key = key(self.by, fork)?;
        if self.groups.len() >= MOST && !self.groups.contains_key(&key) {
            self.make_room();
        }
        let late = self.rest.is_some();
        let group = self.groups.entry(key.clone()).or_insert_with(|| Counts {
            user: fork.parent.user.clone().filter(|_| self.by == By::Uid),
            late,
            ..Counts::default()
        });
        group.count += 1;
        group.failed += u64::from(fork.is_failure());
        if let Some(ns) = fork.took_ns() {
            group.held.add(ns);
        }
        Some(key)
    }

    /// Counts the time of an attempt that was counted while its caller was held.
    pub(super) fn add_held(&mut self, key: &Key, ns: u64) {
        let group = match self.groups.get_mut(key) {
            Some(group) => group,
            None => self.rest.get_or_insert_default(),
        };
        group.held.add(ns);
    }

    fn make_room(&mut self) {
        let mut all: Vec<_> = self.groups.drain().collect();
        all.sort_by_cached_key(|(key, counts)| counts.rank(key));
        let rest = self.rest.get_or_insert_default();
        for (_, counts) in all.drain(MOST / 2..) {
            rest.merge(&counts);
        }
        self.groups.extend(all);
    }

    /// As the summary has them.
    pub(super) fn summary(&self) -> Groups {
        let mut all: Vec<_> = self.groups.iter().collect();
        all.sort_by_cached_key(|(key, counts)| counts.rank(key));
        let others = all.split_off(all.len().min(SHOWN));
        let mut other = self.rest.clone();
        for (_, counts) in &others {
            other.get_or_insert_default().merge(counts);
        }
        let counted = other.is_some() && self.rest.is_none();
        Groups {
            by: self.by,
            rows: all.into_iter().map(|(key, counts)| counts.group(key.clone())).collect(),
            other: other.map(|counts| counts.group(None)),
            other_groups: u64::try_from(others.len()).ok().filter(|_| counted),
        }
    }
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.held.merge(&other.held);
    }

    /// By what groups are sorted: the longest time first.
    fn rank(&self, key: &Key) -> (Reverse<u128>, Reverse<u64>, Key) {
        (Reverse(self.held.sum_ns()), Reverse(self.count), key.clone())
    }

    fn group(&self, name: Key) -> Group {
        Group {
            name,
            user: self.user.clone(),
            count: self.count,
            failed: self.failed,
            held: self.held.some_percentiles(),
            incomplete: self.late.then_some(true),
        }
    }
}

/// The group of an attempt; `None` if it belongs to none.
fn key(by: By, fork: &Fork) -> Option<Key> {
    let parent = &fork.parent;
    Some(match by {
        By::Kind => fork.kind.map(|kind| kind.name().into()),
        By::Comm => Some(parent.comm.as_str().into()),
        By::Exe => parent.exe.clone(),
        By::Cgroup => parent.cgroup.clone(),
        By::Unit => parent.unit.clone(),
        By::Uid => Some(parent.uid.to_string().into()),
        By::Cause if fork.is_failure() => Some(fork.failure().as_ref().into()),
        By::Cause => return None,
        By::Stack => chain(&fork.stack).map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tally::tests::fork;

    fn by(by: By, forks: &[String]) -> Groups {
        let mut grouped = Grouped::new(by);
        for json in forks {
            grouped.add(&fork(json));
        }
        grouped.summary()
    }

    fn held(name: &str, ns: u64) -> String {
        format!(
            r#""kind":"process","total_ns":{ns},"held_ns":{ns},"child":{{"pid":2,"tid":2}},
            "parent":{{"pid":1,"tid":1,"ppid":0,"comm":"{name}","uid":7,"user":"eve"}}"#
        )
    }

    fn rows(groups: &Groups) -> Vec<(Option<&str>, u64, Option<u64>)> {
        let sum = |group: &Group| group.held.as_ref().and_then(|held| held.sum_ns);
        groups.rows.iter().map(|row| (row.name.as_deref(), row.count, sum(row))).collect()
    }

    #[test]
    fn the_group_that_held_its_callers_longest_comes_first() {
        let forks = [held("a", 10), held("b", 200), held("a", 30), held("", 1)];
        let groups = by(By::Comm, &forks);
        let want = [(Some("b"), 1, Some(200)), (Some("a"), 2, Some(40)), (Some(""), 1, Some(1))];
        assert_eq!(rows(&groups), want);
        assert_eq!((&groups.other, groups.other_groups), (&None, None));
        let uids = by(By::Uid, &forks);
        assert_eq!(rows(&uids), [(Some("7"), 4, Some(241))]);
        assert_eq!(uids.rows[0].user.as_deref(), Some("eve"));
        assert_eq!(rows(&by(By::Exe, &forks)), [(None, 4, Some(241))], "its program is not known");
        assert_eq!(rows(&by(By::Kind, &forks)), [(Some("process"), 4, Some(241))]);
        let named =
            forks.clone().map(|json| json.replace(r#""uid":7"#, r#""uid":7,"unit":"a.service""#));
        assert_eq!(rows(&by(By::Unit, &named)), [(Some("a.service"), 4, Some(241))]);
        assert_eq!(rows(&by(By::Cause, &forks)), [], "none failed");
    }

    #[test]
    fn failures_are_in_the_groups_of_their_causes() {
        let failed = |errno: u32, more: &str| {
            let parent = r#""parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0}"#;
            format!(r#"{parent},"total_ns":5,"held_ns":5,"errno":{errno}{more}"#)
        };
        let forks = [failed(11, ""), failed(11, ""), failed(38, r#","fell_back_to":"1-2""#)];
        let groups = by(By::Cause, &forks);
        assert_eq!(rows(&groups), [(Some("errno 11"), 2, Some(10))]);
        assert_eq!(groups.rows[0].failed, 2);
        let groups = by(By::Comm, &forks);
        assert_eq!((groups.rows[0].count, groups.rows[0].failed), (3, 2));
    }

    #[test]
    fn many_groups_are_bounded_and_nothing_is_lost() {
        // The large ones come often, the small ones once.
        let mut grouped = Grouped::new(By::Comm);
        let mut all = 0;
        for number in 0..5_000_u64 {
            grouped.add(&fork(&held(&format!("once {number}"), 1)));
            grouped.add(&fork(&held(&format!("often {}", number % 40), 1_000)));
            all += 1_001;
            assert!(grouped.groups.len() <= MOST);
        }
        let groups = grouped.summary();
        assert_eq!(groups.rows.len(), SHOWN);
        assert!(groups.rows.iter().all(|row| row.name.as_deref().unwrap().starts_with("often")));
        assert!(groups.rows.iter().all(|row| row.count == 125 && row.incomplete.is_none()));
        let other = groups.other.as_ref().unwrap();
        assert_eq!(groups.other_groups, None, "there were too many to count them");
        let sum = |group: &Group| group.held.as_ref().unwrap().sum_ns.unwrap();
        assert_eq!(groups.rows.iter().map(sum).sum::<u64>() + sum(other), all);
        assert_eq!(groups.rows.iter().map(|row| row.count).sum::<u64>() + other.count, 10_000);
        // One that came later, or again, may be among the others too.
        grouped.add(&fork(&held("late", 1_000_000)));
        let first = &grouped.summary().rows[0];
        assert_eq!((first.name.as_deref(), first.incomplete), (Some("late"), Some(true)));
    }

    #[test]
    fn a_few_groups_more_than_are_shown_are_counted() {
        let forks: Vec<_> = (0..40).map(|number| held(&format!("n{number}"), number)).collect();
        let groups = by(By::Comm, &forks);
        assert_eq!((groups.rows.len(), groups.other_groups), (SHOWN, Some(8)));
        assert_eq!(groups.other.unwrap().count, 8);
    }
}
