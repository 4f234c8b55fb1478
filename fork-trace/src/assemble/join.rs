//! Pairs an attempt with everything else that is known of it: the functions it passed, the evidence
//! of its refusal, where its caller stood still during and after it, and its child's start.
//!
//! The functions, the evidence and the waits of the attempt itself arrive just before it. The rest
//! may come in any order, and any of it may never come. An attempt is held until its caller and its
//! child run in user space, but no longer than [`HOLD_NS`], or [`HOLD_AWAY_NS`] if one of them is
//! known to stand still on its way there, and never more than [`MOST`] at once. A child is known by
//! its thread id and its start time, so a reused id never matches.

use std::collections::{BTreeMap, VecDeque};

use foldhash::HashMap;
use fork_trace_common::{
    follow_up::FollowUpRecord,
    libc::{self, LibcRecord},
    record::{ForkRecord, FunctionTimes, StartRecord, TaskIds, bits},
    refusal::RefusalRecord,
    stage::Mark,
    wait::{Phase, WaitsRecord},
};

use crate::assemble::{
    decode::{Record, Stack},
    follow_up::HOLD_AWAY_NS,
    joined::Joined,
    program::Programs,
    samples::Samples,
    times::began_ns,
};

/// How long an attempt waits for its caller and its child, and what came early for its attempt.
pub const HOLD_NS: u64 = 1_000_000_000;
/// How many of each are held at once.
pub const MOST: usize = 16_384;
/// How much evidence waits for its attempt at once: one for each CPU that is just between the two.
pub const MOST_REFUSALS: usize = 1024;
/// A task that passed the last mark of its way so long ago has left its CPU since, or it is in user
/// space: the rest of the way takes microseconds.
pub const SETTLED_NS: u64 = 2_000_000;

/// A child's thread id and start time.
type Key = (u32, u64);

/// An attempt that is held.
struct Held {
    joined: Joined,
    since_ns: u64,
    /// Its caller is off its CPU.
    caller_away: bool,
    /// Its child is off its CPU.
    child_away: bool,
    /// Its caller has made another attempt since, so it must have been back.
    superseded: bool,
}

impl Held {
    /// Whether the caller is back in user space by `now_ns`, as far as was seen.
    fn is_back(&self, now_ns: u64) -> bool {
        let record = &self.joined.record;
        if record.has(bits::KERNEL_MADE) {
            return true;
        }
        let returned_ns = if record.has(bits::VFORK_WAIT) {
            let Some(returned_ns) = self.joined.returned_ns else { return false };
            returned_ns
        } else {
            record.mark_ns(Mark::SysExit)
        };
        let last_ns = returned_ns.max(last_ns(&self.joined.waits_after));
        self.superseded || !self.caller_away && now_ns.saturating_sub(last_ns) >= SETTLED_NS
    }

    /// Whether the caller, or the child, is known to be inside a wrapper of the C library still.
    fn is_in_wrapper(&self) -> bool {
        !self.superseded && self.joined.awaits_wrapper()
            || self.joined.start.is_some() && self.joined.awaits_wrapper_of_child()
    }

    /// Whether the child is in user space by `now_ns`, or will not be heard of.
    fn child_runs(&self, now_ns: u64) -> bool {
        let record = &self.joined.record;
        // A task that the kernel makes does not return from a system call.
        if !record.has(bits::CHILD) || record.has(bits::KERNEL_MADE) {
            return true;
        }
        // In a ring that is so full that an attempt is told in brief, its child's start is left out.
        let Some(start) = self.joined.start else { return record.has(bits::BRIEF) };
        let last_ns = start.return_ns.max(start.on_cpu_ns).max(last_ns(&self.joined.child_waits));
        !self.child_away && now_ns.saturating_sub(last_ns) >= SETTLED_NS
    }
}

/// When the last of some waits was over; 0: there is none.
fn last_ns(waits: &[WaitsRecord]) -> u64 {
    let ends = waits.iter().flat_map(|record| record.kept()).map(|wait| wait.back_ns);
    ends.max().unwrap_or_default()
}

/// What is known of a child whose attempt has not come yet.
#[derive(Default)]
struct Early {
    start: Option<StartRecord>,
    libc: Option<Box<LibcRecord>>,
    waits: Vec<WaitsRecord>,
    away: bool,
}

/// Holds attempts, and what waits for its attempt.
#[derive(Default)]
pub struct Joiner {
    /// By the order in which they came.
    held: BTreeMap<u64, Held>,
    next: u64,
    by_child: HashMap<Key, u64>,
    /// The last attempt of each calling thread.
    by_caller: HashMap<u32, u64>,
    /// Functions passed by the attempt that comes next of a thread.
    functions: HashMap<u32, Box<FunctionTimes>>,
    /// Waits of the attempt that comes next of a thread.
    waits: HashMap<u32, Box<WaitsRecord>>,
    /// Wrappers whose return is not probed, of the attempt that comes next of a thread.
    libc: HashMap<u32, Box<LibcRecord>>,
    /// Wrappers that have returned without an attempt.
    without_attempt: VecDeque<Box<LibcRecord>>,
    /// Stacks of the callers of attempts under way.
    stacks: HashMap<u32, Box<Stack>>,
    /// Samples of attempts under way.
    samples: Samples,
    early: HashMap<Key, Early>,
    /// Keys of `early` with the time they were put there, oldest first; a key may be gone.
    early_ages: VecDeque<(u64, Key)>,
    /// Evidence without its attempt, oldest first.
    refusals: VecDeque<Box<RefusalRecord>>,
    ready: Vec<Joined>,
    programs: Programs,
}

impl Joiner {
    /// Takes one record at time `now_ns` (`CLOCK_MONOTONIC`).
    pub fn push(&mut self, record: Record, now_ns: u64) {
        match record {
            Record::Functions(functions) => insert(&mut self.functions, functions.tid, functions),
            Record::Waits(waits) => self.waits(waits, now_ns),
            Record::Sample(sample) => self.samples.push(&sample),
            Record::Stack(stack) => insert(&mut self.stacks, stack.tid, stack),
            Record::Fork(record) => self.attempt(record, now_ns),
            Record::Start(start) => {
                let key = key(&start.child);
                match self.by_child.get(&key).and_then(|id| self.held.get_mut(id)) {
                    Some(held) => held.joined.start = Some(start),
                    None => self.early(key, now_ns).start = Some(start),
                }
            }
            Record::Program(program) => self.programs.push(&program),
            Record::Libc(record) => self.wrapper(record, now_ns),
            Record::Refusal(refusal) => self.refusals.push_back(refusal),
            // Follow-ups carry their fork's id: only a vfork's return is paired, by `returned`. Handlers belong to a
            // process.
            Record::FollowUp(_) | Record::Exec(_) | Record::Atfork(_) => {}
        }
        self.bound(now_ns);
    }

    /// A caller or a child has returned from a wrapper of the C library.
    fn wrapper(&mut self, record: Box<LibcRecord>, now_ns: u64) {
        if record.has(libc::bits::CHILD) {
            let key = key(&record.thread);
            match self.by_child.get(&key).and_then(|id| self.held.get_mut(id)) {
                Some(held) => held.joined.child_libc = Some(record),
                None => self.early(key, now_ns).libc = Some(record),
            }
            return;
        }
        let tid = record.thread.tid;
        if record.attempt_ns == 0 {
            self.without_attempt.push_back(record);
            return;
        }
        match self.by_caller.get(&tid).and_then(|id| self.held.get_mut(id)) {
            Some(held) if held.joined.record.start_ns == record.attempt_ns => {
                held.joined.libc = Some(record);
            }
            _ => insert(&mut self.libc, tid, record),
        }
    }

    /// The wrappers that have returned without an attempt since this was last asked.
    pub fn take_without_attempt(&mut self) -> VecDeque<Box<LibcRecord>> {
        std::mem::take(&mut self.without_attempt)
    }

    /// The call of a vfork's caller has returned.
    pub fn returned(&mut self, record: &FollowUpRecord) {
        let held = self.by_child.get(&key(&record.born.child));
        if let Some(held) = held.and_then(|id| self.held.get_mut(id)) {
            held.joined.returned_ns = Some(record.at_ns);
        }
    }

    fn attempt(&mut self, record: Box<ForkRecord>, now_ns: u64) {
        let tid = record.parent.tid;
        let functions = self.functions.remove(&tid);
        let functions = functions.filter(|functions| functions.start_ns == record.start_ns);
        let waits = self.waits.remove(&tid);
        let mut waits = waits.filter(|waits| waits.start_ns == record.start_ns);
        let samples = self.samples.take(tid, record.start_ns);
        let stack = self.stacks.remove(&tid).filter(|stack| stack.start_ns == record.start_ns);
        let refusal = if record.has(bits::CHILD) { None } else { self.refusal(&record) };
        let libc = self.libc.remove(&tid).filter(|libc| libc.attempt_ns == record.start_ns);
        let program = self.programs.of(record.parent.tgid, record.parent_process_start_ns);
        // A caller may be preempted between its return and the end of its record.
        let returned_ns = Some(record.mark_ns(Mark::SysExit)).filter(|at_ns| *at_ns != 0);
        let late =
            waits.as_mut().zip(returned_ns).and_then(|(waits, at_ns)| waits.split_off(at_ns));
        let late = late.map(|late| WaitsRecord { phase: Phase::Return as u32, ..late });
        let alone = Joined::alone(record);
        let waits_after = late.into_iter().collect();
        let mut joined = Joined {
            functions,
            waits,
            waits_after,
            samples,
            stack,
            refusal,
            program,
            libc,
            ..alone
        };
        let id = self.next;
        self.next += 1;
        let mut child_away = false;
        if joined.record.has(bits::CHILD) {
            let key = key(&joined.record.child);
            if let Some(early) = self.early.remove(&key) {
                joined.start = early.start;
                joined.child_waits = early.waits;
                joined.child_libc = early.libc;
                child_away = early.away;
            }
            // A twin stays held, and comes out without its child.
            self.by_child.insert(key, id);
        }
        let before = self.by_caller.insert(tid, id).and_then(|id| self.held.get_mut(&id));
        if let Some(before) = before {
            before.superseded = true;
        }
        let since_ns = now_ns;
        let held = Held { joined, since_ns, caller_away: false, child_away, superseded: false };
        self.held.insert(id, held);
    }

    /// Waits go to the attempt that comes next of their thread, or to the one that came last.
    fn waits(&mut self, waits: Box<WaitsRecord>, now_ns: u64) {
        let away = waits.left_ns != 0;
        if waits.phase == Phase::Call as u32 {
            insert(&mut self.waits, waits.tid, waits);
        } else if waits.phase == Phase::Child as u32 {
            let key = (waits.tid, waits.start_ns);
            match self.by_child.get(&key).and_then(|id| self.held.get_mut(id)) {
                Some(held) => {
                    held.child_away = away;
                    held.joined.child_waits.extend((!away).then_some(*waits));
                }
                None => {
                    let early = self.early(key, now_ns);
                    early.away = away;
                    early.waits.extend((!away).then_some(*waits));
                }
            }
        } else if let Some(held) =
            self.by_caller.get(&waits.tid).and_then(|id| self.held.get_mut(id))
            && [0, held.joined.record.start_ns].contains(&waits.start_ns)
        {
            held.caller_away = away;
            held.joined.waits_after.extend((!away).then_some(*waits));
        }
    }

    fn early(&mut self, key: Key, now_ns: u64) -> &mut Early {
        let Self { early, early_ages, .. } = self;
        early.entry(key).or_insert_with(|| {
            early_ages.push_back((now_ns, key));
            Early::default()
        })
    }

    /// The evidence of a failed attempt.
    fn refusal(&mut self, fork: &ForkRecord) -> Option<Box<RefusalRecord>> {
        let returned_ns = fork.mark_ns(Mark::SysExit);
        let place = self
            .refusals
            .iter()
            .position(|refusal| refusal.tid == fork.parent.tid && refusal.at_ns == returned_ns)?;
        self.refusals.remove(place)
    }

    /// What is complete, or has waited long enough by `now_ns`; earliest attempt first.
    pub fn release(&mut self, now_ns: u64) -> Vec<Joined> {
        let ended = |held: &Held| {
            let away = held.caller_away || held.child_away || held.is_in_wrapper();
            let most_ns = if away { HOLD_AWAY_NS } else { HOLD_NS };
            now_ns.saturating_sub(held.since_ns) >= most_ns
                || held.is_back(now_ns) && held.child_runs(now_ns) && !held.is_in_wrapper()
        };
        let ended = self.held.iter().filter(|(_, held)| ended(held)).map(|(id, _)| *id);
        for id in ended.collect::<Vec<_>>() {
            self.release_one(id, now_ns);
        }
        let old = |age: Option<&(u64, Key)>| {
            age.is_some_and(|(since, _)| now_ns.saturating_sub(*since) >= HOLD_AWAY_NS)
        };
        while old(self.early_ages.front()) {
            self.forget_oldest();
        }
        // Left behind by pairs that found each other.
        if self.early.is_empty() {
            self.early_ages.clear();
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_by_key(|joined| began_ns(&joined.record));
        ready
    }

    /// Everything, complete or not: the end.
    pub fn release_all(&mut self) -> Vec<Joined> {
        self.release(u64::MAX)
    }

    fn bound(&mut self, now_ns: u64) {
        while self.refusals.len() > MOST_REFUSALS {
            self.refusals.pop_front();
        }
        while self.held.len() > MOST {
            let Some((id, _)) = self.held.first_key_value() else { break };
            self.release_one(*id, now_ns);
        }
        while self.without_attempt.len() > MOST {
            self.without_attempt.pop_front();
        }
        while self.early_ages.len() > MOST {
            self.forget_oldest();
        }
    }

    fn release_one(&mut self, id: u64, now_ns: u64) {
        let Some(held) = self.held.remove(&id) else { return };
        let record = &held.joined.record;
        let key = key(&record.child);
        if self.by_child.get(&key) == Some(&id) {
            self.by_child.remove(&key);
        }
        if self.by_caller.get(&record.parent.tid) == Some(&id) {
            self.by_caller.remove(&record.parent.tid);
        }
        let is_back = held.is_back(now_ns);
        let joined = &held.joined;
        let waits = joined.waits.as_deref().into_iter();
        let mut waits = waits.chain(&joined.waits_after).chain(&joined.child_waits);
        let waits_incomplete = record.has(bits::WAITED) && joined.waits.is_none()
            || waits.any(|waits| waits.missed > 0);
        let child_away = held.child_away;
        self.ready.push(Joined { is_back, child_away, waits_incomplete, ..held.joined });
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.early_ages.pop_front() {
            self.early.remove(&key);
        }
    }
}

/// Keeps what comes before its attempt. If the attempt was lost, it stays; but no more than [`MOST`].
fn insert<T>(early: &mut HashMap<u32, T>, tid: u32, value: T) {
    if early.len() == MOST {
        early.clear();
    }
    early.insert(tid, value);
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
        assert_eq!(seen(&joiner.release(SETTLED_NS)), [], "one may be about to leave its CPU");
        assert_eq!(seen(&joiner.release(SETTLED_NS + 30)), [(10, true), (20, true)]);
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
        record.marks[Mark::SysExit.place()] = at_ns;
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
            .release(SETTLED_NS + 30)
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
        assert_eq!(joiner.held.len(), MOST);
        assert_eq!(joiner.early.len(), MOST);
        assert_eq!(joiner.release(0).len(), 500);
        assert_eq!(joiner.release_all().len(), MOST);
    }

    fn waits(phase: Phase, tid: u32, start_ns: u64, away: bool) -> Record {
        let mut record = WaitsRecord::zeroed();
        (record.phase, record.tid, record.start_ns) = (phase as u32, tid, start_ns);
        if away {
            record.left_ns = 1;
        } else {
            (record.used, record.current) = (1, 1);
            record.waits[0].back_ns = 50;
        }
        Record::Waits(Box::new(record))
    }

    #[test]
    fn an_attempt_waits_for_its_caller_and_its_child_on_their_way_back() {
        let soon = SETTLED_NS + 100;
        let mut joiner = Joiner::default();
        for record in [waits(Phase::Call, 0, 10, false), fork(1, 10), start(1, 10)] {
            joiner.push(record, 0);
        }
        joiner.push(waits(Phase::Return, 0, 0, true), 0);
        joiner.push(waits(Phase::Child, 1, 10, true), 0);
        assert_eq!(seen(&joiner.release(soon)), [], "both are away");
        joiner.push(waits(Phase::Return, 0, 0, false), 0);
        assert_eq!(seen(&joiner.release(soon)), [], "the child is away");
        joiner.push(waits(Phase::Child, 1, 10, false), 0);
        let joined = joiner.release(soon).remove(0);
        assert!(joined.waits.is_some() && joined.is_back);
        assert_eq!((joined.waits_after.len(), joined.child_waits.len()), (1, 1));
    }

    #[test]
    fn a_caller_that_stays_away_is_not_waited_for_for_ever() {
        let mut joiner = Joiner::default();
        for record in [fork(1, 10), start(1, 10), waits(Phase::Return, 0, 0, true)] {
            joiner.push(record, 0);
        }
        assert_eq!(seen(&joiner.release(HOLD_AWAY_NS - 1)), []);
        let mut joined = joiner.release(HOLD_AWAY_NS).remove(0);
        assert!(!joined.is_back);
        joined.record.bits |= bits::ENTERED;
        joined.record.marks[Mark::SysExit.place()] = 20;
        assert!(joined.awaits_return());
        joined.record.bits &= !bits::CHILD;
        assert!(!joined.awaits_return(), "a refused attempt left nothing to wait for");
        joiner.push(waits(Phase::Return, 0, 0, false), HOLD_AWAY_NS);
        assert!(joiner.release_all().is_empty());
    }

    #[test]
    fn a_vfork_waits_for_its_caller() {
        let vfork = |start_ns| {
            let Record::Fork(mut record) = fork(1, start_ns) else { unreachable!() };
            record.bits |= bits::VFORK_WAIT;
            Record::Fork(record)
        };
        let mut joiner = Joiner::default();
        for record in [waits(Phase::Child, 1, 10, false), start(1, 10), vfork(10)] {
            joiner.push(record, 0);
        }
        assert_eq!(seen(&joiner.release(HOLD_NS - 1)), []);
        let mut back = FollowUpRecord::new_zeroed();
        back.born.child = TaskIds { tgid: 1, tid: 1, start_ns: 10 };
        back.at_ns = 60;
        joiner.push(waits(Phase::Held, 0, 10, false), 0);
        joiner.push(waits(Phase::Held, 0, 9, false), 0);
        joiner.returned(&back);
        let joined = joiner.release(HOLD_NS - 1).remove(0);
        assert_eq!((joined.returned_ns, joined.is_back), (Some(60), true));
        assert_eq!((joined.waits_after.len(), joined.child_waits.len()), (1, 1));
        joiner.push(vfork(20), 0);
        let joined = joiner.release(HOLD_NS).remove(0);
        assert!(!joined.is_back);
    }

    fn in_wrapper(tid: u32, start_ns: u64) -> Record {
        let Record::Fork(mut record) = fork(tid, start_ns) else { unreachable!() };
        record.bits |= bits::LIBC;
        record.parent.tid = 7;
        record.marks[Mark::SysExit.place()] = start_ns + 10;
        Record::Fork(record)
    }

    fn wrapper(thread: TaskIds, attempt_ns: u64, child: bool) -> Record {
        let mut record = LibcRecord::zeroed();
        record.bits = libc::bits::RETURNED | if child { libc::bits::CHILD } else { 0 };
        record.thread = thread;
        record.attempt_ns = attempt_ns;
        Record::Libc(Box::new(record))
    }

    #[test]
    fn an_attempt_waits_for_its_wrapper_in_caller_and_child() {
        let (caller, child) =
            (TaskIds { tgid: 7, tid: 7, start_ns: 1 }, TaskIds { tgid: 9, tid: 9, start_ns: 100 });
        let late_ns = 100 + 2 * HOLD_NS;
        let mut joiner = Joiner::default();
        joiner.push(in_wrapper(9, 100), 110);
        joiner.push(start(9, 100), 120);
        assert!(joiner.release(late_ns).is_empty(), "neither has returned");
        joiner.push(wrapper(caller, 100, false), late_ns);
        assert!(joiner.release(late_ns).is_empty(), "the child has not");
        joiner.push(wrapper(child, 100, true), late_ns);
        let joined = joiner.release(late_ns);
        assert!(joined[0].libc.is_some() && joined[0].child_libc.is_some());
    }

    #[test]
    fn a_lost_wrapper_is_not_waited_for_once_its_caller_forks_again() {
        let mut joiner = Joiner::default();
        let Record::Fork(mut first) = in_wrapper(9, 100) else { unreachable!() };
        first.task_flags = fork_trace_common::flags::CLONE_VM;
        joiner.push(Record::Fork(first), 110);
        joiner.push(start(9, 100), 120);
        joiner.push(in_wrapper(10, 100 + HOLD_NS), 100 + HOLD_NS);
        let joined = joiner.release(100 + HOLD_NS + SETTLED_NS);
        assert_eq!(joined.len(), 1);
        assert!(joined[0].libc.is_none());
    }

    #[test]
    fn a_wrapper_without_an_attempt_is_told_apart() {
        let mut joiner = Joiner::default();
        joiner.push(wrapper(TaskIds { tgid: 7, tid: 7, start_ns: 1 }, 0, false), 5);
        assert_eq!(joiner.take_without_attempt().len(), 1);
        assert!(joiner.take_without_attempt().is_empty());
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
