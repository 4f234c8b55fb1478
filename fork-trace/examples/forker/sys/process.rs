//! Processes: who one is, how one ends, and the wait for a child.

use std::ffi::{c_int, c_ulong};

use super::errno::{Errno, check};

/// How a child ended.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// It exited with this status.
    Exit(c_int),
    /// This signal killed it.
    Signal(c_int),
}

/// This process's id, asked of the kernel each time.
pub(crate) fn tgid() -> c_int {
    // SAFETY: the call always succeeds.
    unsafe { libc::getpid() }
}

/// This thread's id.
pub(crate) fn tid() -> c_int {
    // SAFETY: the call takes no arguments and always succeeds.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    c_int::try_from(tid).unwrap_or(0)
}

/// Ends this process without running anything of std or libc.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: the call does not return.
    unsafe { libc::_exit(status) }
}

/// Sends a signal.
pub(crate) fn kill(tgid: c_int, signal: c_int) -> Result<(), Errno> {
    // SAFETY: the call touches no memory.
    check(unsafe { libc::kill(tgid, signal) }).map(drop)
}

/// Reaps the child `tgid`, or any for -1; None when `flags` has `WNOHANG` and none has ended.
pub(crate) fn try_wait(tgid: c_int, flags: c_int) -> Result<Option<End>, Errno> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    let ret = unsafe { libc::waitpid(tgid, &raw mut status, flags | libc::__WALL) };
    Ok(match check(ret)? {
        0 => None,
        _ if libc::WIFSIGNALED(status) => Some(End::Signal(libc::WTERMSIG(status))),
        _ => Some(End::Exit(libc::WEXITSTATUS(status))),
    })
}

/// Waits until the child `tgid` has ended; signals do not end the wait.
pub(crate) fn wait(tgid: c_int) -> Result<End, Errno> {
    loop {
        match try_wait(tgid, 0) {
            Ok(Some(end)) => return Ok(end),
            Ok(None) | Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits until the child `tgid` has ended, in whatever way.
pub(crate) fn reap(tgid: c_int) {
    wait(tgid).ok();
}

/// Closes a file, if it is open.
pub(crate) fn close(fd: c_int) {
    // SAFETY: callers own the descriptor, or pass -1.
    unsafe { libc::close(fd) };
}

/// Waits for every child there is, adopted ones too.
pub(crate) fn reap_all() {
    while wait(-1).is_ok() {}
}

/// Waits until a child has ended, and leaves it a zombie.
pub(crate) fn await_zombie(tid: c_int) -> Result<(), Errno> {
    let id = libc::id_t::try_from(tid).map_err(|_negative| libc::EINVAL)?;
    // SAFETY: all zeros is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOWAIT;
    loop {
        // SAFETY: `info` is a valid place for the answer.
        match check(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) }) {
            Ok(_) => return Ok(()),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `prctl` with numbers only.
pub(super) fn prctl(option: c_int, value: c_int) -> Result<(), Errno> {
    let word = c_ulong::try_from(value).map_err(|_negative| libc::EINVAL)?;
    // SAFETY: the options used take numbers.
    check(unsafe { libc::prctl(option, word, 0_u64, 0_u64, 0_u64) }).map(drop)
}

/// Makes the kernel kill this process when the thread that forked it ends; `parent` is that
/// thread's process, so that one that has ended already is noticed. A change of uid undoes this,
/// and it has to be asked for again.
pub(crate) fn die_with(parent: c_int) {
    let set = prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    // SAFETY: the call always succeeds.
    let now = unsafe { libc::getppid() };
    // The parent is 0 where it is in an outer pid namespace.
    if set.is_err() || (now != parent && now != 0) {
        exit_now(libc::ESRCH);
    }
}

/// Becomes the leader of a session and a process group of its own.
pub(crate) fn lead_session() -> Result<(), Errno> {
    // SAFETY: the call touches no memory.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Makes orphaned descendants this process's children, so that it can reap them.
pub(crate) fn adopt_orphans() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}
