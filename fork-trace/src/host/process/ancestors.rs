//! The ancestors of a caller: its parent, the parent of that, and so on.
//!
//! A record names the caller's parent only. The others are looked up in `/proc` a moment later, or are known
//! because they have forked themselves, which is how a chain goes on above a shell that is gone by then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::HashMap;

use super::{identity::Identity, stat::Stat};
use crate::event::caller::{Ancestor, Parent};

/// How many ancestors are told.
const MOST_ANCESTORS: usize = 16;
/// For how long what was read holds: a process may run another program, or be handed to another parent.
const HOLDS: Duration = Duration::from_millis(100);
/// Processes and chains that are remembered; each cache starts anew when it is full.
const MOST: usize = 4096;

/// A process that is, or may be, an ancestor.
struct Link {
    comm: Arc<str>,
    ppid: u32,
    /// When it was made, in ticks of `/proc`.
    start_ticks: u64,
    seen: Instant,
}

/// The ancestors of one caller, and its parent and time when they were looked up.
struct Chain {
    ppid: u32,
    seen: Instant,
    ancestors: Arc<[Ancestor]>,
}

/// What is known of ancestors.
#[derive(Default)]
pub struct Ancestors {
    links: HashMap<u32, Link>,
    /// By the caller's process and its start.
    chains: HashMap<(u32, u64), Chain>,
}

impl Ancestors {
    /// The ancestors of `caller`, the nearest first, up to one that is gone by now. `lookups` is how many
    /// processes may still be looked up in `/proc`; where they are too few it gives none. The ids in `/proc` must
    /// be those of the initial pid namespace.
    pub fn of(
        &mut self,
        caller: &Parent,
        identity: &Identity,
        lookups: &mut u32,
    ) -> Arc<[Ancestor]> {
        let Some(start_ns) = caller.start_ns else { return Arc::default() };
        let now = Instant::now();
        let key = (caller.pid, start_ns);
        if let Some(chain) = self.chains.get(&key)
            && chain.ppid == caller.ppid
            && now.duration_since(chain.seen) < HOLDS
        {
            return chain.ancestors.clone();
        }
        let start_ticks = identity.ticks(start_ns);
        if caller.tid == caller.pid {
            let (comm, ppid) = (caller.comm.as_str().into(), caller.ppid);
            self.remember(caller.pid, Link { comm, ppid, start_ticks, seen: now });
        }
        let Some(ancestors) = self.walk(caller.ppid, start_ticks, now, lookups) else {
            return Arc::default();
        };
        if self.chains.len() == MOST {
            self.chains.clear();
        }
        let chain = Chain { ppid: caller.ppid, seen: now, ancestors: ancestors.into() };
        let ancestors = chain.ancestors.clone();
        self.chains.insert(key, chain);
        ancestors
    }

    /// The chain from process `pid` on, which was made no later than `start_ticks`; `None` if there are too few
    /// look-ups left.
    fn walk(
        &mut self,
        mut pid: u32,
        mut start_ticks: u64,
        now: Instant,
        lookups: &mut u32,
    ) -> Option<Vec<Ancestor>> {
        let mut ancestors = Vec::new();
        while pid != 0 && ancestors.len() < MOST_ANCESTORS {
            let is_fresh = |link: &&Link| now.duration_since(link.seen) < HOLDS;
            if self.links.get(&pid).filter(is_fresh).is_none() {
                *lookups = lookups.checked_sub(1)?;
                let Some(Stat { comm, ppid, start_ticks, .. }) = Stat::read(pid) else { break };
                self.remember(pid, Link { comm: comm.into(), ppid, start_ticks, seen: now });
            }
            // One that was made later than its child is another process, which has that id by now.
            let link = self.links.get(&pid).filter(|link| link.start_ticks <= start_ticks + 1);
            let Some(link) = link else { break };
            ancestors.push(Ancestor { pid, comm: link.comm.clone() });
            (pid, start_ticks) = (link.ppid, link.start_ticks);
        }
        Some(ancestors)
    }

    fn remember(&mut self, pid: u32, link: Link) {
        if self.links.len() == MOST {
            self.links.clear();
        }
        self.links.insert(pid, link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(pid: u32, ppid: u32, comm: &str, start_ns: u64) -> Parent {
        let parent = serde_json::json!({
            "pid": pid, "tid": pid, "ppid": ppid, "comm": comm, "uid": 0, "start_ns": start_ns,
        });
        serde_json::from_value(parent).unwrap()
    }

    fn own_start_ns(identity: &Identity) -> u64 {
        let ticks = Stat::read(std::process::id()).unwrap().start_ticks;
        (ticks * identity.tick_ns).saturating_add_signed(-identity.boot_ns)
    }

    #[test]
    fn the_ancestors_of_this_process_are_those_that_proc_shows() {
        let identity = Identity::new();
        let pid = std::process::id();
        let mut expected = Vec::new();
        let mut next = Stat::read(pid).unwrap().ppid;
        while next != 0 && expected.len() < MOST_ANCESTORS {
            let stat = Stat::read(next).unwrap();
            expected.push(Ancestor { pid: next, comm: stat.comm.into() });
            next = stat.ppid;
        }
        let ppid = Stat::read(pid).unwrap().ppid;
        let of = caller(pid, ppid, "test", own_start_ns(&identity));
        let (mut ancestors, mut lookups) = (Ancestors::default(), 256);
        assert_eq!(&*ancestors.of(&of, &identity, &mut lookups), expected);
        let left = lookups;
        assert_eq!(&*ancestors.of(&of, &identity, &mut lookups), expected);
        assert_eq!(lookups, left, "the chain is known");
    }

    #[test]
    fn a_caller_that_is_gone_leads_on_to_its_own_parent() {
        let identity = Identity::new();
        let (mut ancestors, mut lookups) = (Ancestors::default(), 256);
        let (pid, start_ns) = (std::process::id(), own_start_ns(&identity));
        let gone = u32::MAX - 1;
        ancestors.of(&caller(gone, pid, "gone", start_ns), &identity, &mut lookups);
        let of = caller(gone - 1, gone, "child", start_ns);
        let chain = ancestors.of(&of, &identity, &mut lookups);
        assert_eq!((chain[0].pid, &*chain[0].comm, chain[1].pid), (gone, "gone", pid));
        let unknown = caller(gone - 2, gone - 3, "orphan", start_ns);
        assert!(ancestors.of(&unknown, &identity, &mut lookups).is_empty());
    }

    #[test]
    fn a_process_that_is_younger_than_its_child_is_no_ancestor() {
        let identity = Identity::new();
        let (mut ancestors, mut lookups) = (Ancestors::default(), 256);
        let old = own_start_ns(&identity).saturating_sub(1_000_000_000);
        let of = caller(u32::MAX - 1, std::process::id(), "older", old);
        assert!(ancestors.of(&of, &identity, &mut lookups).is_empty());
    }

    #[test]
    fn too_few_look_ups_give_none_rather_than_a_part() {
        let identity = Identity::new();
        let start_ns = own_start_ns(&identity);
        let of = caller(u32::MAX - 1, std::process::id(), "test", start_ns);
        let mut ancestors = Ancestors::default();
        assert!(ancestors.of(&of, &identity, &mut 0).is_empty());
        assert!(!ancestors.of(&of, &identity, &mut 256).is_empty(), "it is not remembered");
    }

    #[test]
    fn the_caches_are_bounded() {
        let identity = Identity::new();
        let (mut ancestors, mut lookups) = (Ancestors::default(), 0);
        for pid in 1..10_000 {
            ancestors.of(&caller(pid, 0, "a", 7), &identity, &mut lookups);
        }
        assert!(ancestors.links.len() <= MOST && ancestors.chains.len() <= MOST);
    }
}
