//! Which flags and combinations this kernel refuses where kernels differ: learned from calls of
//! our own that none can accept, by the error number.
//!
//! Each asks for process id 1 in the caller's own pid namespace, which is taken for as long as
//! the caller lives, or for thread-local storage in the kernel's half: so one that passes all
//! checks of flags ends with another error than one that does not, and never with a child.

use fork_trace_common::flags::{
    CLONE_AUTOREAP, CLONE_EMPTY_MNTNS, CLONE_NEWTIME, CLONE_NNP, CLONE_PIDFD, CLONE_PIDFD_AUTOKILL,
    CLONE_SETTLS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM,
};
use nix::{errno::Errno, libc};

/// What differs between kernels and was learned of this one; `None` where it could not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// The flags above 32 bits that `clone3` does not know.
    pub unknown_flags: Option<u64>,
    /// `clone3` takes `CLONE_NEWTIME`.
    pub newtime: Option<bool>,
    /// `CLONE_PIDFD` with `CLONE_THREAD` is refused.
    pub no_thread_pidfd: Option<bool>,
    /// The exit signal is checked in `kernel_clone`, for every call, and not in `clone3` alone.
    pub late_signal_check: Option<bool>,
    /// `RLIMIT_NPROC` is checked before credentials are copied.
    pub early_nproc: bool,
}

/// Flags above 32 bits that every kernel with `clone3` and control groups knows.
const OLD: u64 = 0b11 << 32;

/// Flags that came later, each with the flags without which it is refused.
const NEWER: [(u64, u64); 4] = [
    (CLONE_AUTOREAP, 0),
    (CLONE_NNP, 0),
    (CLONE_PIDFD_AUTOKILL, CLONE_PIDFD | CLONE_AUTOREAP | CLONE_NNP),
    (CLONE_EMPTY_MNTNS, 0),
];

/// Flags that no kernel has yet.
const LATER: u64 = !((1 << 38) - 1);

/// Whether the kernel has breakpoints on its functions; also where that cannot be seen.
///
/// KERNEL: `kernel/trace/trace_event_perf.c` registers the event source only with
/// `CONFIG_KPROBE_EVENTS`.
#[must_use]
pub fn has_kprobes() -> bool {
    std::fs::exists("/sys/bus/event_source/devices/kprobe").unwrap_or(true)
}

/// Asks the kernel; what it does not say stays unknown. `early_nproc` is known by its types.
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

/// Whether `clone3` refuses `flags` as invalid; `None` where neither is certain.
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
    // SAFETY: the struct has the size that is given and outlives the call, as do the places it
    // points to; id 1 is taken, so there is no child.
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
    let flags = CLONE_SETTLS | TOO_LARGE;
    let nowhere = u64::MAX;
    // SAFETY: no address is written to; the kernel's half is refused for thread-local storage, so
    // there is no child.
    let ret = unsafe { libc::syscall(libc::SYS_clone, flags, 0_u64, 0_u64, 0_u64, nowhere) };
    never_a_child(ret);
    match Errno::last() {
        Errno::EINVAL => Some(true),
        Errno::EPERM => Some(false),
        _ => None,
    }
}

/// A child would be a second tracer: should a kernel make one all the same, it ends at once.
fn never_a_child(ret: libc::c_long) {
    if ret == 0 {
        // SAFETY: ends the calling thread, running nothing of ours.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_no_kernel_has_are_refused_and_plain_ones_are_not() {
        if refused(0).is_none() {
            // A sandbox without clone3.
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
