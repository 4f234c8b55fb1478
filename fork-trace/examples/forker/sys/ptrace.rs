//! Tracing a child, just enough to take one system call away from it.

use std::{ffi::c_int, ptr};

use super::{
    errno::{Errno, check},
    machine::{set_number, set_result, stopped_in},
};

fn ptrace(request: u32, tid: c_int, address: usize, data: i64) -> Result<(), Errno> {
    // SAFETY: none of the requests used here makes the kernel write to this process's memory.
    let ret = unsafe { libc::ptrace(request, tid, ptr::without_provenance::<u8>(address), data) };
    if ret == -1 { check(-1).map(drop) } else { Ok(()) }
}

/// Waits until the child has stopped, and says whether it has, rather than ended.
fn stopped(tid: c_int) -> Result<bool, Errno> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    check(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) })?;
    Ok(libc::WIFSTOPPED(status))
}

/// Makes the parent this process's tracer, and stops until it goes on.
pub(crate) fn ask_for_tracer() -> Result<(), Errno> {
    ptrace(libc::PTRACE_TRACEME, 0, 0, 0)?;
    // SAFETY: the signal stops this process only.
    check(unsafe { libc::raise(libc::SIGSTOP) }).map(drop)
}

/// Takes the first call with this number away from a child that asked for a tracer, makes it return
/// this errno, and lets go of the child.
pub(crate) fn take_away(tid: c_int, nr: i64, errno: Errno) -> Result<(), Errno> {
    while stopped(tid)? {
        if stopped_in(tid) == nr {
            set_number(tid, -1)?;
            // On to the return of the call.
            ptrace(libc::PTRACE_SYSCALL, tid, 0, 0)?;
            if !stopped(tid)? {
                return Err(libc::ECHILD);
            }
            set_result(tid, (-errno).into())?;
            return ptrace(libc::PTRACE_DETACH, tid, 0, 0);
        }
        ptrace(libc::PTRACE_SYSCALL, tid, 0, 0)?;
    }
    Err(libc::ESRCH)
}
