//! A tracer that takes a call away from the kernel.

use super::why::Refusal;
use crate::{
    attempt::{attempt, helper, in_child},
    call::{Call, Note, Outcome},
    sys::{self, Errno, flag, fork, fork::libc_fork, ptrace},
};

/// What the tracer puts in the place of the call's result.
const TOLD: Errno = libc::EACCES;

/// The tracer stops its child at the entry of clone, makes the call's number -1, and then makes up an
/// error for it.
pub(crate) fn clone() -> Outcome {
    helper(|| {
        let call = Call::libc_fork().note(Note::Helper);
        let worker = in_child(&call, true, libc_fork, || {
            ptrace::ask_for_tracer()?;
            let why = Refusal(TOLD, "tracer", "").of(Call::clone(flag::SIGCHLD));
            attempt(&why.note(Note::BeforeSyscall), || fork::clone(flag::SIGCHLD));
            Ok(())
        });
        let worker = worker.tid()?;
        ptrace::take_away(worker, libc::SYS_clone, TOLD)?;
        match sys::wait(worker)? {
            sys::End::Exit(0) => Ok(()),
            _ => Err(libc::ECHILD),
        }
    })
}
