//! Processes, made by each call there is and with flags of each kind.

use std::{
    ffi::c_int,
    os::fd::{FromRawFd as _, OwnedFd},
};

use crate::{
    attempt::{attempt, finish, helper, in_child},
    call::{Call, Outcome},
    sys::{
        self, Errno,
        clone_args::{Clone3Size, CloneArgs},
        flag,
        fork::{self, libc_fork},
        memory,
    },
};

/// Bytes touched by the parent of a fork that is slow on purpose.
const BIG_BYTES: usize = 256 << 20;

/// Makes a clone with these flags; the child exits at once.
fn clone_once(flags: u64) {
    attempt(&Call::clone(flags), || fork::clone(flags));
}

/// Does as [`clone_once`] does, by clone3.
fn clone3_once(args: &CloneArgs<'_>, size: Clone3Size) {
    attempt(&Call::clone3(args), || fork::clone3(args, size));
}

/// Forks in libc; the child runs `body`.
fn fork_in_libc(body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    finish(in_child(&Call::libc_fork(), true, libc_fork, body))
}

/// Does as [`fork_in_libc`] does, in the body of a child.
fn fork_deeper(body: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let tid = in_child(&Call::libc_fork(), true, libc_fork, body).tid()?;
    sys::wait(tid).map(drop)
}

pub(crate) fn fork_libc() -> Outcome {
    fork_in_libc(|| Ok(()))
}

pub(crate) fn fork_raw() -> Outcome {
    attempt(&Call::fork(), fork::fork);
    Ok(())
}

pub(crate) fn vfork() -> Outcome {
    attempt(&Call::vfork(), || fork::vfork(&[]));
    Ok(())
}

pub(crate) fn clone_raw() -> Outcome {
    clone_once(flag::SIGCHLD);
    Ok(())
}

pub(crate) fn clone_parent() -> Outcome {
    helper(|| {
        clone_once(flag::PARENT | flag::SIGCHLD);
        Ok(())
    })
}

pub(crate) fn clone_files_fs() -> Outcome {
    clone_once(flag::FILES | flag::FS | flag::SIGCHLD);
    Ok(())
}

pub(crate) fn clone_vm() -> Outcome {
    let flags = flag::VM | flag::SIGHAND | flag::SIGCHLD;
    attempt(&Call::clone(flags), || fork::clone_on_stack(flags, memory::stack()));
    Ok(())
}

pub(crate) fn clone_vfork() -> Outcome {
    clone_once(flag::VM | flag::VFORK | flag::SIGCHLD);
    Ok(())
}

pub(crate) fn clone_untraced_exit0() -> Outcome {
    clone_once(flag::UNTRACED);
    Ok(())
}

pub(crate) fn clone3_64() -> Outcome {
    clone3_once(&CloneArgs::new(0), Clone3Size::V0);
    Ok(())
}

pub(crate) fn clone3_88() -> Outcome {
    clone3_once(&CloneArgs::new(0), Clone3Size::V2);
    Ok(())
}

pub(crate) fn clone3_pidfd() -> Outcome {
    let mut fd: c_int = -1;
    clone3_once(&CloneArgs::new(flag::PIDFD).pidfd(&mut fd), Clone3Size::V2);
    if fd >= 0 {
        // SAFETY: the kernel has just opened the file for us, and nobody else closes it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(())
}

pub(crate) fn clone3_clear_sighand() -> Outcome {
    clone3_once(&CloneArgs::new(flag::CLEAR_SIGHAND), Clone3Size::V2);
    Ok(())
}

pub(crate) fn nested() -> Outcome {
    fork_in_libc(|| fork_deeper(|| fork_deeper(|| Ok(()))))
}

pub(crate) fn double_fork() -> Outcome {
    fork_in_libc(|| {
        // This child is not killed with its parent: it is there to outlive it.
        in_child(&Call::libc_fork(), false, libc_fork, || {
            sys::sleep_ms(5);
            Ok(())
        });
        Ok(())
    })
}

pub(crate) fn big_parent() -> Outcome {
    let touched = vec![1_u8; BIG_BYTES];
    let forked = fork_libc();
    drop(std::hint::black_box(touched));
    forked
}
