//! Which flags and combinations this kernel refuses, where kernels differ. This process asks the
//! kernel with clone calls of its own that no kernel can accept, and concludes from the error
//! number.
//!
//! Each call asks for something impossible that the kernel checks after the flags: for process id 1
//! in the caller's own pid namespace, which is in use for as long as the caller lives, or for a pidfd
//! at an address in the kernel's half. So a call whose flags are accepted ends with another error than a
//! call whose flags are refused, and neither makes a child.

use fork_trace_common::flags::{
    CLONE_AUTOREAP, CLONE_EMPTY_MNTNS, CLONE_NEWTIME, CLONE_NNP, CLONE_PIDFD, CLONE_PIDFD_AUTOKILL,
    CLONE_SIGHAND, CLONE_THREAD, CLONE_VM,
};
use nix::{errno::Errno, libc};

/// What this kernel refuses where kernels differ; `None` where that could not be learned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// The flags above the lower 32 bits that `clone3` does not know.
    pub unknown_flags: Option<u64>,
    /// Whether `clone3` accepts `CLONE_NEWTIME`.
    pub newtime: Option<bool>,
    /// Whether `CLONE_PIDFD` with `CLONE_THREAD` is refused.
    pub no_thread_pidfd: Option<bool>,
    /// Whether the exit signal is checked in `kernel_clone`, for every system call, and not only
    /// while `clone3`'s arguments are copied.
    pub late_signal_check: Option<bool>,
    /// Whether `RLIMIT_NPROC` is checked before the credentials are copied.
    pub early_nproc: bool,
}

/// The flags above the lower 32 bits that every kernel with `clone3` and control groups knows.
const OLD: u64 = 0b11 << 32;

/// Flags that only newer kernels know, each with the other flags that it needs to be accepted.
const NEWER: [(u64, u64); 4] = [
    (CLONE_AUTOREAP, 0),
    (CLONE_NNP, 0),
    (CLONE_PIDFD_AUTOKILL, CLONE_PIDFD | CLONE_AUTOREAP | CLONE_NNP),
    (CLONE_EMPTY_MNTNS, 0),
];

/// The bits that are no flag in any kernel yet.
const LATER: u64 = !((1 << 38) - 1);

/// Whether this kernel can set breakpoints on its functions; true also where that cannot be seen.
///
/// KERNEL: `kernel/trace/trace_event_perf.c` registers the event source only with
/// `CONFIG_KPROBE_EVENTS`.
#[must_use]
pub fn has_kprobes() -> bool {
    std::fs::exists("/sys/bus/event_source/devices/kprobe").unwrap_or(true)
}

/// Learns what this kernel refuses. The caller gives `early_nproc`, which follows from the kernel's
/// types.
#[must_use]
pub fn features(early_nproc: bool) -> Features {
    let newer: Option<u64> = NEWER.iter().try_fold(0, |unknown, (flag, with)| {
        Some(if refused(flag | with)? { unknown | flag } else { unknown })
    });
    let thread = CLONE_PIDFD | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
    let features = Features {
        unknown_flags: newer.map(|newer| (LATER | newer) & !OLD),
        newtime: refused(CLONE_NEWTIME).map(|refused| !refused),
        no_thread_pidfd: refused(thread),
        late_signal_check: late_signal_check(),
        early_nproc,
    };
    log::info!("learned which flags this kernel refuses: {features:x?}");
    features
}

/// Whether `clone3` refuses `flags` as invalid; `None` where the error does not say.
fn refused(flags: u64) -> Option<bool> {
    let mut pidfd: i32 = -1;
    let init: i32 = 1;
    // KERNEL: include/uapi/linux/sched.h `struct clone_args`.
    let args: [u64; 11] = [
        flags,
        (&raw mut pidfd).addr() as u64,
        0,
        0,
        0,
        0,
        0,
        0,
        (&raw const init).addr() as u64,
        1,
        0,
    ];
    // SAFETY: the struct has the size that is given, and it outlives the call, as does everything
    // it points to; process id 1 is in use, so the kernel makes no child.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    never_a_child(ret);
    match Errno::last() {
        Errno::EINVAL => Some(true),
        Errno::EEXIST | Errno::EPERM => Some(false),
        _ => None,
    }
}

/// Whether `clone` refuses an exit signal above 64.
fn late_signal_check() -> Option<bool> {
    const TOO_LARGE: u64 = 100;
    let flags = CLONE_PIDFD | TOO_LARGE;
    let nowhere = u64::MAX;
    // SAFETY: the kernel can write the pidfd to no address in its own half, so it makes no child.
    let ret = unsafe { libc::syscall(libc::SYS_clone, flags, 0_u64, nowhere, 0_u64, 0_u64) };
    never_a_child(ret);
    match Errno::last() {
        Errno::EINVAL => Some(true),
        Errno::EFAULT => Some(false),
        _ => None,
    }
}

/// Ends the child at once, should a kernel make one all the same: it would be a second tracer.
fn never_a_child(ret: libc::c_long) {
    if ret == 0 {
        // SAFETY: the call ends this thread and runs no code of this program.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_no_kernel_has_are_refused_and_plain_ones_are_not() {
        if refused(0).is_none() {
            // This is a sandbox that does not allow clone3.
            return;
        }
        assert_eq!(refused(1 << 63), Some(true));
        assert_eq!(refused(0), Some(false));
        let features = features(false);
        let unknown = features.unknown_flags.unwrap();
        assert_eq!(unknown & OLD, 0);
        assert_eq!(unknown & LATER, LATER);
        assert!(features.late_signal_check.is_some());
    }
}
