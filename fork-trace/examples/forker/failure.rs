//! Scenarios that fail, each with the errno it expects, and those that fail at last.

use std::{ffi::c_ulong, fs, io::Write as _};

use crate::{
    call::{After, Call, Note, Outcome, Skip, attempt, finish, helper, in_child, libc_fork, timed},
    cgroup::{Group, Hierarchy},
    host, journal, process,
    raw::{self, Clone3Size, CloneArgs, Leash, flag},
    sys::{self, Errno},
};

/// Processes allowed by the limits that are run into, the worker included.
const LIMIT: u32 = 3;

/// "nobody", who may make no namespace.
pub(crate) const NOBODY: libc::uid_t = 65_534;

/// The longest life of a child held for a limit.
const HOLD_MS: u32 = 20_000;

const INVALID: &str = "invalid-flags";

fn clone_fails(flags: u64, expected: Errno, (cause, rule): (&'static str, &'static str)) {
    let call = Call::clone(flags).fails(expected).because(cause, rule);
    attempt(&call, || raw::clone(flags));
}

fn clone3_fails(
    args: &CloneArgs<'_>,
    size: Clone3Size,
    expected: Errno,
    (cause, rule): (&'static str, &'static str),
) {
    let call = Call::clone3(args).fails(expected).because(cause, rule);
    attempt(&call, || raw::clone3(args, size));
}

pub(crate) fn einval_thread() -> Outcome {
    clone_fails(flag::THREAD | flag::SIGCHLD, libc::EINVAL, (INVALID, "thread-without-sighand"));
    Ok(())
}

pub(crate) fn einval_sighand() -> Outcome {
    clone_fails(flag::SIGHAND | flag::SIGCHLD, libc::EINVAL, (INVALID, "sighand-without-vm"));
    Ok(())
}

pub(crate) fn einval_newns_fs() -> Outcome {
    clone_fails(flag::NEWNS | flag::FS | flag::SIGCHLD, libc::EINVAL, (INVALID, "newns-and-fs"));
    Ok(())
}

pub(crate) fn einval_clone3_size() -> Outcome {
    clone3_fails(
        &CloneArgs::new(0),
        Clone3Size::TooSmall,
        libc::EINVAL,
        (INVALID, "struct-too-small"),
    );
    Ok(())
}

pub(crate) fn e2big_clone3() -> Outcome {
    let call = Call::clone3(&CloneArgs::new(0)).fails(libc::E2BIG);
    let mut words = [0; 513];
    words[4] = flag::SIGCHLD;
    let large = call.because(INVALID, "struct-larger-than-page");
    attempt(&large, || raw::clone3_words(&words, 4097));
    words[11] = 1;
    let call = call.because(INVALID, "struct-tail-not-zero");
    attempt(&call.note(Note::TailNotZero), || raw::clone3_words(&words, 128));
    Ok(())
}

pub(crate) fn efault_clone3() -> Outcome {
    let none = CloneArgs::new(0).exit_signal(0);
    let call = Call::clone3(&none).fails(libc::EFAULT).note(Note::FlagsUnknown);
    let call = call.because(INVALID, "struct-unreadable");
    attempt(&call, || raw::clone3_null(88));
    Ok(())
}

pub(crate) fn einval_clone3_exit_signal() -> Outcome {
    let late = host::release() >= (7, 1);
    let unknown = if late { "exit-signal-unknown-late" } else { "exit-signal-unknown" };
    for (exit_signal, rule) in [(65, unknown), (256, "exit-signal-too-large")] {
        let args = CloneArgs::new(0).exit_signal(exit_signal);
        clone3_fails(&args, Clone3Size::V2, libc::EINVAL, (INVALID, rule));
    }
    Ok(())
}

pub(crate) fn eexist_set_tid() -> Outcome {
    host::require_admin()?;
    let mut init = 1;
    let args = CloneArgs::new(0).set_tid(&mut init);
    clone3_fails(&args, Clone3Size::V2, libc::EEXIST, ("set-tid", "set-tid-taken"));
    Ok(())
}

pub(crate) fn eperm_newns() -> Outcome {
    helper(|| {
        if sys::is_root() {
            sys::become_user(NOBODY)?;
        }
        let why = ("permission", "namespace-without-admin");
        clone_fails(flag::NEWNS | flag::SIGCHLD, libc::EPERM, why);
        Ok(())
    })
}

/// Forks children that stay, until refused; then ends them. All but the last should succeed.
fn fork_to_the_limit(cause: &'static str) -> Result<(), Errno> {
    let leash = Leash::new()?;
    let script = leash.script(HOLD_MS);
    let mut held = Vec::new();
    for alive in 1..=LIMIT {
        let expected = if alive == LIMIT { libc::EAGAIN } else { 0 };
        let call = Call::clone(flag::SIGCHLD).fails(expected);
        let call = if expected == 0 { call } else { call.because(cause, "") };
        match attempt(&call, || raw::clone_scripted(flag::SIGCHLD, &script)) {
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

pub(crate) fn eagain_nproc() -> Outcome {
    host::require_root()?;
    let parent = sys::tgid();
    // Of no one else, forkers at the same time included, and inside the 65536 ids of a container.
    let uid = 54_321 + parent.unsigned_abs() % 10_000;
    helper(move || {
        sys::limit(libc::RLIMIT_NPROC, LIMIT.into())?;
        sys::become_user(uid)?;
        sys::die_with(parent);
        fork_to_the_limit("rlimit-nproc")
    })
}

pub(crate) fn eagain_pids() -> Outcome {
    in_group(&Hierarchy::of("pids")?, |group| {
        group.set("pids.max", &LIMIT.to_string())?;
        group.enter()?;
        fork_to_the_limit("cgroup-pids")
    })
}

/// Bytes that a group may have.
const GROUP_BYTES: &str = "1048576";
/// Children that are more than fit into it.
const CROWD: usize = 1_000;

pub(crate) fn enomem_memory() -> Outcome {
    // KERNEL: mm/memcontrol.c `try_charge` takes more than the limit allows where nothing can be
    // killed, unless the group forbids the killing, which only version 1 can.
    let place = Hierarchy::of("memory")?;
    if !place.v1 && host::release() < (5, 17) {
        return Err(Skip("before Linux 5.17 cgroup2 lets such forks pass".to_owned()));
    }
    in_group(&place, |group| {
        // Nothing there can be killed, so the charge fails.
        let (max, none) = if place.v1 {
            group.set("memory.oom_control", "1")?;
            ("memory.limit_in_bytes", "-1")
        } else {
            fs::write("/proc/self/oom_score_adj", "-1000").map_err(sys::number)?;
            ("memory.max", "max")
        };
        let mut limit = group.set(max, GROUP_BYTES)?;
        let call = Call::clone(flag::VM | flag::SIGCHLD);
        let stack = process::stack();
        let mut made = Vec::with_capacity(CROWD);
        group.enter()?;
        // Until the limit is off, a page that this process touches first may never come: its children
        // share its memory, end at once, and nothing is written down.
        while made.len() < CROWD {
            let (ret, times) = timed(|| raw::clone_on_stack(call.flags, stack));
            made.push((ret, times));
            if ret < 0 {
                break;
            }
        }
        limit.write_all(none.as_bytes()).map_err(sys::number)?;
        for (ret, times) in made {
            if ret < 0 {
                journal::write(&call.fails(libc::ENOMEM).because("cgroup-memory", ""), times, ret);
            } else {
                journal::write(&call, times, ret);
                sys::reap(ret);
            }
        }
        Ok(())
    })
}

/// Runs `body` in a child, for it to enter a group of its own.
fn in_group(place: &Hierarchy, body: impl FnOnce(&Group) -> Result<(), Errno>) -> Outcome {
    host::require_root()?;
    // The keeper lives on when forker is killed: it has a control group to remove.
    let call = Call::libc_fork().note(Note::Helper);
    finish(in_child(&call, false, libc_fork, || {
        let group = place.group()?;
        let worker = in_child(&call, true, libc_fork, || body(&group));
        let end = sys::wait(worker.tid()?)?;
        drop(group);
        match end {
            sys::End::Exit(0) => Ok(()),
            sys::End::Exit(errno) => Err(errno),
            sys::End::Signal(_) => Err(libc::EINTR),
        }
    }))
}

/// Makes seccomp answer this system call with this errno, from now on, in this process.
fn refuse(nr: i64, errno: Errno) -> Result<(), Errno> {
    const LOAD_NR: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let nr = u32::try_from(nr).map_err(|_too_large| libc::EINVAL)?;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(LOAD_NR, 0, 0),
        step(JUMP_IF_EQUAL, nr, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(), 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    sys::no_new_privileges()?;
    let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: a valid program, copied by the kernel.
    let ret = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    sys::check(ret).map(drop)
}

pub(crate) fn seccomp() -> Outcome {
    helper(|| {
        refuse(libc::SYS_clone, libc::EPERM)?;
        let call = Call::clone(flag::SIGCHLD).fails(libc::EPERM).note(Note::BeforeSyscall);
        let call = call.because("seccomp", "");
        attempt(&call, || raw::clone(flag::SIGCHLD));
        Ok(())
    })
}

pub(crate) fn seccomp_clone3_enosys() -> Outcome {
    helper(|| {
        refuse(libc::SYS_clone3, libc::ENOSYS)?;
        let args = CloneArgs::new(flag::PTHREAD).exit_signal(0);
        let call = Call::clone3(&args).fails(libc::ENOSYS).note(Note::BeforeSyscall);
        let call = call.because("seccomp", "");
        attempt(&call, || raw::clone3(&args, Clone3Size::V2));
        Ok(())
    })
}

pub(crate) fn failed_then_ok() -> Outcome {
    clone_fails(flag::THREAD | flag::SIGCHLD, libc::EINVAL, (INVALID, "thread-without-sighand"));
    attempt(&Call::clone(flag::SIGCHLD), || raw::clone(flag::SIGCHLD));
    Ok(())
}
