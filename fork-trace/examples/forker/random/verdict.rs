//! What the kernel ought to say to a set of arguments: its rules, in the order in which it checks.

use std::{ffi::c_int, fs};

use super::{
    field,
    set::{NOWHERE, Places, Set},
};
use crate::{
    host,
    sys::{Errno, flag},
};

/// What differs between hosts.
pub(super) struct Host {
    /// Major and minor number of the kernel's release.
    release: (u32, u32),
    /// How deep this process's pid namespace is nested.
    level: u64,
    pid_max: i64,
}

impl Host {
    /// Reads what it has to.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let levels = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let levels = levels.map_or(1, |line| line.split_ascii_whitespace().count());
        let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
        Self {
            release: host::release(),
            level: levels.saturating_sub(1) as u64,
            pid_max: pid_max.trim().parse().unwrap_or(32_768),
        }
    }
}

/// The rule that the kernel ought to apply, with its errno; None if it ought to accept.
pub(super) fn verdict(set: &Set, places: &Places, host: &Host) -> Option<(&'static str, Errno)> {
    copying(set).or_else(|| checking(set, host)).or_else(|| making(set, places, host))
}

/// What is checked while the struct is copied.
/// KERNEL: kernel/fork.c `copy_clone_args_from_user`.
fn copying(set: &Set) -> Option<(&'static str, Errno)> {
    let tail = set.words.iter().take(set.size / 8).skip(11).any(|word| *word != 0);
    let odd_tail = set.size == 90 && set.words.get(11).is_some_and(|word| word & 0xffff != 0);
    let (set_tid, count) = (set.word(field::SET_TID), set.word(field::SET_TID_SIZE));
    let signal = set.word(field::EXIT_SIGNAL);
    let early = signal > 64 && signal <= 255;
    Some(match () {
        () if set.size > 4096 => ("struct-larger-than-page", libc::E2BIG),
        () if set.size < 64 => ("struct-too-small", libc::EINVAL),
        () if tail || odd_tail => ("struct-tail-not-zero", libc::E2BIG),
        () if count > 32 => ("set-tid-too-many", libc::EINVAL),
        () if set_tid == 0 && count > 0 => ("set-tid-null", libc::EINVAL),
        () if set_tid != 0 && count == 0 => ("set-tid-without-size", libc::EINVAL),
        () if signal > 255 => ("exit-signal-too-large", libc::EINVAL),
        () if early && !late_signals() => ("exit-signal-unknown", libc::EINVAL),
        () if set.has(flag::INTO_CGROUP)
            && (set.size < 88 || set.word(field::CGROUP) > 0x7fff_ffff) =>
        {
            ("into-cgroup-no-fd", libc::EINVAL)
        }
        () if count > 0 && set_tid == NOWHERE => ("set-tid-unreadable", libc::EFAULT),
        () => return None,
    })
}

/// Whether the exit signal is checked after the struct is copied, as from Linux 7.1 on.
fn late_signals() -> bool {
    host::release() >= (7, 1)
}

/// What is checked before anything is made.
/// KERNEL: kernel/fork.c `clone3_args_valid` and `copy_process`.
fn checking(set: &Set, host: &Host) -> Option<(&'static str, Errno)> {
    let known = 0xffff_ffff | flag::CLEAR_SIGHAND | flag::INTO_CGROUP;
    let (stack, size) = (set.word(field::STACK), set.word(field::STACK_SIZE));
    let rule = match () {
        () if set.any(!known) => "unknown-flags",
        () if set.any(flag::DETACHED) => "detached-in-clone3",
        () if set.any(0x7f) => "signal-in-flags",
        () if set.has(flag::SIGHAND | flag::CLEAR_SIGHAND) => "sighand-and-clear-sighand",
        () if set.any(flag::THREAD | flag::PARENT) && set.word(field::EXIT_SIGNAL) != 0 => {
            "exit-signal-of-thread-or-sibling"
        }
        () if stack == 0 && size > 0 => "stack-size-without-stack",
        () if stack != 0 && size == 0 => "stack-without-size",
        () if stack >= NOWHERE => "stack-outside",
        () if set.has(flag::PIDFD | flag::PARENT_SETTID)
            && set.word(field::PIDFD) == set.word(field::PARENT_TID) =>
        {
            "pidfd-is-parent-tid"
        }
        () if set.word(field::EXIT_SIGNAL) > 64 => "exit-signal-unknown-late",
        () if set.has(flag::NEWNS | flag::FS) => "newns-and-fs",
        () if set.has(flag::NEWUSER | flag::FS) => "newuser-and-fs",
        () if set.has(flag::THREAD) && !set.has(flag::SIGHAND) => "thread-without-sighand",
        () if set.has(flag::SIGHAND) && !set.has(flag::VM) => "sighand-without-vm",
        () if set.has(flag::THREAD) && set.any(flag::NEWUSER | flag::NEWPID) => {
            "thread-and-new-namespace"
        }
        () if set.has(flag::PIDFD | flag::THREAD) && host.release < (6, 9) => "pidfd-and-thread",
        () => return None,
    };
    Some((rule, libc::EINVAL))
}

/// What is found while the child is made.
/// KERNEL: kernel/fork.c `copy_process`, kernel/pid.c `alloc_pid`.
fn making(set: &Set, places: &Places, host: &Host) -> Option<(&'static str, Errno)> {
    let count = set.word(field::SET_TID_SIZE);
    let [first, second] = places.set_tid;
    let levels = host.level + 1 + u64::from(set.has(flag::NEWPID));
    let range = |tid: c_int, most: i64| tid < 1 || i64::from(tid) >= most;
    let newpid = set.has(flag::NEWPID);
    Some(match () {
        () if set.has(flag::NEWIPC | flag::SYSVSEM) => ("newipc-and-sysvsem", libc::EINVAL),
        () if cfg!(target_arch = "x86_64")
            && set.has(flag::SETTLS)
            && set.word(field::TLS) >= NOWHERE =>
        {
            ("tls-outside", libc::EPERM)
        }
        () if count > levels => ("set-tid-too-deep", libc::EINVAL),
        () if count > 0 && range(first, host.pid_max) => ("set-tid-out-of-range", libc::EINVAL),
        () if count > 0 && newpid && first != 1 => ("set-tid-first-not-1", libc::EINVAL),
        () if count == 1 && !newpid && first == 1 => ("set-tid-taken", libc::EEXIST),
        () if count == 2 && newpid && second == 1 => ("set-tid-taken", libc::EEXIST),
        () if set.has(flag::PIDFD) && [0, NOWHERE].contains(&set.word(field::PIDFD)) => {
            ("pidfd-unwritable", libc::EFAULT)
        }
        () if set.has(flag::INTO_CGROUP) => ("into-cgroup-bad-fd", libc::EBADF),
        () => return None,
    })
}
