//! Calls that seccomp answers in the kernel's place.

use super::why::Refusal;
use crate::{
    attempt::{attempt, helper},
    call::{Call, Note, Outcome},
    sys::{
        self, Errno,
        clone_args::{Clone3Size, CloneArgs},
        flag, fork,
    },
};

fn refused(call: Call, errno: Errno) -> Call {
    Refusal(errno, "seccomp", "").of(call).note(Note::BeforeSyscall)
}

pub(crate) fn clone() -> Outcome {
    helper(|| {
        sys::refuse(libc::SYS_clone, libc::EPERM)?;
        let call = refused(Call::clone(flag::SIGCHLD), libc::EPERM);
        attempt(&call, || fork::clone(flag::SIGCHLD));
        Ok(())
    })
}

pub(crate) fn clone3() -> Outcome {
    helper(|| {
        sys::refuse(libc::SYS_clone3, libc::ENOSYS)?;
        let args = CloneArgs::new(flag::PTHREAD).exit_signal(0);
        let call = refused(Call::clone3(&args), libc::ENOSYS);
        attempt(&call, || fork::clone3(&args, Clone3Size::V2));
        Ok(())
    })
}

/// A C library tries clone where clone3 is refused with ENOSYS.
pub(crate) fn clone3_then_clone() -> Outcome {
    helper(|| {
        sys::refuse(libc::SYS_clone3, libc::ENOSYS)?;
        let args = CloneArgs::new(0);
        let call = refused(Call::clone3(&args), libc::ENOSYS);
        attempt(&call, || fork::clone3(&args, Clone3Size::V2));
        attempt(&Call::clone(flag::SIGCHLD), || fork::clone(flag::SIGCHLD)).tid().map(sys::reap)
    })
}
