//! Limits of a process: resource limits, and the rule for `SCHED_DEADLINE`.

use std::{ffi::c_int, fs};

use super::{
    held::{LIMIT, fork_to_the_limit, workers_to_the_limit},
    why::{Refusal, clone_refused, clone3_refused},
};
use crate::{
    attempt::helper,
    call::{Outcome, Skip},
    host,
    sys::{
        self,
        clone_args::{Clone3Size, CloneArgs},
        flag,
    },
};

pub(crate) fn processes_of_user() -> Outcome {
    host::require_root()?;
    let parent = sys::tgid();
    // Nobody else has this uid, not even another forker at the same time, and it is one of the
    // 65536 that a container has.
    let uid = 54_321 + parent.unsigned_abs() % 10_000;
    helper(move || {
        sys::limit(libc::RLIMIT_NPROC, LIMIT.into())?;
        sys::become_user(uid)?;
        sys::die_with(parent);
        fork_to_the_limit("rlimit-nproc")
    })
}

/// Workers of `io_uring` count for their process's user.
pub(crate) fn workers_of_user() -> Outcome {
    host::require_root()?;
    if host::release() < (5, 12) {
        return Err(Skip("before Linux 5.12 these workers count for nobody".to_owned()));
    }
    let off = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if off.is_ok_and(|off| off.trim() != "0") {
        return Err(Skip("kernel.io_uring_disabled is set".to_owned()));
    }
    let parent = sys::tgid();
    let uid = 34_321 + parent.unsigned_abs() % 10_000;
    helper(move || {
        sys::limit(libc::RLIMIT_NPROC, LIMIT.into())?;
        sys::become_user(uid)?;
        sys::die_with(parent);
        workers_to_the_limit("rlimit-nproc")
    })
}

/// The limit under which a user namespace was made, which a higher one of its own does not help.
pub(crate) fn processes_of_namespace() -> Outcome {
    host::require_root()?;
    if host::release() < (5, 14) {
        return Err(Skip("before Linux 5.14 namespaces keep no such limit".to_owned()));
    }
    let parent = sys::tgid();
    let uid = 44_321 + parent.unsigned_abs() % 10_000;
    helper(move || {
        sys::soft_limit(libc::RLIMIT_NPROC, LIMIT.into(), 1_000)?;
        sys::become_user(uid)?;
        sys::die_with(parent);
        sys::unshare(libc::CLONE_NEWUSER)?;
        sys::soft_limit(libc::RLIMIT_NPROC, 1_000, 1_000)?;
        fork_to_the_limit("rlimit-nproc")
    })
}

pub(crate) fn open_files() -> Outcome {
    helper(|| {
        sys::limit(libc::RLIMIT_NOFILE, 0)?;
        let mut fd: c_int = -1;
        let args = CloneArgs::new(flag::PIDFD).pidfd(&mut fd);
        clone3_refused(&args, Clone3Size::V2, Refusal(libc::EMFILE, "rlimit-nofile", ""));
        Ok(())
    })
}

/// A process under `SCHED_DEADLINE` may not fork.
pub(crate) fn deadline() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::run_by_deadline()?;
        clone_refused(flag::SIGCHLD, Refusal(libc::EAGAIN, "deadline", ""));
        Ok(())
    })
}
