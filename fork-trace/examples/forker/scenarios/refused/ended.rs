//! Callers that are ended while they fork. They never see the refusal, so their keeper writes it down.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{group::keeper, why::Refusal};
use crate::{
    attempt::{helper, in_child},
    call::{Call, Note, Outcome},
    host::cgroup::Hierarchy,
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
const GROUP_BYTES: &str = "8388608";
/// Bytes that make the caller the largest process there.
const LARGE_BYTES: usize = 4 << 20;
/// More children than fit into it.
const CROWD: usize = 4_000;

/// Where a worker leaves its attempts for its keeper: memory that both share and that is there already,
/// because a page that the worker touches first may never come. Of each the start, the end and what the
/// call returned; of the last one the start only.
#[derive(Clone, Copy)]
struct Tries(&'static [[AtomicU64; 3]; CROWD]);

impl Tries {
    fn new() -> Result<Self, Errno> {
        let at = memory::share(size_of::<[[AtomicU64; 3]; CROWD]>())?;
        // SAFETY: the memory is page-aligned zeros, large enough and never unmapped; atomics may be
        // shared.
        let tries = Self(unsafe { &*at.cast() });
        for word in tries.0.as_flattened() {
            word.store(0, Ordering::Relaxed);
        }
        Ok(tries)
    }

    /// Makes attempts until one does not come back, or there is no room for more.
    fn make(self, make: impl Fn() -> i32) -> Result<(), Errno> {
        for [start, end, ret] in self.0 {
            start.store(now_ns(), Ordering::Release);
            let made = make();
            ret.store(i64::from(made).cast_unsigned(), Ordering::Relaxed);
            end.store(now_ns(), Ordering::Release);
            if made < 0 {
                return Err(-made);
            }
        }
        Err(libc::ERANGE)
    }

    /// Writes down what the worker `tid`, which has ended, has made: `call` succeeded but for the last
    /// time, of which nobody has seen the end.
    fn write(self, call: &Call, why: Refusal, tid: i32) {
        for [start, end, ret] in self.0 {
            let start_ns = start.load(Ordering::Acquire);
            let end_ns = end.load(Ordering::Acquire);
            let ret = i32::try_from(ret.load(Ordering::Relaxed)).unwrap_or_default();
            if end_ns == 0 {
                let Refusal(errno, ..) = why;
                let times = Times { start_ns, end_ns: now_ns() };
                let call = why.of(*call).note(Note::NeverReturned);
                journal::write_with_host_tid(&call, times, -errno, tid);
                return;
            }
            journal::write_with_host_tid(call, Times { start_ns, end_ns }, ret, tid);
        }
    }
}

/// Makes a worker that makes attempts until the signal ends it in one of them, and waits for it.
fn ended(
    call: &Call,
    why: Refusal,
    signal: i32,
    body: impl FnOnce(Tries) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let tries = Tries::new()?;
    let helper = Call::libc_fork().note(Note::Helper);
    let tid = in_child(&helper, true, libc_fork, || body(tries)).tid()?;
    match sys::wait(tid)? {
        End::Signal(by) if by == signal => {
            tries.write(call, why, tid);
            Ok(())
        }
        End::Exit(errno @ 1..) => Err(errno),
        End::Exit(_) | End::Signal(_) => Err(libc::ECHILD),
    }
}

/// A timer ends the caller while its memory is copied.
pub(crate) fn while_copying() -> Outcome {
    let call = Call::clone(flag::SIGCHLD);
    let why = Refusal(libc::ENOMEM, "signal-pending", "");
    helper(|| {
        ended(&call, why, libc::SIGALRM, |tries| {
            _ = memory::scatter(MAPPINGS)?;
            sys::alarm_ms(LIFE_MS)?;
            tries.make(|| fork::clone(call.flags))
        })
    })
}

/// The out-of-memory killer ends the caller, because its group has no memory left for one more child.
pub(crate) fn by_oom_killer() -> Outcome {
    let place = Hierarchy::of("memory")?;
    let call = Call::clone(flag::VM | flag::VFORK | flag::SIGCHLD);
    // Or `EINTR`: the kernel may give a caller its memory that has been killed for it.
    let why = Refusal(libc::ENOMEM, "oom-kill", "");
    keeper(|| {
        let group = place.group()?;
        let max = if place.v1 { "memory.limit_in_bytes" } else { "memory.max" };
        group.set(max, GROUP_BYTES)?;
        ended(&call, why, libc::SIGKILL, |tries| {
            // Nobody else there is as large: the children share its memory until they have ended, and
            // only one that is being made takes more.
            fs::write("/proc/self/oom_score_adj", "1000").map_err(sys::number)?;
            group.enter()?;
            memory::touch(LARGE_BYTES)?;
            tries.make(|| fork::clone(call.flags))
        })
    })
}
