//! Callers that are ended while they fork: they never see the refusal, so their keeper writes it down.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{group::keeper, why::Refusal};
use crate::{
    attempt::{After, helper, in_child},
    call::{Call, Note, Outcome, Skip},
    host::{self, cgroup::Hierarchy},
    journal,
    sys::{
        self, End, Errno, Times, flag,
        fork::{self, libc_fork},
        memory, now_ns,
    },
};

/// Mappings of a parent whose fork takes far longer than [`LIFE_MS`].
const MAPPINGS: usize = 30_000;
/// How long the parent lives once it is ready to fork.
const LIFE_MS: i64 = 4;

/// Bytes that the group may have in which the killer chooses somebody.
const GROUP_BYTES: &str = "16777216";
/// Bytes that make the caller the largest process there.
const LARGE_BYTES: usize = 4 << 20;
/// More children than fit into it.
const CROWD: usize = 4_000;

/// Where a worker leaves the time just before its last attempt, for its keeper.
struct LastTry(&'static AtomicU64);

impl LastTry {
    fn new() -> Result<Self, Errno> {
        let at = memory::share(size_of::<AtomicU64>())?;
        // SAFETY: the memory is page-aligned zeros and never unmapped; atomics may be shared.
        Ok(Self(unsafe { &*at.cast::<AtomicU64>() }))
    }

    fn begins(&self) {
        self.0.store(now_ns(), Ordering::Release);
    }

    /// Writes down that `call` of the worker `tid`, which has ended, was refused.
    fn write(&self, call: &Call, tid: i32) {
        let times = Times { start_ns: self.0.load(Ordering::Acquire), end_ns: now_ns() };
        journal::write_with_host_tid(call, times, -call.expected, tid);
    }
}

/// Makes a worker that is not expected to come back, and waits for it.
fn ended(
    call: &Call,
    last: &LastTry,
    signal: i32,
    body: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let made: After = in_child(&Call::libc_fork().note(Note::Helper), true, libc_fork, body);
    let tid = made.tid()?;
    match sys::wait(tid)? {
        End::Signal(by) if by == signal => {
            last.write(call, tid);
            Ok(())
        }
        End::Exit(errno @ 1..) => Err(errno),
        End::Exit(_) | End::Signal(_) => Err(libc::ECHILD),
    }
}

/// A timer ends the caller while its memory is copied.
pub(crate) fn while_copying() -> Outcome {
    let call = Refusal(libc::ENOMEM, "signal-pending", "").of(Call::clone(flag::SIGCHLD));
    helper(|| {
        let last = LastTry::new()?;
        ended(&call, &last, libc::SIGALRM, || {
            memory::scatter(MAPPINGS)?;
            last.begins();
            sys::alarm_ms(LIFE_MS)?;
            loop {
                // One is enough on any machine that is not much faster than today's.
                sys::reap(fork::clone(flag::SIGCHLD));
                last.begins();
            }
        })
    })
}

/// The out-of-memory killer ends the caller, because its group has no memory left for one more child.
pub(crate) fn by_oom_killer() -> Outcome {
    let place = Hierarchy::of("memory")?;
    // KERNEL: mm/memcontrol.c `try_charge`: up to 5.16 a dying caller gets its memory all the same, and
    // is refused at the end.
    if host::release() < (5, 17) {
        return Err(Skip("before Linux 5.17 the caller gets its memory first".to_owned()));
    }
    let call = Refusal(libc::ENOMEM, "oom-kill", "").of(Call::clone(flag::SIGCHLD));
    keeper(|| {
        let group = place.group()?;
        let max = if place.v1 { "memory.limit_in_bytes" } else { "memory.max" };
        group.set(max, GROUP_BYTES)?;
        let last = LastTry::new()?;
        ended(&call, &last, libc::SIGKILL, || {
            group.enter()?;
            // Nobody else there is as large, and nobody on the host is chosen in its place.
            fs::write("/proc/self/oom_score_adj", "1000").map_err(sys::number)?;
            memory::touch(LARGE_BYTES)?;
            for _ in 0..CROWD {
                last.begins();
                // Zombies keep their kernel memory.
                if fork::clone(flag::SIGCHLD) < 0 {
                    break;
                }
            }
            Err(libc::ERANGE)
        })
    })
}
