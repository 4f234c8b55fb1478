//! Threads that were made while tracing and have not ended.
//!
//! The kernel side tells of threads that are made. Which of them are still there is asked of `/proc`: when the
//! trace ends, and whenever there is no room for more.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::HashMap;
use fork_trace_common::record::{ForkRecord, bits};

use crate::{
    event::{fork::Fork, stack::chain, summary::ThreadsLeft, values::Kind},
    host::process::{identity::Identity, threads},
};

/// Threads that are remembered at once, and processes that make them.
const MOST: usize = 65_536;
const MOST_CREATORS: usize = 4_096;
/// What a summary names.
const NAMED: usize = 20;
/// How often those that have ended are looked for at most.
const LOOKS: Duration = Duration::from_secs(1);

/// One place from which a process makes threads.
struct Place {
    /// The caller's stack, where it was taken.
    stack: Option<Arc<str>>,
    made: u64,
}

/// A process that makes threads.
struct Creator {
    comm: String,
    exe: Option<Arc<str>>,
    places: Vec<Place>,
    /// The place from which each thread was made, by its id. An id that comes again is that of a new thread.
    threads: HashMap<u32, usize>,
}

/// What is known of threads.
pub(super) struct Threads {
    /// By process and its start.
    creators: HashMap<(u32, u64), Creator>,
    /// How many threads all of them have.
    count: usize,
    looked: Option<Instant>,
    not_followed: u64,
    identity: Identity,
}

impl Threads {
    pub(super) fn new() -> Self {
        Self {
            creators: HashMap::default(),
            count: 0,
            looked: None,
            not_followed: 0,
            identity: Identity::new(),
        }
    }

    /// Takes an attempt that is shown.
    pub(super) fn add(&mut self, fork: &Fork, record: &ForkRecord) {
        let process = (record.parent.tgid, record.parent_process_start_ns);
        let is_thread = fork.kind == Some(Kind::Thread) && record.has(bits::CHILD);
        // Otherwise the ids in `/proc` are those of another pid namespace.
        if !is_thread || record.parent_proc_pid != process.0 {
            return;
        }
        let is_full = |threads: &Self| {
            let is_new = !threads.creators.contains_key(&process);
            threads.count >= MOST || is_new && threads.creators.len() >= MOST_CREATORS
        };
        if is_full(self) && self.looked.is_none_or(|looked| looked.elapsed() >= LOOKS) {
            self.forget_ended();
        }
        if is_full(self) {
            self.not_followed += 1;
            return;
        }
        let creator = self.creators.entry(process).or_insert_with(|| Creator {
            comm: fork.parent.comm.clone(),
            exe: fork.parent.exe.clone(),
            places: Vec::new(),
            threads: HashMap::default(),
        });
        let stack = chain(&fork.stack);
        let place =
            creator.places.iter().position(|place| place.stack.as_deref() == stack.as_deref());
        let place = place.unwrap_or_else(|| {
            creator.places.push(Place { stack: stack.map(Into::into), made: 0 });
            creator.places.len() - 1
        });
        if let Some(place) = creator.places.get_mut(place) {
            place.made += 1;
        }
        self.count += usize::from(creator.threads.insert(record.child.tid, place).is_none());
    }

    /// The threads that are still there, by process and place, the most first; and of how many more that is not
    /// known, because there were too many.
    pub(super) fn left(&mut self) -> (Vec<ThreadsLeft>, u64) {
        self.forget_ended();
        let mut left: Vec<_> =
            self.creators.iter().flat_map(|((pid, _), of)| of.left(*pid)).collect();
        left.sort_by(|a, b| b.left.cmp(&a.left).then(b.made.cmp(&a.made)).then(a.pid.cmp(&b.pid)));
        left.truncate(NAMED);
        (left, self.not_followed)
    }

    fn forget_ended(&mut self) {
        self.looked = Some(Instant::now());
        let identity = self.identity;
        self.creators.retain(|(pid, start_ns), creator| {
            if !identity.is_alive(*pid, *start_ns) {
                return false;
            }
            let there: HashSet<u32> = threads(*pid).into_iter().collect();
            creator.threads.retain(|tid, _| there.contains(tid));
            true
        });
        self.count = self.creators.values().map(|creator| creator.threads.len()).sum();
    }
}

impl Creator {
    fn left(&self, pid: u32) -> Vec<ThreadsLeft> {
        let mut left = vec![0_u64; self.places.len()];
        for place in self.threads.values() {
            if let Some(left) = left.get_mut(*place) {
                *left += 1;
            }
        }
        let places = self.places.iter().zip(left).filter(|(_, left)| *left > 0);
        let line = |(place, left): (&Place, u64)| ThreadsLeft {
            pid,
            comm: self.comm.clone(),
            exe: self.exe.clone(),
            stack: place.stack.clone(),
            made: place.made,
            left,
        };
        places.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::host::process::stat::Stat;

    /// The record of thread `tid` of process `pid`, which was made when that process was.
    fn made(pid: u32, tid: u32) -> (Fork, ForkRecord) {
        let identity = Identity::new();
        let ticks = Stat::read(pid).map_or(0, |stat| stat.start_ticks);
        let mut record = ForkRecord::zeroed();
        record.bits = bits::CHILD;
        record.parent.tgid = pid;
        record.parent_proc_pid = pid;
        record.parent_process_start_ns =
            (ticks * identity.tick_ns).saturating_add_signed(-identity.boot_ns);
        record.child.tid = tid;
        let parent = serde_json::json!({"pid": pid, "tid": pid, "ppid": 0, "comm": "a", "uid": 0});
        let fork = serde_json::json!({
            "id": "1-1", "ts": "2026-01-01T00:00:00Z", "mono_ns": 1, "kind": "thread", "parent": parent,
        });
        (serde_json::from_value(fork).unwrap(), record)
    }

    #[test]
    fn only_threads_that_are_there_are_left() {
        let (end, ended) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            ended.recv().unwrap_err();
        });
        let tid = u32::try_from(told.recv().unwrap().as_raw()).unwrap();
        let own = std::process::id();
        let mut threads = Threads::new();
        let (fork, mut record) = made(own, tid);
        threads.add(&fork, &record);
        record.child.tid = u32::MAX;
        threads.add(&fork, &record);
        let (fork, record) = made(u32::MAX, tid);
        threads.add(&fork, &record);
        let (left, not_followed) = threads.left();
        let [of] = &left[..] else { panic!("{left:?}") };
        assert_eq!((of.pid, of.made, of.left, not_followed), (own, 2, 1, 0));
        drop(end);
        thread.join().unwrap();
        // The kernel takes a thread away a moment after who waits for it is told.
        let gone = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            threads.left().0.is_empty()
        });
        assert!(gone);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let own = std::process::id();
        let mut threads = Threads::new();
        let (fork, mut record) = made(own, 0);
        for tid in 0..MOST {
            record.child.tid = u32::MAX - u32::try_from(tid).unwrap();
            threads.add(&fork, &record);
        }
        assert_eq!((threads.count, threads.not_followed), (MOST, 0));
        // None of them is there.
        record.child.tid = 1;
        threads.add(&fork, &record);
        assert_eq!((threads.count, threads.not_followed), (1, 0));
        // It does not look again so soon.
        threads.looked = Some(Instant::now() + Duration::from_secs(60));
        for tid in 0..=MOST {
            record.child.tid = u32::MAX - u32::try_from(tid).unwrap();
            threads.add(&fork, &record);
        }
        assert_eq!((threads.count, threads.not_followed), (MOST, 2));
    }
}
