//! What a process may do, and how it gives some of that up.

use std::ffi::{CStr, c_int, c_ulong};

use super::{
    errno::{Errno, check, errno},
    process::prctl,
};

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: the call always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Gives up root for this uid, and every capability with it.
pub(crate) fn become_user(uid: libc::uid_t) -> Result<(), Errno> {
    // SAFETY: the call touches no memory; forker's processes with other threads never call it.
    check(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// Sets a resource limit of this process.
pub(crate) fn limit(which: libc::__rlimit_resource_t, most: libc::rlim_t) -> Result<(), Errno> {
    soft_limit(which, most, most)
}

/// Sets a resource limit of this process, and another one up to which it may raise that.
pub(crate) fn soft_limit(
    which: libc::__rlimit_resource_t,
    soft: libc::rlim_t,
    hard: libc::rlim_t,
) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads a valid limit.
    check(unsafe { libc::setrlimit(which, &raw const limit) }).map(drop)
}

/// Leaves namespaces behind, for this process or its children.
pub(crate) fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: the call touches no memory.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Makes this directory the root of this process.
pub(crate) fn chroot(dir: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with a NUL.
    check(unsafe { libc::chroot(dir.as_ptr()) }).map(drop)
}

/// Runs this thread under `SCHED_DEADLINE`, a tenth of a CPU.
pub(crate) fn run_by_deadline() -> Result<(), Errno> {
    const SCHED_DEADLINE: u32 = 6;
    /// The kernel's `struct sched_attr`, its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let attributes = Attributes {
        size: 48,
        policy: SCHED_DEADLINE,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime_ns: 10_000_000,
        deadline_ns: 100_000_000,
        period_ns: 100_000_000,
    };
    // SAFETY: the struct has the size that it says; 0 is the calling thread.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if ret == -1 { Err(errno()) } else { Ok(()) }
}

/// Makes seccomp answer this system call with this errno, from now on, in this process.
pub(crate) fn refuse(nr: i64, errno: Errno) -> Result<(), Errno> {
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
    // Without this only root may install a filter.
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies a valid program.
    let ret = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    check(ret).map(drop)
}
