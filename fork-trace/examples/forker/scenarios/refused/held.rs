//! Children that are held until a limit on their number is reached.

use std::fs;

use super::why::Refusal;
use crate::{
    attempt::{After, attempt},
    call::Call,
    sys::{self, Errno, flag, fork, io_uring::Workers, script::Leash},
};

/// How many processes the limits allow, the one that forks included.
pub(super) const LIMIT: u32 = 3;

/// The longest life of a child held for a limit.
const HOLD_MS: u32 = 20_000;

/// Keeps a limit full for a while after the refusal, so that it can be seen who fills it.
pub(super) fn stay_full() {
    sys::sleep_ms(400);
}

/// Forks children that stay until one is refused, then ends them. All but the last should succeed.
pub(super) fn fork_to_the_limit(cause: &'static str) -> Result<(), Errno> {
    let leash = Leash::new()?;
    let script = leash.script(HOLD_MS);
    let mut held = Vec::new();
    for alive in 1..=LIMIT {
        let call = Call::clone(flag::SIGCHLD);
        let last = alive == LIMIT;
        let call = if last { refused(cause).of(call) } else { call };
        match attempt(&call, || fork::clone_scripted(flag::SIGCHLD, &script)) {
            After::Parent(tid) => held.push(tid),
            After::Refused(_) | After::Child => break,
        }
    }
    stay_full();
    for tid in held {
        sys::kill(tid, libc::SIGKILL)?;
        sys::wait(tid)?;
    }
    Ok(())
}

/// Forks children that end at once, and waits for none of them until one is refused. All but the last
/// should succeed.
pub(super) fn zombies_to_the_limit(cause: &'static str) -> Result<(), Errno> {
    let mut zombies = Vec::new();
    for made in 1..=LIMIT {
        let call = Call::clone(flag::SIGCHLD);
        let call = if made == LIMIT { refused(cause).of(call) } else { call };
        match attempt(&call, || fork::clone(flag::SIGCHLD)) {
            After::Child => sys::exit_now(0),
            After::Refused(_) => break,
            After::Parent(tid) => {
                sys::await_zombie(tid)?;
                zombies.push(tid);
            }
        }
    }
    stay_full();
    zombies.into_iter().for_each(sys::reap);
    Ok(())
}

/// Makes the kernel start workers until a limit is reached, and forks once, which should be refused.
pub(super) fn workers_to_the_limit(cause: &'static str) -> Result<(), Errno> {
    // No more than fit: the kernel would try to make others, and be refused itself.
    let workers = Workers::start(LIMIT - 1)?;
    // The kernel starts them one after the other.
    while tasks() < LIMIT as usize {
        sys::sleep_ms(1);
    }
    attempt(&refused(cause).of(Call::clone(flag::SIGCHLD)), || fork::clone(flag::SIGCHLD));
    stay_full();
    drop(workers);
    Ok(())
}

const fn refused(cause: &'static str) -> Refusal {
    Refusal(libc::EAGAIN, cause, "")
}

/// How many tasks this process has.
fn tasks() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
