//! Follow-up records to events: joins a vfork's return with what let the parent go, and holds each
//! event back until its fork was shown.
//!
//! Records come from several CPUs in any order and any may be lost, so nothing is held for longer
//! than [`HOLD_NS`], and never more than [`MOST`] at once. It does no I/O.

use std::collections::VecDeque;

use foldhash::HashMap;
use fork_trace_common::{
    follow_up::{ExecRecord, FollowUpKind, FollowUpRecord, bits, state},
    record::TaskIds,
};

use crate::event::{
    Event,
    bytes::{before_nul, text},
    clock::Clock,
    errno::errno_name,
    follow_up::{Exec, Exit, ReleasedBy, VforkDone},
    fork::id_of,
    memory::PAGE_BYTES,
};

/// How long an attempt waits for a caller or a child that is known to be off its CPU.
pub const HOLD_AWAY_NS: u64 = 5_000_000_000;
/// How long an event waits for its fork, and a vfork's return for its cause. An attempt is held for
/// less.
pub const HOLD_NS: u64 = HOLD_AWAY_NS + 1_000_000_000;
/// How many of each are held at once.
pub const MOST: usize = 16_384;

/// Child's thread id and start time: a reused id never matches.
type Key = (u32, u64);

/// What let a parent go, and when.
type Cause = (u64, ReleasedBy);

/// An event that waits for its fork: since when, whose, when it happened.
struct Held {
    since_ns: u64,
    key: Key,
    at_ns: u64,
    /// Its fork is this tracer's own, and never shown.
    own_fork: bool,
    event: Event,
}

/// Follow-ups on their way.
#[derive(Default)]
pub struct Follower {
    returns: HashMap<Key, FollowUpRecord>,
    causes: HashMap<Key, Cause>,
    /// Keys of the two with the time they were put there, oldest first; a key may be gone.
    return_ages: VecDeque<(u64, Key)>,
    cause_ages: VecDeque<(u64, Key)>,
    /// Forks that were shown, or left out, of late; their keys, oldest first.
    forks: HashMap<Key, bool>,
    fork_ages: VecDeque<Key>,
    /// The latest start of a child whose fork is no longer among them.
    forgotten_ns: u64,
    held: VecDeque<Held>,
    /// A fork that does not come may have been left out by the kernel side.
    strict: bool,
}

impl Follower {
    /// With `strict`, follow-ups of a fork that does not come are left out too.
    #[must_use]
    pub fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Takes a record at time `now_ns` (`CLOCK_MONOTONIC`).
    pub fn push(&mut self, record: &FollowUpRecord, clock: Clock, now_ns: u64) {
        let key = key(&record.born.child);
        if record.kind == FollowUpKind::VforkReturned as u32 {
            if let Some(cause) = self.causes.remove(&key) {
                self.hold(vfork_done(record, Some(cause), clock), record, now_ns);
                return;
            }
            self.return_ages.push_back((now_ns, key));
            self.returns.insert(key, *record);
            return;
        }
        let ended = record.kind == FollowUpKind::Ended as u32;
        if record.born.state & state::VFORK != 0 && record.born.state & state::EXECED == 0 {
            let cause = (record.at_ns, if ended { end(record) } else { ReleasedBy::Exec });
            if let Some(back) = self.returns.remove(&key) {
                self.hold(vfork_done(&back, Some(cause), clock), &back, now_ns);
            } else {
                self.cause_ages.push_back((now_ns, key));
                self.causes.entry(key).or_insert(cause);
            }
        }
    }

    /// Takes a child's end: the last event of it.
    pub fn exited(&mut self, record: &FollowUpRecord, clock: Clock, now_ns: u64) {
        let signal = signal(record);
        let event = Event::Exit(Exit {
            fork_id: shown_id(record),
            ts: clock.at(record.at_ns),
            mono_ns: record.at_ns,
            pid: record.born.child.tgid,
            lifetime_ns: record.at_ns.saturating_sub(record.born.child.start_ns),
            code: signal.is_none().then(|| low_byte(record.exit_code >> 8)),
            signal,
            execed: record.born.state & state::EXECED != 0,
            orphan: None,
            cpu_ns: (record.bits & bits::CPU != 0).then_some(record.cpu_ns),
            max_rss_bytes: (record.bits & bits::MAX_RSS != 0)
                .then_some(record.max_rss_pages.saturating_mul(PAGE_BYTES)),
        });
        self.hold(event, record, now_ns);
    }

    /// Takes a child's new program, or one that it could not run.
    pub fn execed(&mut self, record: &ExecRecord, clock: Clock, now_ns: u64) {
        let life = &record.life;
        let args = (life.bits & bits::ARGS != 0).then(|| argv(&record.args, record.args_bytes));
        let cut = args.as_ref().is_some_and(|(_, cut)| *cut);
        let failed = life.kind == FollowUpKind::ExecFailed as u32;
        let errno = u32::try_from(life.exit_code).ok().filter(|_| failed);
        let event = Event::Exec(Exec {
            fork_id: shown_id(life),
            ts: clock.at(life.at_ns),
            mono_ns: life.at_ns,
            pid: life.born.child.tgid,
            after_ns: life.at_ns.saturating_sub(life.born.child.start_ns),
            exe: (life.bits & bits::EXE != 0).then(|| text(before_nul(&record.exe))),
            exe_truncated: (life.bits & bits::EXE_CUT != 0).then_some(true),
            argv: args.map(|(words, _)| words),
            argv_truncated: cut.then_some(true),
            errno,
            errno_name: errno.map(errno_name),
            orphan: None,
        });
        self.hold(event, life, now_ns);
    }

    /// The fork of `child` was shown, or left out.
    pub fn fork(&mut self, child: &TaskIds, shown: bool) {
        self.forks.insert(key(child), shown);
        self.fork_ages.push_back(key(child));
    }

    /// What may be shown by `now_ns`, each with its time; a vfork whose cause has not come by then goes
    /// without.
    pub fn release(&mut self, clock: Clock, now_ns: u64) -> Vec<(u64, Event)> {
        let old = |since_ns: u64| now_ns.saturating_sub(since_ns) >= HOLD_NS;
        while overdue(&self.return_ages, old) {
            if let Some((since_ns, key)) = self.return_ages.pop_front()
                && let Some(back) = self.returns.remove(&key)
            {
                self.hold(vfork_done(&back, None, clock), &back, since_ns);
            }
        }
        while overdue(&self.cause_ages, old) {
            self.cause_ages.pop_front().map(|(_, key)| self.causes.remove(&key));
        }
        let surplus = self.held.len().saturating_sub(MOST);
        let Self { held, forks, strict, forgotten_ns, .. } = self;
        let mut ready = Vec::new();
        let mut waiting = VecDeque::new();
        for (place, one) in held.drain(..).enumerate() {
            let own = (one.own_fork).then_some(&true);
            match own.or(forks.get(&one.key)) {
                Some(false) => {}
                Some(true) => ready.push((one.at_ns, one.event)),
                None if *strict && old(one.since_ns) && one.key.1 + HOLD_NS > one.at_ns => {}
                // Its fork may have been shown so long ago that it is forgotten.
                None if place < surplus || one.key.1 <= *forgotten_ns => {
                    ready.push((one.at_ns, one.event));
                }
                // A fork that was not shown by now is lost.
                None if old(one.since_ns) => ready.push((one.at_ns, orphan(one.event))),
                None => waiting.push_back(one),
            }
        }
        self.held = waiting;
        while self.fork_ages.len() > MOST {
            if let Some(key) = self.fork_ages.pop_front() {
                self.forks.remove(&key);
                self.forgotten_ns = self.forgotten_ns.max(key.1);
            }
        }
        ready
    }

    fn hold(&mut self, event: Event, record: &FollowUpRecord, since_ns: u64) {
        let key = key(&record.born.child);
        let own_fork = is_own(record);
        self.held.push_back(Held { since_ns, key, at_ns: record.at_ns, own_fork, event });
    }
}

/// Whether the oldest has waited long enough, or there are too many.
fn overdue(ages: &VecDeque<(u64, Key)>, old: impl Fn(u64) -> bool) -> bool {
    ages.len() > MOST || ages.front().is_some_and(|(since_ns, _)| old(*since_ns))
}

/// `event`, marked as one whose fork is not shown.
fn orphan(mut event: Event) -> Event {
    match &mut event {
        Event::VforkDone(done) => done.orphan = Some(true),
        Event::Exec(exec) => exec.orphan = Some(true),
        Event::Exit(exit) => exit.orphan = Some(true),
        _ => {}
    }
    event
}

const fn key(child: &TaskIds) -> Key {
    (child.tid, child.start_ns)
}

/// As [`assemble`](crate::assemble) makes it.
fn id(record: &FollowUpRecord) -> String {
    id_of(record.born.parent_tid, record.born.began_ns)
}

/// Whether the fork of a child is this tracer's own: the child is the traced command.
const fn is_own(record: &FollowUpRecord) -> bool {
    record.born.began_ns == 0
}

/// The id of a fork, if that fork is shown.
fn shown_id(record: &FollowUpRecord) -> Option<String> {
    (!is_own(record)).then(|| id(record))
}

fn vfork_done(back: &FollowUpRecord, cause: Option<Cause>, clock: Clock) -> Event {
    let before = cause.filter(|(at_ns, _)| *at_ns <= back.at_ns);
    // A fatal signal ends the wait too. The kernel releases the parent a moment before the
    // tracepoints of exec and, up to 6.15 or so, of the end; so only a parent that is about to die
    // was released by something else.
    let dying = back.bits & bits::DYING != 0;
    let killed = (dying && before.is_none()).then_some(ReleasedBy::Killed);
    Event::VforkDone(VforkDone {
        fork_id: id(back),
        ts: clock.at(back.at_ns),
        mono_ns: back.at_ns,
        pid: back.born.child.tgid,
        wait_ns: back.at_ns.saturating_sub(back.born.woken_ns),
        held_ns: back.at_ns.checked_sub(back.born.began_ns),
        released_by: killed.or(cause.map(|(_, by)| by)),
        orphan: None,
    })
}

fn end(record: &FollowUpRecord) -> ReleasedBy {
    if signal(record).is_some() { ReleasedBy::Killed } else { ReleasedBy::Exit }
}

/// The signal that ended it.
fn signal(record: &FollowUpRecord) -> Option<u32> {
    Some(low_byte(record.exit_code) & 0x7f).filter(|signal| *signal != 0)
}

fn low_byte(word: u64) -> u32 {
    u32::from(word.to_le_bytes().first().copied().unwrap_or_default())
}

/// A program's arguments, of which `kept` holds those that there is room for and which have `bytes` bytes
/// in all; and whether they are cut.
pub(super) fn argv(kept: &[u8], bytes: u64) -> (Vec<String>, bool) {
    let whole = kept.get(..usize::try_from(bytes).unwrap_or(usize::MAX));
    (words(whole.unwrap_or(kept)), whole.is_none())
}

/// Arguments, each closed by NUL; the last one is cut where the NUL is missing.
fn words(args: &[u8]) -> Vec<String> {
    if args.is_empty() {
        return Vec::new();
    }
    let args = args.strip_suffix(&[0]).unwrap_or(args);
    args.split(|byte| *byte == 0).map(text).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const SEC: u64 = 1_000_000_000;

    fn clock() -> Clock {
        Clock::new(Timestamp::from_second(1_000).unwrap(), 0)
    }

    fn record(kind: FollowUpKind, tid: u32, at_ns: u64) -> FollowUpRecord {
        let mut record = ExecRecord::zeroed().life;
        record.kind = kind as u32;
        record.at_ns = at_ns;
        record.born.child = TaskIds { tgid: tid, tid, start_ns: 100 };
        record.born.parent_tid = 7;
        record.born.began_ns = 90;
        record.born.woken_ns = 110;
        record.born.state = state::VFORK;
        record
    }

    fn released(follower: &mut Follower, now_ns: u64) -> Vec<(u64, Option<ReleasedBy>)> {
        let done = follower.release(clock(), now_ns).into_iter().map(|(_, event)| match event {
            Event::VforkDone(done) => {
                assert_eq!(done.fork_id, "7-90");
                (done.wait_ns, done.released_by)
            }
            other => panic!("{other:?}"),
        });
        done.collect()
    }

    /// All orders of a vfork's records and its fork being shown give one event.
    #[test]
    fn a_return_and_its_cause_meet_in_any_order() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut follower = Follower::default();
            for step in order {
                match step {
                    0 => follower.push(&record(FollowUpKind::VforkReturned, 5, 400), clock(), 500),
                    1 => follower.push(&record(FollowUpKind::Execed, 5, 450), clock(), 500),
                    _ => follower.fork(&record(FollowUpKind::Ended, 5, 0).born.child, true),
                }
            }
            assert_eq!(released(&mut follower, 600), [(290, Some(ReleasedBy::Exec))]);
            assert_eq!(released(&mut follower, u64::MAX), []);
        }
    }

    #[test]
    fn what_let_the_parent_go_is_told_apart() {
        let case = |exit_code: Option<u64>, at_ns: u64, dying: bool| {
            let mut follower = Follower::default();
            let mut back = record(FollowUpKind::VforkReturned, 5, 400);
            back.bits = if dying { bits::DYING } else { 0 };
            follower.push(&back, clock(), 0);
            if let Some(exit_code) = exit_code {
                let mut ended = record(FollowUpKind::Ended, 5, at_ns);
                ended.exit_code = exit_code;
                follower.push(&ended, clock(), 0);
            }
            let done = released(&mut follower, HOLD_NS + 100);
            assert_eq!(done.len(), 1);
            done[0].1
        };
        assert_eq!(case(Some(0), 390, false), Some(ReleasedBy::Exit));
        assert_eq!(case(Some(3 << 8), 410, false), Some(ReleasedBy::Exit));
        assert_eq!(case(Some(9), 390, false), Some(ReleasedBy::Killed));
        assert_eq!(case(Some(0x80 | 11), 390, false), Some(ReleasedBy::Killed));
        assert_eq!(case(None, 0, true), Some(ReleasedBy::Killed));
        assert_eq!(case(Some(0), 900, true), Some(ReleasedBy::Killed), "the child ends later");
        assert_eq!(case(Some(0), 390, true), Some(ReleasedBy::Exit));
        assert_eq!(case(None, 0, false), None, "not seen");
    }

    #[test]
    fn only_the_first_exec_lets_the_parent_go() {
        let mut follower = Follower::default();
        let mut later = record(FollowUpKind::Execed, 5, 900);
        later.born.state |= state::EXECED;
        follower.push(&later, clock(), 0);
        follower.push(&record(FollowUpKind::VforkReturned, 5, 400), clock(), 0);
        assert_eq!(released(&mut follower, 1), []);
        assert_eq!(released(&mut follower, HOLD_NS + 100), [(290, None)]);
    }

    #[test]
    fn an_event_waits_for_its_fork_but_not_for_ever() {
        let ended = |tid| record(FollowUpKind::Ended, tid, 300);
        let mut follower = Follower::default();
        let pids = |events: Vec<(u64, Event)>| -> Vec<u32> {
            let pid = |event| match event {
                Event::Exit(exit) => exit.pid,
                other => panic!("{other:?}"),
            };
            events.into_iter().map(|(_, event)| pid(event)).collect()
        };
        for tid in [1, 2, 3] {
            follower.exited(&ended(tid), clock(), SEC);
        }
        assert!(pids(follower.release(clock(), SEC)).is_empty());
        follower.fork(&ended(2).born.child, true);
        follower.fork(&ended(3).born.child, false);
        assert_eq!(pids(follower.release(clock(), SEC + 1)), [2], "3 is left out as its fork is");
        assert_eq!(pids(follower.release(clock(), SEC + HOLD_NS)), [1]);
        // A child that lives long.
        follower.exited(&ended(2), clock(), 9 * SEC);
        assert_eq!(pids(follower.release(clock(), 9 * SEC)), [2]);
    }

    #[test]
    fn an_event_whose_fork_never_came_is_marked_unless_its_fork_may_be_forgotten() {
        let mut follower = Follower::default();
        let marks = |events: Vec<(u64, Event)>| -> Vec<Option<bool>> {
            let mark = |event| match event {
                Event::Exit(exit) => exit.orphan,
                other => panic!("{other:?}"),
            };
            events.into_iter().map(|(_, event)| mark(event)).collect()
        };
        let ended = |tid| record(FollowUpKind::Ended, tid, 300);
        follower.fork(&ended(1).born.child, true);
        follower.exited(&ended(1), clock(), SEC);
        follower.exited(&ended(2), clock(), SEC);
        assert_eq!(marks(follower.release(clock(), SEC)), [None]);
        assert_eq!(marks(follower.release(clock(), SEC + HOLD_NS)), [Some(true)]);
        for tid in 0..u32::try_from(MOST).unwrap() {
            follower.fork(&TaskIds { tgid: tid, tid, start_ns: 200 }, true);
        }
        assert_eq!(marks(follower.release(clock(), 9 * SEC)), []);
        for tid in [1, 2] {
            follower.exited(&ended(tid), clock(), 9 * SEC);
        }
        assert_eq!(marks(follower.release(clock(), 9 * SEC)), [None, None]);
    }

    #[test]
    fn what_is_held_is_bounded_and_nothing_is_dropped() {
        let mut follower = Follower::default();
        let many = u32::try_from(MOST).unwrap() + 500;
        for tid in 0..many {
            follower.push(&record(FollowUpKind::VforkReturned, tid, 300), clock(), 0);
            follower.push(&record(FollowUpKind::Ended, tid + many, 300), clock(), 0);
            follower.fork(&TaskIds { tgid: tid, tid: tid + many, start_ns: 50 }, true);
            follower.exited(&record(FollowUpKind::Ended, tid, 300), clock(), 0);
        }
        let mut out = follower.release(clock(), 0).len();
        assert_eq!(out, 1000, "500 vforks and as many exits");
        assert_eq!(follower.returns.len(), MOST);
        assert_eq!(follower.causes.len(), MOST);
        assert!(follower.forks.len() <= MOST);
        out += follower.release(clock(), u64::MAX).len();
        assert_eq!(out, 2 * many as usize);
    }

    #[test]
    fn arguments_are_split_and_marked_when_cut() {
        let exec = |args: &[u8], args_bytes: u64, more: u32| {
            let mut record = ExecRecord::zeroed();
            record.life.bits = more | bits::EXE;
            record.args_bytes = args_bytes;
            record.args[..args.len()].copy_from_slice(args);
            record.exe[..7].copy_from_slice(b"/bin/ls");
            let mut follower = Follower::default();
            follower.execed(&record, clock(), 0);
            match follower.release(clock(), u64::MAX).remove(0).1 {
                Event::Exec(exec) => (exec.argv, exec.argv_truncated, exec.exe),
                other => panic!("{other:?}"),
            }
        };
        let argv = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        let exe = Some("/bin/ls".to_owned());
        assert_eq!(
            exec(b"ls\0\0-l\0", 7, bits::ARGS),
            (argv(&["ls", "", "-l"]), None, exe.clone())
        );
        assert_eq!(exec(b"", 0, bits::ARGS), (argv(&[]), None, exe.clone()));
        assert_eq!(exec(b"\0", 1, bits::ARGS), (argv(&[""]), None, exe.clone()));
        assert_eq!(exec(b"", 40, 0), (None, None, exe.clone()));
        let long = [b'a'; 1024];
        let cut = exec(&long, 5000, bits::ARGS);
        assert_eq!(cut, (argv(&[&"a".repeat(1024)]), Some(true), exe));
    }
}
