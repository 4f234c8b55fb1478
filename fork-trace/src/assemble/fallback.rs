//! Ties an attempt that was refused to the one that the C library made instead: two calls, one spawn.
//!
//! glibc's `__clone_internal` calls `clone3` first and, only where that is refused with `ENOSYS`, then
//! `clone` with the same flags. Its `posix_spawn` does so for `EINVAL` too, and leaves out
//! `CLONE_CLEAR_SIGHAND`. So the first is no failure of the program, whatever becomes of the second.
//!
//! The second call of a thread may be released long after the first, because it waits for its child's
//! start. So a refusal that may have such a successor is held for [`HOLD_NS`], and never more than
//! [`MOST`] are held at once.

use fork_trace_common::{
    flags::{CLONE_CLEAR_SIGHAND, CSIGNAL},
    record::{ForkRecord, Syscall, bits},
};
use nix::errno::Errno;

use crate::{
    assemble::{fork, join, joined::Joined, times::began_ns},
    event::fork::Fork,
};

/// How long a refusal waits for the call that was made instead: for that call, and then as long as
/// that one may wait for its child's start.
pub const HOLD_NS: u64 = NEXT_NS + join::HOLD_NS;
/// How many wait at once.
pub const MOST: usize = 1024;

/// A library makes the next call at once; by then another task may have had the CPU for a while.
const NEXT_NS: u64 = 500_000_000;

/// What an attempt is to another one of the same thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It was refused, and the attempt with this id was made instead.
    FellBackTo(String),
    /// It was made because the attempt with this id was refused.
    FallbackOf(String),
}

impl Tie {
    /// Tells it in `fork`.
    pub fn tell(self, fork: &mut Fork) {
        match self {
            Self::FellBackTo(id) => fork.fell_back_to = Some(id),
            Self::FallbackOf(id) => fork.fallback = Some(id),
        }
    }
}

/// An attempt and its tie to another one.
pub type Tied = (Joined, Option<Tie>);

/// Refusals that may have a successor.
#[derive(Default)]
pub struct Fallbacks {
    /// With the time since when they wait, oldest first.
    waiting: Vec<(u64, Joined)>,
}

impl Fallbacks {
    /// Takes the attempts that are complete by `now_ns` (`CLOCK_MONOTONIC`), earliest first, and
    /// returns those that are not held: with those of earlier calls that were held till now, earliest
    /// first. With `all` nothing is held any longer.
    pub fn tie(&mut self, attempts: Vec<Joined>, now_ns: u64, all: bool) -> Vec<Tied> {
        let mut ready = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            if let Some(place) = self.first_of(&attempt.record) {
                let (_, first) = self.waiting.remove(place);
                let tie = Tie::FallbackOf(fork::id(&first.record));
                ready.push((first, Some(Tie::FellBackTo(fork::id(&attempt.record)))));
                ready.push((attempt, Some(tie)));
            } else if may_fall_back(&attempt.record) {
                self.waiting.push((now_ns, attempt));
            } else {
                ready.push((attempt, None));
            }
        }
        let over = self.waiting.len().saturating_sub(MOST);
        let mut place = 0;
        let gone = self.waiting.extract_if(.., |(since, _)| {
            place += 1;
            all || place <= over || now_ns.saturating_sub(*since) >= HOLD_NS
        });
        ready.extend(gone.map(|(_, attempt)| (attempt, None)));
        ready.sort_by_key(|(attempt, _)| began_ns(&attempt.record));
        ready
    }

    /// Where the refusal waits that `record` was made for: the last one of its thread before it.
    fn first_of(&self, record: &ForkRecord) -> Option<usize> {
        if record.syscall != Syscall::Clone as u32 {
            return None;
        }
        self.waiting.iter().rposition(|(_, first)| is_instead(&first.record, record))
    }
}

fn has_errno(record: &ForkRecord, errno: Errno) -> bool {
    record.ret == -i64::from(errno as i32)
}

/// Whether a C library may make another call after this refusal.
fn may_fall_back(record: &ForkRecord) -> bool {
    let clear = record.has(bits::FLAGS) && record.clone_flags & CLONE_CLEAR_SIGHAND != 0;
    record.syscall == Syscall::Clone3 as u32
        && (has_errno(record, Errno::ENOSYS) || (clear && has_errno(record, Errno::EINVAL)))
}

/// Whether `record`, a `clone`, asks the same as the `clone3` in `first`, by the same thread and soon
/// after.
fn is_instead(first: &ForkRecord, record: &ForkRecord) -> bool {
    let known = bits::FLAGS | bits::EXIT_SIGNAL;
    let after_ns = began_ns(record).checked_sub(began_ns(first));
    first.parent.tid == record.parent.tid
        && first.parent.start_ns == record.parent.start_ns
        && first.bits & record.bits & known == known
        && first.clone_flags & !CLONE_CLEAR_SIGHAND == record.clone_flags & !CSIGNAL
        && first.exit_signal == record.exit_signal
        && after_ns.is_some_and(|after| after < NEXT_NS)
}

#[cfg(test)]
mod tests {
    use fork_trace_common::{record::TaskIds, stage::Mark};

    use super::*;

    fn attempt(syscall: Syscall, at_ns: u64, ret: i64, flags: u64) -> Joined {
        let mut record = ForkRecord::zeroed();
        record.bits = bits::FLAGS | bits::EXIT_SIGNAL;
        record.syscall = syscall as u32;
        record.start_ns = at_ns;
        record.marks[Mark::SysExit.place()] = at_ns;
        record.ret = ret;
        record.parent = TaskIds { tgid: 7, tid: 8, start_ns: 1 };
        record.clone_flags = flags;
        record.exit_signal = flags & CSIGNAL;
        Joined::alone(Box::new(record))
    }

    fn refused(at_ns: u64) -> Joined {
        let mut refused = attempt(Syscall::Clone3, at_ns, -38, 0x4100);
        refused.record.exit_signal = 17;
        refused
    }

    fn instead(at_ns: u64) -> Joined {
        attempt(Syscall::Clone, at_ns, 70, 0x4111)
    }

    fn seen(tied: &[Tied]) -> Vec<(u64, Option<Tie>)> {
        tied.iter().map(|(attempt, tie)| (began_ns(&attempt.record), tie.clone())).collect()
    }

    fn pair(first: u64, second: u64) -> [(u64, Option<Tie>); 2] {
        let id = |at| format!("8-{at}");
        [(first, Some(Tie::FellBackTo(id(second)))), (second, Some(Tie::FallbackOf(id(first))))]
    }

    #[test]
    fn a_refused_clone3_and_the_clone_instead_are_one_spawn() {
        let mut fallbacks = Fallbacks::default();
        assert!(fallbacks.tie(vec![refused(10)], 100, false).is_empty(), "it may come yet");
        let tied = fallbacks.tie(vec![instead(20)], 200, false);
        assert_eq!(seen(&tied), pair(10, 20));
        assert_eq!(seen(&fallbacks.tie(vec![instead(30)], 300, false)), [(30, None)]);
    }

    #[test]
    fn the_second_may_be_released_after_the_next_refusal() {
        let mut fallbacks = Fallbacks::default();
        assert!(fallbacks.tie(vec![refused(10), refused(30)], 100, false).is_empty());
        assert_eq!(seen(&fallbacks.tie(vec![instead(20)], 200, false)), pair(10, 20));
        assert_eq!(seen(&fallbacks.tie(vec![instead(40)], 300, false)), pair(30, 40));
    }

    #[test]
    fn what_nobody_tries_again_is_a_failure_like_others() {
        let mut fallbacks = Fallbacks::default();
        let mut other = instead(20);
        other.record.clone_flags = 17;
        assert_eq!(seen(&fallbacks.tie(vec![refused(10), other], 100, false)), [(20, None)]);
        let mut thread = instead(30);
        thread.record.parent.tid = 9;
        assert_eq!(seen(&fallbacks.tie(vec![thread], 100, false)), [(30, None)]);
        let late = 100 + HOLD_NS;
        assert_eq!(seen(&fallbacks.tie(Vec::new(), late, false)), [(10, None)]);
        let eperm = attempt(Syscall::Clone3, 50, -1, 0x4100);
        assert_eq!(seen(&fallbacks.tie(vec![eperm], late, false)), [(50, None)], "glibc stops");
        assert!(fallbacks.tie(vec![refused(60)], late, false).is_empty());
        assert_eq!(seen(&fallbacks.tie(Vec::new(), late, true)), [(60, None)], "the end");
    }

    #[test]
    fn posix_spawn_falls_back_on_einval_too_without_one_flag() {
        let mut fallbacks = Fallbacks::default();
        let mut first = attempt(Syscall::Clone3, 10, -22, 0x4100 | CLONE_CLEAR_SIGHAND);
        first.record.exit_signal = 17;
        assert_eq!(seen(&fallbacks.tie(vec![first, instead(20)], 100, false)), pair(10, 20));
    }

    #[test]
    fn only_so_many_wait() {
        let mut fallbacks = Fallbacks::default();
        let many = (0..MOST as u64 + 3).map(|at| refused(10 + at)).collect();
        let ready = fallbacks.tie(many, 100, false);
        assert_eq!(seen(&ready), [(10, None), (11, None), (12, None)]);
    }
}
