//! Pairs an attempt with its child's start, and with the functions it passed.
//!
//! The last come right before it. The other two come in any order and one of them may never come. An attempt is held until its
//! child has started, but no longer than [`HOLD_NS`], and never more than [`MOST`] at once. The
//! key is the child's thread id and start time, so a reused id never matches. The evidence of a
//! refusal comes just before its attempt, and is kept for it under its thread id and its return.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use fork_trace_common::{
    record::{ForkRecord, FunctionTimes, StartRecord, TaskIds, bits},
    refusal::RefusalRecord,
    stage::Mark,
};

use crate::assemble::{
    decode::Record,
    program::{Program, Programs},
    times::began_ns,
};

/// How long an attempt waits for its child's start, and a start for its attempt.
pub const HOLD_NS: u64 = 1_000_000_000;
/// How many of each are held at once.
pub const MOST: usize = 16_384;

/// An attempt, and what came of it beside its record.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The attempt.
    pub record: Box<ForkRecord>,
    /// The functions it passed, where they are probed and were not lost.
    pub functions: Option<Box<FunctionTimes>>,
    /// Its child's start, if it was seen.
    pub start: Option<StartRecord>,
    /// The evidence of its refusal.
    pub refusal: Option<Box<RefusalRecord>>,
    /// The program of its caller.
    pub program: Option<Rc<Program>>,
}
/// How much evidence waits for its attempt at once: one for each CPU that is just between the two.
pub const MOST_REFUSALS: usize = 1024;

type Key = (u32, u64);

/// Holds what waits for its other half.
#[derive(Default)]
pub struct Joiner {
    forks: HashMap<Key, Joined>,
    /// Functions passed by the attempt that comes next of a thread.
    functions: HashMap<u32, Box<FunctionTimes>>,
    starts: HashMap<Key, StartRecord>,
    /// Keys of `forks` and `starts` with the time they were put there, oldest first; a key may be
    /// gone from its map.
    fork_ages: VecDeque<(u64, Key)>,
    start_ages: VecDeque<(u64, Key)>,
    /// Evidence without its attempt, oldest first.
    refusals: VecDeque<Box<RefusalRecord>>,
    ready: Vec<Joined>,
    programs: Programs,
}

impl Joiner {
    /// Takes one record at time `now_ns` (`CLOCK_MONOTONIC`).
    pub fn push(&mut self, record: Record, now_ns: u64) {
        match record {
            Record::Functions(functions) => {
                // Without its attempt, which was lost, one stays; but no more than this.
                if self.functions.len() == MOST {
                    self.functions.clear();
                }
                self.functions.insert(functions.tid, functions);
            }
            Record::Fork(record) => {
                let functions = self.functions.remove(&record.parent.tid);
                let functions = functions.filter(|functions| functions.start_ns == record.start_ns);
                let program = self.programs.of(record.parent.tgid, record.parent_process_start_ns);
                let joined = Joined { record, functions, start: None, refusal: None, program };
                self.attempt(joined, now_ns);
            }
            Record::Start(start) => {
                let key = key(&start.child);
                if let Some(fork) = self.forks.remove(&key) {
                    self.ready.push(Joined { start: Some(start), ..fork });
                    return;
                }
                self.start_ages.push_back((now_ns, key));
                self.starts.insert(key, start);
            }
            Record::Program(program) => self.programs.push(&program),
            Record::Refusal(refusal) => self.refusals.push_back(refusal),
            // Follow-ups carry their fork's id: nothing to pair.
            Record::FollowUp(_) | Record::Exec(_) => {}
        }
        self.bound();
    }

    fn attempt(&mut self, attempt: Joined, now_ns: u64) {
        // A task that the kernel makes does not return from a system call.
        if !attempt.record.has(bits::CHILD) || attempt.record.has(bits::KERNEL_MADE) {
            let refusal = self.refusal(&attempt.record);
            self.ready.push(Joined { refusal, ..attempt });
            return;
        }
        let key = key(&attempt.record.child);
        if let Some(start) = self.starts.remove(&key) {
            self.ready.push(Joined { start: Some(start), ..attempt });
            return;
        }
        self.fork_ages.push_back((now_ns, key));
        if let Some(twin) = self.forks.insert(key, attempt) {
            self.ready.push(twin);
        }
    }

    /// The evidence of a failed attempt.
    fn refusal(&mut self, fork: &ForkRecord) -> Option<Box<RefusalRecord>> {
        let returned_ns = *fork.marks.get(Mark::SysExit as usize)?;
        let place = self
            .refusals
            .iter()
            .position(|refusal| refusal.tid == fork.parent.tid && refusal.at_ns == returned_ns)?;
        self.refusals.remove(place)
    }

    /// What is complete, or has waited long enough by `now_ns`; earliest attempt first.
    pub fn release(&mut self, now_ns: u64) -> Vec<Joined> {
        let old = |age: Option<&(u64, Key)>| {
            age.is_some_and(|(since, _)| now_ns.saturating_sub(*since) >= HOLD_NS)
        };
        while old(self.fork_ages.front()) {
            self.release_oldest();
        }
        while old(self.start_ages.front()) {
            self.forget_oldest();
        }
        // Left behind by pairs that found each other.
        if self.forks.is_empty() {
            self.fork_ages.clear();
        }
        if self.starts.is_empty() {
            self.start_ages.clear();
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_by_key(|joined| began_ns(&joined.record));
        ready
    }

    /// Everything, complete or not: the end.
    pub fn release_all(&mut self) -> Vec<Joined> {
        self.release(u64::MAX)
    }

    fn bound(&mut self) {
        while self.refusals.len() > MOST_REFUSALS {
            self.refusals.pop_front();
        }
        while self.fork_ages.len() > MOST {
            self.release_oldest();
        }
        while self.start_ages.len() > MOST {
            self.forget_oldest();
        }
    }

    fn release_oldest(&mut self) {
        if let Some((_, key)) = self.fork_ages.pop_front()
            && let Some(fork) = self.forks.remove(&key)
        {
            self.ready.push(fork);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.start_ages.pop_front() {
            self.starts.remove(&key);
        }
    }
}

const fn key(child: &TaskIds) -> Key {
    (child.tid, child.start_ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromZeros as _;

    use super::*;

    fn fork(tid: u32, start_ns: u64) -> Record {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::ENTERED | bits::CHILD;
        record.start_ns = start_ns;
        record.child = TaskIds { tgid: tid, tid, start_ns };
        Record::Fork(Box::new(record))
    }

    fn failure(start_ns: u64) -> Record {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::ENTERED;
        record.start_ns = start_ns;
        Record::Fork(Box::new(record))
    }

    fn start(tid: u32, start_ns: u64) -> Record {
        Record::Start(StartRecord {
            kind: 2,
            cpu: 0,
            child: TaskIds { tgid: tid, tid, start_ns },
            return_ns: start_ns + 5,
            on_cpu_ns: start_ns + 1,
            tail_ns: 0,
        })
    }

    fn seen(joined: &[Joined]) -> Vec<(u64, bool)> {
        joined.iter().map(|joined| (joined.record.start_ns, joined.start.is_some())).collect()
    }

    #[test]
    fn either_order_joins() {
        let mut joiner = Joiner::default();
        for record in [fork(1, 10), start(1, 10), start(2, 20), fork(2, 20)] {
            joiner.push(record, 0);
        }
        assert_eq!(seen(&joiner.release(0)), [(10, true), (20, true)]);
    }

    #[test]
    fn functions_join_the_attempt_that_they_come_before() {
        let functions = |start_ns| {
            let mut functions = FunctionTimes::zeroed();
            functions.start_ns = start_ns;
            Record::Functions(Box::new(functions))
        };
        let mut joiner = Joiner::default();
        // That of the first was lost.
        for record in [functions(5), functions(10), failure(10), functions(20), failure(30)] {
            joiner.push(record, 0);
        }
        let joined = joiner.release_all();
        let found: Vec<_> = joined.iter().map(|joined| joined.functions.is_some()).collect();
        assert_eq!(found, [true, false]);
    }

    #[test]
    fn a_reused_id_does_not_match() {
        let mut joiner = Joiner::default();
        joiner.push(start(1, 10), 0);
        joiner.push(fork(1, 11), 0);
        assert_eq!(seen(&joiner.release(0)), []);
        assert_eq!(seen(&joiner.release_all()), [(11, false)]);
    }

    #[test]
    fn an_attempt_waits_for_its_child_but_not_for_ever() {
        let mut joiner = Joiner::default();
        joiner.push(fork(1, 10), 0);
        joiner.push(failure(5), 0);
        assert_eq!(seen(&joiner.release(HOLD_NS - 1)), [(5, false)]);
        assert_eq!(seen(&joiner.release(HOLD_NS)), [(10, false)]);
        joiner.push(start(1, 10), HOLD_NS);
        assert_eq!(seen(&joiner.release_all()), []);
    }

    fn refusal(tid: u32, at_ns: u64) -> Record {
        let mut record = RefusalRecord::new_zeroed();
        (record.tid, record.at_ns) = (tid, at_ns);
        Record::Refusal(Box::new(record))
    }

    fn refused(tid: u32, at_ns: u64) -> Record {
        let Record::Fork(mut record) = failure(at_ns - 1) else { unreachable!() };
        record.parent.tid = tid;
        record.marks[Mark::SysExit as usize] = at_ns;
        Record::Fork(record)
    }

    #[test]
    fn evidence_goes_to_its_own_attempt_only() {
        let mut joiner = Joiner::default();
        for record in [refusal(1, 10), refusal(2, 11), refused(2, 11), refused(1, 12)] {
            joiner.push(record, 0);
        }
        joiner.push(refused(1, 10), 0);
        let of: Vec<_> = joiner
            .release(0)
            .iter()
            .map(|joined| {
                (joined.record.start_ns, joined.refusal.as_ref().map(|refusal| refusal.at_ns))
            })
            .collect();
        assert_eq!(of, [(9, Some(10)), (10, Some(11)), (11, None)]);
        assert!(joiner.refusals.is_empty());
    }

    #[test]
    fn evidence_without_an_attempt_is_bounded() {
        let mut joiner = Joiner::default();
        for at_ns in 0..MOST_REFUSALS as u64 + 50 {
            joiner.push(refusal(1, at_ns), 0);
        }
        assert_eq!(joiner.refusals.len(), MOST_REFUSALS);
    }

    #[test]
    fn what_is_held_is_bounded_and_nothing_is_dropped() {
        let mut joiner = Joiner::default();
        let many = u32::try_from(MOST).unwrap() + 500;
        for tid in 0..many {
            joiner.push(fork(tid, u64::from(tid)), 0);
            joiner.push(start(tid + many, u64::from(tid)), 0);
        }
        assert_eq!(joiner.forks.len(), MOST);
        assert_eq!(joiner.starts.len(), MOST);
        assert_eq!(joiner.release(0).len(), 500);
        assert_eq!(joiner.release_all().len(), MOST);
    }

    proptest! {
        /// However records come and whichever are lost: each attempt comes out once, joined if
        /// its child's start came.
        #[test]
        fn each_attempt_comes_out_once(
            order in Just((0..40u32).collect::<Vec<_>>()).prop_shuffle(),
            lost in proptest::collection::vec(any::<bool>(), 40),
            pause in 0..40usize,
        ) {
            let mut joiner = Joiner::default();
            let mut out = Vec::new();
            for (step, slot) in order.iter().enumerate() {
                // Even slots are attempts, odd ones the starts of their children; ids repeat.
                let (tid, start_ns) = (slot / 2 % 3, u64::from(slot / 2));
                if !lost[*slot as usize] {
                    let record =
                        if slot % 2 == 0 { fork(tid, start_ns) } else { start(tid, start_ns) };
                    joiner.push(record, 0);
                }
                if step == pause {
                    out.extend(seen(&joiner.release(0)));
                }
            }
            out.extend(seen(&joiner.release_all()));
            out.sort_unstable();
            let came = |slot: u64| !lost[usize::try_from(slot).unwrap()];
            let expected: Vec<_> = (0..20u64)
                .filter(|place| came(place * 2))
                .map(|place| (place, came(place * 2 + 1)))
                .collect();
            prop_assert_eq!(out, expected);
        }
    }
}
