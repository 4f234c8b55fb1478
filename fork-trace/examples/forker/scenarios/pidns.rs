//! Pid namespaces: a child that is the first process of one, and a fork by such a child.

use crate::{
    attempt::{attempt, finish, in_child, in_own_pidns},
    call::{Call, Note, Outcome},
    host, journal,
    sys::{self, Errno, flag, fork},
};

pub(crate) fn newpid() -> Outcome {
    host::require_admin()?;
    let flags = flag::NEWPID | flag::SIGCHLD;
    attempt(&Call::clone(flags), || fork::clone(flags));
    Ok(())
}

pub(crate) fn in_pidns() -> Outcome {
    host::require_admin()?;
    let flags = flag::NEWPID | flag::SIGCHLD;
    let call = Call::clone(flags).note(Note::Helper);
    finish(in_child(&call, true, || fork::clone_returning(flags), fork_in_own_pidns))
}

/// Forks in a process that does not know its number on the host.
fn fork_in_own_pidns() -> Result<(), Errno> {
    let (ret, times, own) = in_own_pidns(|| fork::clone_returning(flag::SIGCHLD))?;
    let call = Call::clone(flag::SIGCHLD).note(Note::OwnPidNamespace);
    journal::write_with_host_tid(&call, times, ret, own);
    sys::reap(ret);
    Ok(())
}
