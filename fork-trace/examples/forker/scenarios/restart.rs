//! Forks under a flood of signals: the kernel restarts some of the calls.

use std::ffi::c_int;

use crate::{
    attempt::{attempt, finish, in_child},
    call::{Call, Note, Outcome, Skip, judge},
    sys::{
        self, flag,
        fork::{self, libc_fork},
    },
};

/// Forks made under a flood of signals.
const RESTART_FORKS: usize = 300;

extern "C" fn ignore(_signal: c_int) {}

pub(crate) fn restart() -> Outcome {
    let handler = ignore as *const () as libc::sighandler_t;
    // SAFETY: `ignore` is a plain handler and does nothing.
    let old = unsafe { sys::handle(libc::SIGUSR1, handler, libc::SA_RESTART) };
    let _old = old.map_err(|errno| Skip::step("handle SIGUSR1", errno))?;
    let child = in_child(&Call::libc_fork().note(Note::Helper), true, libc_fork, || {
        for _ in 0..RESTART_FORKS {
            let made = attempt(&Call::clone(flag::SIGCHLD), || fork::clone(flag::SIGCHLD));
            sys::wait(made.tid()?)?;
        }
        Ok(())
    });
    match child.tid() {
        Ok(tid) => flood(tid),
        Err(_) => finish(child),
    }
}

/// Signals a child until it has ended. The pauses between signals differ, so that some come just
/// when a fork has begun, and the child gets on with its work all the same.
fn flood(child: c_int) -> Outcome {
    for pause_us in (0..32).cycle() {
        match sys::try_wait(child, libc::WNOHANG) {
            Ok(None) => {}
            Ok(Some(end)) => return judge(end),
            Err(errno) => return Err(Skip::step("wait for a child", errno)),
        }
        let signal = if sys::stop_signal().is_some() { libc::SIGKILL } else { libc::SIGUSR1 };
        if let Err(errno) = sys::kill(child, signal) {
            return Err(Skip::step("signal a child", errno));
        }
        let until = sys::now_ns() + pause_us * 1_000;
        while sys::now_ns() < until {
            std::hint::spin_loop();
        }
    }
    Ok(())
}
