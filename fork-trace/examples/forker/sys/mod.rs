//! The system calls of forker, behind safe functions where that can be.
//!
//! A function here returns plain numbers, and an error is a bare errno: it may have to fit a
//! child's exit status. This room knows nothing of attempts, scenarios or output.

pub(crate) mod clone_args;
mod errno;
pub(crate) mod flag;
pub(crate) mod fork;
#[cfg(target_arch = "x86_64")]
pub(crate) mod int80;
pub(crate) mod io_uring;
pub(crate) mod machine;
pub(crate) mod memory;
mod process;
pub(crate) mod ptrace;
mod rights;
pub(crate) mod script;
mod signal;
mod time;
pub(crate) mod trouble;

pub(crate) use self::{
    errno::{Errno, number},
    process::{
        End, adopt_orphans, await_zombie, close, die_with, exit_now, kill, lead_session, reap,
        reap_all, tgid, tid, try_wait, wait,
    },
    rights::{become_user, chroot, is_root, limit, refuse, run_by_deadline, soft_limit, unshare},
    signal::{alarm_ms, handle, stop_on_signals, stop_signal},
    time::{Times, now_ns, sleep_ms, timed},
};
