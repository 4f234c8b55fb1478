//! Control groups: their limits, and those that take in no child.

use std::{
    fs::{self, File},
    io::Write as _,
};

use super::{
    held::{LIMIT, fork_to_the_limit, zombies_to_the_limit},
    why::{NOBODY, Refusal, clone3_refused},
};
use crate::{
    attempt::{finish, in_child},
    call::{Call, Note, Outcome, Skip},
    host::{
        self,
        cgroup::{Group, Hierarchy, INNER},
    },
    journal,
    sys::{
        self, End, Errno,
        clone_args::{Clone3Size, CloneArgs},
        flag,
        fork::{self, libc_fork},
        memory, timed,
    },
};

/// Bytes that a group may have.
const GROUP_BYTES: &str = "1048576";

/// More children than fit into it.
const CROWD: usize = 1_000;

/// Runs `body` in a child that is not killed with forker: it has control groups to remove.
pub(super) fn keeper(body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    host::require_root()?;
    finish(in_child(&Call::libc_fork().note(Note::Helper), false, libc_fork, body))
}

/// Runs `body` in a child and waits for it.
fn worker(body: impl FnOnce() -> Result<(), Errno>) -> Result<End, Errno> {
    let call = Call::libc_fork().note(Note::Helper);
    in_child(&call, true, libc_fork, body).tid().and_then(sys::wait)
}

/// Runs `body` in a child, for it to enter a group of its own.
fn in_group(place: &Hierarchy, body: impl FnOnce(&Group) -> Result<(), Errno>) -> Outcome {
    keeper(|| {
        let group = place.group()?;
        let end = worker(|| body(&group))?;
        drop(group);
        match end {
            End::Exit(0) => Ok(()),
            End::Exit(errno) => Err(errno),
            End::Signal(_) => Err(libc::EINTR),
        }
    })
}

pub(crate) fn pids() -> Outcome {
    in_group(&Hierarchy::of("pids")?, |group| {
        group.set("pids.max", &LIMIT.to_string())?;
        group.enter()?;
        fork_to_the_limit("cgroup-pids")
    })
}

pub(crate) fn zombies() -> Outcome {
    in_group(&Hierarchy::of("pids")?, |group| {
        group.set("pids.max", &LIMIT.to_string())?;
        group.enter()?;
        zombies_to_the_limit("cgroup-pids")
    })
}

pub(crate) fn memory() -> Outcome {
    // KERNEL: mm/memcontrol.c `try_charge` takes more than the limit allows where nothing can be
    // killed, unless the group forbids the killing, which only version 1 can.
    let place = Hierarchy::of("memory")?;
    if !place.v1 && host::release() < (5, 17) {
        return Err(Skip("before Linux 5.17 cgroup2 lets such forks pass".to_owned()));
    }
    in_group(&place, |group| {
        // The kernel may kill nothing there, so the charge fails.
        let (max, none) = if place.v1 {
            group.set("memory.oom_control", "1")?;
            ("memory.limit_in_bytes", "-1")
        } else {
            fs::write("/proc/self/oom_score_adj", "-1000").map_err(sys::number)?;
            ("memory.max", "max")
        };
        let mut limit = group.set(max, GROUP_BYTES)?;
        let call = Call::clone(flag::VM | flag::SIGCHLD);
        let stack = memory::stack();
        let mut made = Vec::with_capacity(CROWD);
        group.enter()?;
        // Until the limit is off, a page that this process touches first may never come. So its
        // children share its memory and end at once, and nothing is written down.
        while made.len() < CROWD {
            let (ret, times) = timed(|| fork::clone_on_stack(call.flags, stack));
            made.push((ret, times));
            if ret < 0 {
                break;
            }
        }
        limit.write_all(none.as_bytes()).map_err(sys::number)?;
        let refused = Refusal(libc::ENOMEM, "cgroup-memory", "").of(call);
        for (ret, times) in made {
            if ret < 0 {
                journal::write(&refused, times, ret);
            } else {
                journal::write(&call, times, ret);
                sys::reap(ret);
            }
        }
        Ok(())
    })
}

fn into(group: &File, expected: Errno, rule: &'static str) {
    let args = CloneArgs::new(flag::INTO_CGROUP).cgroup(group);
    clone3_refused(&args, Clone3Size::V2, Refusal(expected, "cgroup-into", rule));
}

/// Groups that a child cannot be made in.
pub(crate) fn into_cgroup() -> Outcome {
    let root = Hierarchy::unified()?;
    keeper(|| {
        let proc = File::open("/proc").map_err(sys::number)?;
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
        worker(|| {
            sys::become_user(NOBODY)?;
            into(&foreign, libc::EACCES, "into-cgroup-not-permitted");
            Ok(())
        })
        .map(drop)
    })
}
