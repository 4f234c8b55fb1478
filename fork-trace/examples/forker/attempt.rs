//! Making one attempt: it is timed, made and written to the journal.
//!
//! A [`Call`] says what the closure beside it will do. The answer says who goes on: the caller or
//! the child. [`in_child`] gives the child a body in Rust. This file knows no scenario.

use std::ffi::c_int;

use crate::{
    call::{Call, Note, Outcome, Skip, judge},
    host, journal,
    sys::{self, Errno, Times, fork::libc_fork, timed},
};

/// Who goes on after an attempt.
#[derive(Clone, Copy)]
pub(crate) enum After {
    /// The new task itself.
    Child,
    /// The caller, with the child's tid as it sees it.
    Parent(c_int),
    /// The caller, refused.
    Refused(Errno),
}

impl After {
    /// The child's tid, for a caller that needs one.
    pub(crate) fn tid(self) -> Result<c_int, Errno> {
        match self {
            Self::Parent(tid) => Ok(tid),
            Self::Refused(errno) => Err(errno),
            Self::Child => Err(0),
        }
    }
}

/// Makes the attempt and records it in the caller. `make` returns what the kernel does: the child's
/// tid, or the negated errno, or 0 in the child.
pub(crate) fn attempt(call: &Call, make: impl FnOnce() -> c_int) -> After {
    let (ret, times) = timed(make);
    match ret {
        0 => After::Child,
        _ => {
            journal::write(call, times, ret);
            if ret < 0 { After::Refused(-ret) } else { After::Parent(ret) }
        }
    }
}

/// Makes an attempt in a process that does not know its own number on the host, because it is in a
/// pid namespace of its own. `/proc` was mounted outside, so it tells caller and child their
/// numbers. The child exits at once and is left unreaped. The attempt is not written down yet: the
/// caller does so by [`journal::write_with_host_tid`], which takes what this returns.
pub(crate) fn in_own_pidns(make: impl FnOnce() -> c_int) -> Result<(c_int, Times, c_int), Errno> {
    let own_tid = host::tid_in_proc();
    let (ret, times) = timed(make);
    if ret == 0 {
        journal::leave_host_tid(host::tid_in_proc());
        sys::exit_now(0);
    }
    if ret > 0 {
        sys::await_zombie(ret)?;
    }
    Ok((ret, times, own_tid))
}

/// Ends the process even if a panic would carry a child out of its body into main's code.
struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        sys::exit_now(libc::EIO);
    }
}

/// Makes a child by `make` and records the attempt. The child runs `body` and exits with its errno.
/// `dies` says whether it is killed when this thread ends.
pub(crate) fn in_child(
    call: &Call,
    dies: bool,
    make: impl FnOnce() -> c_int,
    body: impl FnOnce() -> Result<(), Errno>,
) -> After {
    let parent = sys::tgid();
    let after = attempt(call, make);
    if let After::Child = after {
        let _guard = ExitOnDrop;
        if dies {
            sys::die_with(parent);
        }
        sys::exit_now(body().err().unwrap_or(0));
    }
    after
}

/// Waits for a child of [`in_child`].
pub(crate) fn finish(child: After) -> Outcome {
    let end = child.tid().and_then(sys::wait);
    end.map_err(|errno| Skip::step("fork and wait for a child", errno)).and_then(judge)
}

/// Runs `body` in a child made by libc's fork and waits for it.
pub(crate) fn helper(body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    finish(in_child(&Call::libc_fork().note(Note::Helper), true, libc_fork, body))
}
