//! Process ids: those of the initial pid namespace, which the kernel and every record have, and those
//! that this process's own pid namespace gives, which a user types.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use fork_trace_common::{settings::ABSENT, task_seen::TaskSeen};

use crate::{
    event::filters::Filters,
    host::process::{numbers, stat::Stat, status_field},
};

/// How this process's own pid namespace gives ids.
#[derive(Clone, Debug)]
pub enum Ids {
    /// It is the initial one: an id is what it is.
    Initial,
    /// It is another one: these tasks could be seen in it when tracing began.
    Listed(Vec<TaskSeen>),
}

impl Ids {
    /// This process's own id in the initial pid namespace.
    ///
    /// # Errors
    /// It is not among the tasks that were listed.
    pub fn own(&self) -> Result<u32, String> {
        match self {
            Self::Initial => Ok(std::process::id()),
            Self::Listed(tasks) => {
                let own = tasks.iter().find(|task| task.is_reader != 0);
                own.map(|task| task.tgid).ok_or_else(|| "this process is not listed".to_owned())
            }
        }
    }

    /// Level and number of the pid namespace whose ids the mounted `/proc` shows; the level is
    /// [`ABSENT`] where that is not known, so that nothing is looked up there.
    #[must_use]
    pub fn of_proc(&self) -> (u32, u32) {
        let Self::Listed(tasks) = self else { return (0, 0) };
        let own = tasks.iter().find(|task| task.is_reader != 0).zip(levels_above());
        let own =
            own.and_then(|(task, above)| Some((task.level.checked_sub(above)?, task.proc_ns)));
        own.filter(|(level, number)| *level == 0 || *number != 0).unwrap_or((ABSENT, 0))
    }

    /// The id in the initial pid namespace of the process that has the id `pid` in this process's
    /// own.
    ///
    /// # Errors
    /// Why there is none: nothing has that id, or a thread has it.
    pub fn process(&self, pid: u32) -> Result<u32, String> {
        let found = match self {
            Self::Initial => process_of(pid).map(|process| (process, process)),
            Self::Listed(tasks) => {
                let task = tasks.iter().find(|task| task.seen_tid == pid);
                task.map(|task| (task.seen_tgid, task.tgid))
            }
        };
        match found {
            Some((seen, process)) if seen == pid => Ok(process),
            Some((seen, _)) => Err(format!("it is a thread of process {seen}: give that")),
            None => Err(match self {
                Self::Initial => "there is no such process".to_owned(),
                Self::Listed(_) => "there is no such process in this pid namespace".to_owned(),
            }),
        }
    }

    /// Adds to `filters` what the ids in it are in the initial pid namespace, where they differ.
    pub fn translate(&self, filters: &mut Filters) {
        if let Self::Listed(_) = self {
            let host =
                |pids: &[u32]| pids.iter().filter_map(|pid| self.process(*pid).ok()).collect();
            filters.host_pids = host(&filters.pids);
            filters.host_ppids = host(&filters.ppids);
        }
    }

    /// The processes that descend from `pids` just now, all by their ids in the initial pid
    /// namespace; `pids` themselves are not among them.
    #[must_use]
    pub fn descendants(&self, pids: &[u32]) -> BTreeSet<u32> {
        let parents: BTreeMap<u32, u32> = match self {
            Self::Initial => {
                let all = numbers("/proc").unwrap_or_default().into_iter();
                all.filter_map(|pid| Some((pid, Stat::read(pid)?.ppid))).collect()
            }
            Self::Listed(tasks) => tasks.iter().map(|task| (task.tgid, task.ppid)).collect(),
        };
        let mut found = BTreeSet::new();
        let mut new: Vec<u32> = pids.to_vec();
        while let Some(parent) = new.pop() {
            let children = parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid);
            new.extend(children.filter(|child| found.insert(*child)));
        }
        found
    }
}

/// By how many levels the pid namespace of the mounted `/proc` lies above this process's own.
///
/// KERNEL: fs/proc/array.c `task_state` shows an id for each namespace from that of `/proc` inwards.
#[must_use]
pub fn levels_above() -> Option<u32> {
    let status = fs::read("/proc/self/status").ok()?;
    above(&status)
}

fn above(status: &[u8]) -> Option<u32> {
    let ids = status_field(status, "NSpid:")?.split_ascii_whitespace();
    u32::try_from(ids.count()).ok()?.checked_sub(1)
}

/// The process that the task `tid` belongs to, by `/proc`.
fn process_of(tid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    status_field(&status, "Tgid:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Ids {
        let task = |tgid, tid, ppid, seen_tgid, seen_tid| TaskSeen {
            tgid,
            tid,
            ppid,
            seen_tgid,
            seen_tid,
            ..TaskSeen::default()
        };
        let mut own = task(103, 103, 101, 3, 3);
        (own.is_reader, own.level, own.proc_ns) = (1, 1, 77);
        Ids::Listed(vec![
            task(101, 101, 50, 1, 1),
            task(102, 102, 101, 2, 2),
            own,
            task(102, 110, 101, 2, 10),
            task(111, 111, 102, 11, 11),
            task(112, 112, 111, 12, 12),
        ])
    }

    #[test]
    fn typed_ids_are_those_of_the_own_namespace() {
        let ids = listed();
        assert_eq!(ids.own(), Ok(103));
        assert_eq!(ids.process(2), Ok(102));
        assert_eq!(ids.process(10).unwrap_err(), "it is a thread of process 2: give that");
        assert!(ids.process(102).unwrap_err().contains("in this pid namespace"), "a host's id");
        assert_eq!(ids.descendants(&[102]), [111, 112].into());
        let mut filters = Filters { pids: vec![2], ppids: vec![11], ..Filters::default() };
        ids.translate(&mut filters);
        assert_eq!((filters.host_pids, filters.host_ppids), (vec![102], vec![111]));
        assert!(Ids::Listed(Vec::new()).own().is_err());
        assert_eq!(Ids::Listed(Vec::new()).of_proc(), (ABSENT, 0));
    }

    #[test]
    fn in_the_initial_namespace_an_id_is_what_it_is() {
        let own = std::process::id();
        assert_eq!(Ids::Initial.own(), Ok(own));
        assert_eq!(Ids::Initial.process(own), Ok(own));
        assert_eq!(Ids::Initial.of_proc(), (0, 0));
        assert_eq!(Ids::Initial.process(u32::MAX), Err("there is no such process".to_owned()));
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw()).join().unwrap();
        // That thread has ended, but the one that runs this test has not.
        assert!(Ids::Initial.process(thread.cast_unsigned()).is_err());
        let this = nix::unistd::gettid().as_raw().cast_unsigned();
        assert_eq!(
            Ids::Initial.process(this),
            Err(format!("it is a thread of process {own}: give that"))
        );
    }

    #[test]
    fn levels_are_counted_from_the_namespace_of_proc_inwards() {
        assert_eq!(above(b"Name:\ta\xffb\nNSpid:\t7\n"), Some(0));
        assert_eq!(above(b"Name:\tNSpid: 1 2 3\nNStgid:\t1\nNSpid:\t4711\t12\t7\n"), Some(2));
        assert_eq!(above(b"Name:\tx\n"), None);
        assert_eq!(levels_above(), Some(0));
    }
}
