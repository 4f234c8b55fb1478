//! Namespaces that let in no more tasks, or no more namespaces.

use std::fs;

use super::{
    held::stay_full,
    why::{Refusal, clone_refused},
};
use crate::{
    attempt::{attempt, finish, helper, in_child, in_own_pidns},
    call::{Call, Note, Outcome, Skip},
    host, journal,
    sys::{self, Errno, flag, fork},
};

/// Numbers that the small pid namespace has.
const SMALL_PID_MAX: u32 = 301;

/// Runs `body` in a child that is the first process of new namespaces.
fn inside(flags: u64, body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    host::require_admin()?;
    let flags = flags | flag::SIGCHLD;
    let call = Call::clone(flags).note(Note::Helper);
    finish(in_child(&call, true, || fork::clone_returning(flags), body))
}

fn write(path: &str, text: &str) -> Result<(), Errno> {
    fs::write(path, text).map_err(sys::number)
}

pub(crate) fn dead_pidns() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::unshare(libc::CLONE_NEWPID)?;
        let first = attempt(&Call::clone(flag::SIGCHLD), || fork::clone(flag::SIGCHLD));
        sys::reap(first.tid()?);
        for shared in [0, flag::VM | flag::VFORK] {
            let why = Refusal(libc::ENOMEM, "pid-namespace-dead", "");
            clone_refused(shared | flag::SIGCHLD, why);
        }
        Ok(())
    })
}

pub(crate) fn unshared_thread() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::unshare(libc::CLONE_NEWPID)?;
        let why = Refusal::invalid("thread-into-other-pid-namespace");
        clone_refused(flag::THREAD | flag::SIGHAND | flag::VM, why);
        Ok(())
    })
}

pub(crate) fn sibling_of_init() -> Outcome {
    inside(flag::NEWPID, || {
        let call = Call::clone(flag::PARENT).note(Note::OwnPidNamespace);
        let (ret, times, own) = in_own_pidns(|| fork::clone(flag::PARENT))?;
        let call = Refusal::invalid("parent-of-init").of(call);
        journal::write_with_host_tid(&call, times, ret, own);
        Ok(())
    })
}

/// A user namespace of its own forbids more namespaces of one kind.
fn no_more(limit: &'static str, flag: u64) -> Outcome {
    inside(flag::NEWUSER, move || {
        write(&format!("/proc/sys/user/{limit}"), "0")?;
        clone_refused(flag | flag::SIGCHLD, Refusal(libc::ENOSPC, "namespace-limit", ""));
        Ok(())
    })
}

pub(crate) fn no_user_namespaces() -> Outcome {
    no_more("max_user_namespaces", flag::NEWUSER)
}

pub(crate) fn no_net_namespaces() -> Outcome {
    no_more("max_net_namespaces", flag::NEWNET)
}

pub(crate) fn no_numbers() -> Outcome {
    if host::release() < (6, 14) {
        return Err(Skip("before Linux 6.14 pid_max is the whole host's".to_owned()));
    }
    inside(flag::NEWPID, || {
        write("/proc/sys/kernel/pid_max", &SMALL_PID_MAX.to_string())?;
        // Zombies keep their numbers; all of them go with this process.
        for _ in 0..SMALL_PID_MAX {
            let (ret, times, own) = in_own_pidns(|| fork::clone_returning(flag::SIGCHLD))?;
            let call = Call::clone(flag::SIGCHLD).note(Note::OwnPidNamespace);
            if ret < 0 {
                let call = Refusal(libc::EAGAIN, "pid-max", "").of(call);
                journal::write_with_host_tid(&call, times, ret, own);
                stay_full();
                return Ok(());
            }
            journal::write_with_host_tid(&call, times, ret, own);
        }
        Err(libc::ERANGE)
    })
}
