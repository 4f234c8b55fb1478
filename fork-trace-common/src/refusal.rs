//! The bytes that the kernel side writes about a refusal: one [`RefusalRecord`] for each failed
//! attempt, which comes just before its [`ForkRecord`](crate::record::ForkRecord).
//!
//! It is filled while the caller has not yet returned. The kernel has given back by then what the
//! attempt had charged, so a counter that refused it stands at its limit, and not above. As in
//! [`record`](crate::record), every byte is set to zero first, and what was not read is marked by a
//! bit that is absent.

use crate::flags::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME,
    CLONE_NEWUSER, CLONE_NEWUTS,
};

/// What is known of a refusal: the bits of `bits` in a [`RefusalRecord`].
pub mod known {
    /// `args` holds what the caller passed. Of the struct of `clone3` it holds as many words as
    /// that has.
    pub const ARGS: u64 = 1;
    /// The words of the struct of `clone3` could not be read.
    pub const ARGS_UNREADABLE: u64 = 1 << 1;
    /// The bytes after the words of `args` are not all zero, or cannot all be read.
    pub const TAIL_NOT_ZERO: u64 = 1 << 2;
    /// The bytes after the words of `args` could not be read.
    pub const TAIL_UNREADABLE: u64 = 1 << 3;
    /// `set_tid` was read. Without this bit the array could not be read.
    pub const SET_TID: u64 = 1 << 4;
    /// `uid`, `euid`, `caps` and `user_ns_level` were read.
    pub const CRED: u64 = 1 << 5;
    /// `signal_flags`, `policy` and `open_files_max` were read.
    pub const SIGNAL: u64 = 1 << 6;
    /// `pid_level`, `children_level`, `children_allocated` and `children_inum` were read.
    pub const PID_NS: u64 = 1 << 7;
    /// The caller's children go to another pid namespace than its own.
    pub const OTHER_PID_NS: u64 = 1 << 8;
    /// `pid_ns` was read.
    pub const PID_MAX: u64 = 1 << 9;
    /// `nproc` was read.
    pub const NPROC: u64 = 1 << 10;
    /// `pids` was read, so a group of the pids controller has a limit.
    pub const PIDS: u64 = 1 << 11;
    /// The groups of the pids controller were looked at up to the root, or up to one that is full.
    pub const PIDS_WALKED: u64 = 1 << 12;
    /// `memory` was read, so a group of the memory controller has a limit.
    pub const MEMORY: u64 = 1 << 13;
    /// The limits of namespaces were read.
    pub const NAMESPACES: u64 = 1 << 14;
    /// `seccomp_mode` was read.
    pub const SECCOMP: u64 = 1 << 15;
    /// The caller's children go to another time namespace than its own.
    pub const OTHER_TIME_NS: u64 = 1 << 16;
    /// The group that `CLONE_INTO_CGROUP` names was found, so `pids` and `memory` are about that
    /// group.
    pub const INTO: u64 = 1 << 17;
    /// `names` holds the whole path of a control group.
    pub const GROUP_PATH: u64 = 1 << 18;
    /// The caller has a tracer.
    pub const TRACED: u64 = 1 << 19;
    /// `namespaces` holds a limit that is full.
    pub const NAMESPACE_FULL: u64 = 1 << 20;
    /// `pids_refusals` was read.
    pub const PIDS_REFUSALS: u64 = 1 << 21;
    /// `memory_ooms` was read.
    pub const MEMORY_OOMS: u64 = 1 << 22;
    /// `group_exit_code` was read, and whether the caller is being killed.
    pub const ENDING: u64 = 1 << 23;
    /// A fatal signal is pending for the caller, so it ends before it is back in user space.
    pub const KILLED: u64 = 1 << 24;
    /// The out-of-memory killer has chosen the caller's process.
    pub const OOM_VICTIM: u64 = 1 << 25;
    /// Another thread of the process executes a program, or dumps core, and ends the caller for
    /// that.
    pub const THREAD_TAKES_OVER: u64 = 1 << 26;
    /// `fs_users` was read, and whether one of them executes a program.
    pub const FS: u64 = 1 << 27;
    /// One of those who share the caller's `fs_struct` was inside `execve` as the call returned.
    pub const IN_EXEC: u64 = 1 << 28;
    /// It was read whether the caller is in a chroot. It is read only with `EPERM`.
    pub const ROOT: u64 = 1 << 29;
    /// The caller's root directory is not that of its mount namespace.
    pub const CHROOTED: u64 = 1 << 30;
    /// It was read whether the caller's ids are mapped in its user namespace. It is read only with
    /// `EPERM`.
    pub const IDS: u64 = 1 << 31;
    /// The effective user id has no mapping there.
    pub const UID_UNMAPPED: u64 = 1 << 32;
    /// The effective group id has no mapping there.
    pub const GID_UNMAPPED: u64 = 1 << 33;
    /// `private_pages` was read.
    pub const PRIVATE_PAGES: u64 = 1 << 34;
    /// A tracer took the call away from the kernel, so that it was never made.
    pub const TAKEN: u64 = 1 << 35;
}

/// A counter and its limit.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Counted {
    /// Where the counter stood.
    pub current: u64,
    /// How far the counter may go.
    pub max: u64,
    /// Whose counter it is: the kernfs id of a group, a user id, or the inode number of a
    /// namespace.
    pub owner: u64,
    /// How many steps outwards from the caller's own it lies, which is 0 for the caller's own. In
    /// `namespaces` the upper half is the place in [`NAMESPACES`].
    pub place: u64,
}

impl Counted {
    /// Whether no more fits.
    #[must_use]
    #[inline(always)]
    pub const fn full(&self) -> bool {
        self.current >= self.max
    }

    /// How many more fit.
    #[must_use]
    #[inline(always)]
    pub const fn left(&self) -> u64 {
        self.max.saturating_sub(self.current)
    }
}

/// A user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct UserNamespace {
    /// Its inode number; 0 for none.
    pub inum: u32,
    /// How deep it is nested; 0 for the initial one.
    pub level: u32,
}

/// How many ids of `set_tid` are kept, the innermost ones.
pub const SET_TIDS: usize = 4;

/// How many names of a group's path are kept.
pub const NAMES: usize = 8;
/// How many bytes of each name are kept, with its closing NUL.
pub const NAME_BYTES: usize = 96;

/// The evidence of a refusal, at the moment in which the call returns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct RefusalRecord {
    /// [`RecordKind::Refusal`](crate::record::RecordKind::Refusal).
    pub kind: u32,
    /// The caller's thread id in the initial pid namespace.
    pub tid: u32,
    /// What is known, as bits of [`known`].
    pub bits: u64,
    /// When the attempt returned. Together with `tid` it is the key to the attempt.
    pub at_ns: u64,
    /// The size that the caller gave for the struct of `clone3`, in bytes; 0 for other calls.
    pub args_bytes: u64,
    /// The words of the struct of `clone3`, in the places that [`arg`] gives. What another call
    /// passes is put where `clone3` has it.
    pub args: [u64; arg::COUNT],
    /// The first ids of the array `set_tid`, that of the innermost namespace first.
    pub set_tid: [u32; SET_TIDS],
    /// The caller's real user id in the initial user namespace.
    pub uid: u32,
    /// The caller's effective user id in the initial user namespace.
    pub euid: u32,
    /// How deep the caller's user namespace is nested; 0 for the initial one.
    pub user_ns_level: u32,
    /// How seccomp limits the caller (`task_struct.seccomp.mode`): 0 not at all, 1 strictly, 2 by
    /// filters.
    pub seccomp_mode: u32,
    /// The caller's effective capabilities in its own user namespace.
    pub caps: u64,
    /// The flags of the caller's process (`signal_struct.flags`).
    pub signal_flags: u32,
    /// The caller's scheduling policy (`task_struct.policy`).
    pub policy: u32,
    /// The caller's soft limit of open files (`RLIMIT_NOFILE`).
    pub open_files_max: u64,
    /// How deep the caller's own pid namespace is nested.
    pub pid_level: u32,
    /// How deep the pid namespace of the caller's children is nested.
    pub children_level: u32,
    /// How many ids are in use in the pid namespace of the children, with the bit `PIDNS_ADDING`
    /// (`pid_namespace.pid_allocated`).
    pub children_allocated: u32,
    /// The inode number of the pid namespace of the children.
    pub children_inum: u32,
    /// The ids in use, and `pid_max`, of the pid namespace that has the fewest ids left, among that
    /// of the children and those around it. If several have equally few left, it is the innermost.
    pub pid_ns: Counted,
    /// The user's processes, and `RLIMIT_NPROC`, in the first user namespace that is full from the
    /// caller's outwards, otherwise in the caller's own.
    pub nproc: Counted,
    /// The tasks of the first group of the pids controller that is full from the caller's own
    /// upwards, otherwise of the one that has the fewest left.
    pub pids: Counted,
    /// The memory of the group of the memory controller that has the least left, in pages.
    pub memory: Counted,
    /// The first limit of namespaces (`user.max_*`) that is full, with [`known::NAMESPACE_FULL`].
    /// It is read only with `ENOSPC`.
    pub namespaces: Counted,
    /// The user namespace that keeps `nproc.max` because it was made under that limit; none where
    /// the limit is the caller's own `RLIMIT_NPROC`.
    pub nproc_ns: UserNamespace,
    /// The user namespace whose limit `namespaces` is.
    pub namespaces_ns: UserNamespace,
    /// The user namespace in which `nproc` counts; none before 5.14, where it counts in all of them.
    pub nproc_in: UserNamespace,
    /// How many tasks the pids controller has refused to the caller's own group, with
    /// [`known::PIDS_REFUSALS`]. If it has refused this one, that is more than when the call began.
    pub pids_refusals: u64,
    /// How often the caller's own group of the memory controller was out of memory, with
    /// [`known::MEMORY_OOMS`]. If it has refused this call, that is more than when the call began.
    pub memory_ooms: u64,
    /// What ends the caller's process, in the form in which `wait` returns it
    /// (`signal_struct.group_exit_code`), with [`known::ENDING`].
    pub group_exit_code: u32,
    /// How many tasks share the caller's root and working directory (`fs_struct.users`), with
    /// [`known::FS`].
    pub fs_users: u32,
    /// The pages of the caller's private writable mappings, its stack included, with
    /// [`known::PRIVATE_PAGES`]. A copy of them needs a promise of no more memory than that.
    pub private_pages: u64,
    /// The names in the path of a control group, with [`known::GROUP_PATH`]. With `EAGAIN` it is
    /// the group that `pids` is about, with `ENOMEM` and `EINTR` the one that `memory` is about,
    /// and otherwise the one that `CLONE_INTO_CGROUP` names. The group's own name comes first, and
    /// each has a closing NUL.
    pub names: [[u8; NAME_BYTES]; NAMES],
}

// There is no padding: nothing would set a byte that no field names before it leaves the kernel.
const _: () = assert!(
    size_of::<RefusalRecord>()
        == 32 + 8 * arg::COUNT + 4 * SET_TIDS + 56 + 5 * 32 + 56 + NAMES * NAME_BYTES
);
const _: () = assert!(align_of::<RefusalRecord>() == 8);

impl RefusalRecord {
    /// The flags word as the caller passed it, which for `clone` has the exit signal in its low
    /// byte, and the exit signal; each `None` if it was not read. `clone3` says whether that is the
    /// call.
    #[must_use]
    #[inline(always)]
    pub const fn called(&self, clone3: bool) -> (Option<u64>, Option<u64>) {
        let (flags, exit_signal) = (self.args[arg::FLAGS], self.args[arg::EXIT_SIGNAL]);
        if !self.has(known::ARGS) || self.has(known::ARGS_UNREADABLE) {
            return (None, None);
        }
        match self.args_bytes {
            _ if !clone3 => (Some(flags | exit_signal), Some(exit_signal)),
            bytes if bytes < 8 => (None, None),
            bytes if bytes < 8 * (arg::EXIT_SIGNAL as u64 + 1) => (Some(flags), None),
            _ => (Some(flags), Some(exit_signal)),
        }
    }

    /// Whether `bit` of [`known`] is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, bit: u64) -> bool {
        self.bits & bit != 0
    }
}

/// The places of the words in the struct of `clone3`.
///
/// KERNEL: include/uapi/linux/sched.h `struct clone_args`, 88 bytes in every release since 5.7.
pub mod arg {
    /// Clone flags.
    pub const FLAGS: usize = 0;
    /// Where the pidfd is stored.
    pub const PIDFD: usize = 1;
    /// Where the child's id is stored in the child.
    pub const CHILD_TID: usize = 2;
    /// Where the child's id is stored in the parent.
    pub const PARENT_TID: usize = 3;
    /// The signal that the parent gets when the child ends.
    pub const EXIT_SIGNAL: usize = 4;
    /// The lowest byte of the child's stack.
    pub const STACK: usize = 5;
    /// The size of the child's stack.
    pub const STACK_SIZE: usize = 6;
    /// Thread-local storage.
    pub const TLS: usize = 7;
    /// Where the ids are that the child is to have, that of the innermost pid namespace first.
    pub const SET_TID: usize = 8;
    /// How many ids those are.
    pub const SET_TID_SIZE: usize = 9;
    /// The file descriptor of the control group for the child.
    pub const CGROUP: usize = 10;
    /// How many words there are.
    pub const COUNT: usize = 11;
}

/// The flags that make a namespace, in the order of the kernel's limits, and the file in
/// `/proc/sys/user` that gives the limit.
///
/// KERNEL: `include/linux/user_namespace.h` `enum ucount_type`: these are the first eight in each
/// release.
pub const NAMESPACES: [(u64, &str); 8] = [
    (CLONE_NEWUSER, "max_user_namespaces"),
    (CLONE_NEWPID, "max_pid_namespaces"),
    (CLONE_NEWUTS, "max_uts_namespaces"),
    (CLONE_NEWIPC, "max_ipc_namespaces"),
    (CLONE_NEWNET, "max_net_namespaces"),
    (CLONE_NEWNS, "max_mnt_namespaces"),
    (CLONE_NEWCGROUP, "max_cgroup_namespaces"),
    (CLONE_NEWTIME, "max_time_namespaces"),
];

/// The places in [`NAMESPACES`], in the order in which a fork makes namespaces.
///
/// KERNEL: kernel/nsproxy.c `create_new_namespaces`.
pub const NAMESPACE_ORDER: [u32; 8] = [0, 5, 2, 3, 1, 6, 4, 7];
