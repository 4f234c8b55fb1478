//! Scenarios that run into a limit or a right other than those of `failure`; each says why it
//! ought to be refused. All of it ends with the process that set it up.

use std::{ffi::c_int, fs};

use crate::{
    call::{Call, Note, Outcome, Skip, attempt, finish, helper, in_child},
    cgroup::{Hierarchy, INNER},
    failure::NOBODY,
    host, journal,
    raw::{self, Clone3Size, CloneArgs, flag},
    sys::{self, Errno},
};

/// Numbers that the small pid namespace has.
const SMALL_PID_MAX: u32 = 301;

fn refused(flags: u64, expected: Errno, cause: &'static str, rule: &'static str) {
    let call = Call::clone(flags).fails(expected).because(cause, rule);
    attempt(&call, || raw::clone(flags));
}

fn refused3(args: &CloneArgs<'_>, expected: Errno, cause: &'static str, rule: &'static str) {
    let call = Call::clone3(args).fails(expected).because(cause, rule);
    attempt(&call, || raw::clone3(args, Clone3Size::V2));
}

/// A child that is the first process of new namespaces and goes on in Rust.
fn inside(flags: u64, body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    host::require_admin()?;
    let flags = flags | flag::SIGCHLD;
    let call = Call::clone(flags).note(Note::Helper);
    finish(in_child(&call, true, || raw::clone_returning(flags), body))
}

fn write(path: &str, text: &str) -> Result<(), Errno> {
    fs::write(path, text).map_err(sys::number)
}

pub(crate) fn deadline() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::run_by_deadline()?;
        refused(flag::SIGCHLD, libc::EAGAIN, "deadline", "");
        Ok(())
    })
}

pub(crate) fn dead_pidns() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::unshare(libc::CLONE_NEWPID)?;
        let first = attempt(&Call::clone(flag::SIGCHLD), || raw::clone(flag::SIGCHLD));
        sys::reap(first.tid()?);
        for shared in [0, flag::VM | flag::VFORK] {
            refused(shared | flag::SIGCHLD, libc::ENOMEM, "pid-namespace-dead", "");
        }
        Ok(())
    })
}

/// Mode 0 of `vm.overcommit_memory` refuses one mapping that is larger than memory and swap together,
/// but not two that are smaller; side by side, the kernel makes one of them, which a fork has to ask
/// for anew.
///
/// KERNEL: mm/util.c `__vm_enough_memory`; mm/vma.c `vma_merge_new_range`.
pub(crate) fn large_mapping() -> Outcome {
    if fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() != "0") {
        return Err(Skip("vm.overcommit_memory is not 0".to_owned()));
    }
    let half = host::memory_and_swap()? / 10 * 6;
    helper(|| {
        sys::promise_twice(half)?;
        refused(flag::SIGCHLD, libc::ENOMEM, "overcommit", "");
        Ok(())
    })
}

pub(crate) fn thread_after_unshare() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::unshare(libc::CLONE_NEWPID)?;
        let thread = flag::THREAD | flag::SIGHAND | flag::VM;
        refused(thread, libc::EINVAL, "invalid-flags", "thread-into-other-pid-namespace");
        Ok(())
    })
}

pub(crate) fn sibling_of_init() -> Outcome {
    inside(flag::NEWPID, || {
        let own = host::tid_in_proc();
        let call = Call::clone(flag::PARENT).note(Note::OwnPidNamespace);
        let call = call.fails(libc::EINVAL).because("invalid-flags", "parent-of-init");
        let (ret, times) = crate::call::timed(|| raw::clone(flag::PARENT));
        journal::write_with_host_tid(&call, times, ret, own);
        Ok(())
    })
}

/// Namespaces of one kind are forbidden in a user namespace of our own.
fn no_more(limit: &'static str, flag: u64) -> Outcome {
    inside(flag::NEWUSER, move || {
        write(&format!("/proc/sys/user/{limit}"), "0")?;
        refused(flag | flag::SIGCHLD, libc::ENOSPC, "namespace-limit", "");
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
        let own = host::tid_in_proc();
        // Zombies keep their numbers; all of them go with this process.
        for _ in 0..SMALL_PID_MAX {
            let (ret, times) = crate::call::timed(|| raw::clone_returning(flag::SIGCHLD));
            if ret == 0 {
                journal::leave_host_tid(host::tid_in_proc());
                sys::exit_now(0);
            }
            let call = Call::clone(flag::SIGCHLD).note(Note::OwnPidNamespace);
            if ret < 0 {
                let call = call.fails(libc::EAGAIN).because("pid-max", "");
                journal::write_with_host_tid(&call, times, ret, own);
                return Ok(());
            }
            sys::await_zombie(ret)?;
            journal::write_with_host_tid(&call, times, ret, own);
        }
        Err(libc::ERANGE)
    })
}

pub(crate) fn set_tid_not_permitted() -> Outcome {
    host::require_root()?;
    helper(|| {
        sys::become_user(NOBODY)?;
        let mut init = 1;
        let args = CloneArgs::new(0).set_tid(&mut init);
        refused3(&args, libc::EPERM, "set-tid", "set-tid-not-permitted");
        Ok(())
    })
}

pub(crate) fn no_files() -> Outcome {
    helper(|| {
        sys::limit(libc::RLIMIT_NOFILE, 0)?;
        let mut fd: c_int = -1;
        let args = CloneArgs::new(flag::PIDFD).pidfd(&mut fd);
        refused3(&args, libc::EMFILE, "rlimit-nofile", "");
        Ok(())
    })
}

pub(crate) fn user_namespace_in_chroot() -> Outcome {
    host::require_root()?;
    helper(|| {
        sys::chroot(c"/proc")?;
        refused(flag::NEWUSER | flag::SIGCHLD, libc::EPERM, "permission", "");
        Ok(())
    })
}

fn into(group: &fs::File, expected: Errno, rule: &'static str) {
    let args = CloneArgs::new(flag::INTO_CGROUP).cgroup(group);
    refused3(&args, expected, "cgroup-into", rule);
}

/// The keeper lives on when forker is killed: it has control groups to remove.
pub(crate) fn into_cgroup() -> Outcome {
    host::require_root()?;
    let root = Hierarchy::unified()?;
    let call = Call::libc_fork().note(Note::Helper);
    finish(in_child(&call, false, crate::call::libc_fork, || {
        let proc = fs::File::open("/proc").map_err(sys::number)?;
        into(&proc, libc::EBADF, "into-cgroup-bad-fd");
        let outer = root.group()?;
        let [gone, threaded, invalid] = INNER;
        let gone = outer.inner(gone)?;
        let open = gone.open()?;
        drop(gone);
        into(&open, libc::ENOENT, "into-cgroup-removed");
        if let Some(controller) = root.controller {
            outer.set("cgroup.subtree_control", &format!("+{controller}"))?;
            into(&outer.open()?, libc::EBUSY, "into-cgroup-has-controllers");
            outer.set("cgroup.subtree_control", &format!("-{controller}"))?;
        }
        let threaded = outer.inner(threaded)?;
        let invalid = outer.inner(invalid)?;
        threaded.set("cgroup.type", "threaded")?;
        into(&invalid.open()?, libc::EOPNOTSUPP, "into-cgroup-domain");
        let foreign = outer.open()?;
        let worker = in_child(&call, true, crate::call::libc_fork, || {
            sys::become_user(NOBODY)?;
            into(&foreign, libc::EACCES, "into-cgroup-not-permitted");
            Ok(())
        });
        sys::wait(worker.tid()?).map(drop)
    }))
}
