//! Children that are held until a limit on their number is reached.

use super::why::Refusal;
use crate::{
    attempt::{After, attempt},
    call::Call,
    sys::{self, Errno, flag, fork, script::Leash},
};

/// How many processes the limits allow, the one that forks included.
pub(super) const LIMIT: u32 = 3;

/// The longest life of a child held for a limit.
const HOLD_MS: u32 = 20_000;

/// Forks children that stay until one is refused, then ends them. All but the last should succeed.
pub(super) fn fork_to_the_limit(cause: &'static str) -> Result<(), Errno> {
    let leash = Leash::new()?;
    let script = leash.script(HOLD_MS);
    let mut held = Vec::new();
    for alive in 1..=LIMIT {
        let call = Call::clone(flag::SIGCHLD);
        let last = alive == LIMIT;
        let call = if last { Refusal(libc::EAGAIN, cause, "").of(call) } else { call };
        match attempt(&call, || fork::clone_scripted(flag::SIGCHLD, &script)) {
            After::Parent(tid) => held.push(tid),
            After::Refused(_) | After::Child => break,
        }
    }
    for tid in held {
        sys::kill(tid, libc::SIGKILL)?;
        sys::wait(tid)?;
    }
    Ok(())
}
