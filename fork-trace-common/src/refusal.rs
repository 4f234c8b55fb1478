//! The bytes the kernel side writes about a refusal: one [`RefusalRecord`] for each failed attempt,
//! just before its [`ForkRecord`](crate::record::ForkRecord), taken while the caller has not yet
//! returned. What the attempt had charged is given back by then, so a counter that refused it
//! stands at its limit, not above.
//!
//! As in `record`: every byte is zeroed first, and what was not read is marked by an absent bit.

use crate::flags::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME,
    CLONE_NEWUSER, CLONE_NEWUTS,
};

/// What is known of a refusal; `bits` of [`RefusalRecord`].
pub mod known {
    /// `args` holds what the caller passed; of a `clone3` struct, as many words as it has.
    pub const ARGS: u32 = 1;
    /// The words of a `clone3` struct could not be read.
    pub const ARGS_UNREADABLE: u32 = 1 << 1;
    /// The bytes after the words of `args` are not all zero, or cannot all be read.
    pub const TAIL_NOT_ZERO: u32 = 1 << 2;
    /// The bytes after the words of `args` could not be read.
    pub const TAIL_UNREADABLE: u32 = 1 << 3;
    /// `set_tid` was read; without it, the array could not be.
    pub const SET_TID: u32 = 1 << 4;
    /// `uid`, `euid`, `caps` and `user_ns_level` were read.
    pub const CRED: u32 = 1 << 5;
    /// `signal_flags`, `policy` and `open_files_max` were read.
    pub const SIGNAL: u32 = 1 << 6;
    /// `pid_level`, `children_level`, `children_allocated` and `children_inum` were read.
    pub const PID_NS: u32 = 1 << 7;
    /// The caller's children go to another pid namespace than its own.
    pub const OTHER_PID_NS: u32 = 1 << 8;
    /// `pid_ns` was read.
    pub const PID_MAX: u32 = 1 << 9;
    /// `nproc` was read.
    pub const NPROC: u32 = 1 << 10;
    /// `pids` was read: a group of the pids controller has a limit.
    pub const PIDS: u32 = 1 << 11;
    /// The chain of groups of the pids controller was walked to its end.
    pub const PIDS_WALKED: u32 = 1 << 12;
    /// `memory` was read: a group of the memory controller has a limit.
    pub const MEMORY: u32 = 1 << 13;
    /// The limits of namespaces were read.
    pub const NAMESPACES: u32 = 1 << 14;
    /// `seccomp_mode` was read.
    pub const SECCOMP: u32 = 1 << 15;
    /// The caller's children go to another time namespace than its own.
    pub const OTHER_TIME_NS: u32 = 1 << 16;
    /// The group that `CLONE_INTO_CGROUP` names was found: `pids` and `memory` are its own.
    pub const INTO: u32 = 1 << 17;
    /// `names` holds the whole path of the group of `pids`, or for `ENOMEM` of `memory`.
    pub const GROUP_PATH: u32 = 1 << 18;
    /// The caller has a tracer.
    pub const TRACED: u32 = 1 << 19;
    /// `namespaces` holds a limit that is full.
    pub const NAMESPACE_FULL: u32 = 1 << 20;
    /// `pids_refusals` was read.
    pub const PIDS_REFUSALS: u32 = 1 << 21;
    /// `memory_ooms` was read.
    pub const MEMORY_OOMS: u32 = 1 << 22;
}

/// A counter and its limit.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Counted {
    /// Where it stood.
    pub current: u64,
    /// How far it may go.
    pub max: u64,
    /// Whose: the kernfs id of a group, a user id, the inode number of a namespace.
    pub owner: u64,
    /// Which one of several, from the caller outwards, 0 its own; for `namespaces` the place in
    /// [`NAMESPACES`] in the upper half.
    pub place: u64,
}

impl Counted {
    /// Whether one more did not fit.
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

/// Names of a group's path that are kept, its own first.
pub const NAMES: usize = 8;
/// Bytes of each name, the closing NUL included.
pub const NAME_BYTES: usize = 96;

/// The evidence at the moment of a refusal.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct RefusalRecord {
    /// [`RecordKind::Refusal`](crate::record::RecordKind::Refusal).
    pub kind: u32,
    /// What is known: see [`known`].
    pub bits: u32,
    /// The caller's thread id, initial pid namespace.
    pub tid: u32,
    /// `task_struct.seccomp.mode`: 0 none, 1 strict, 2 filter.
    pub seccomp_mode: u32,
    /// When the attempt returned: with `tid`, which attempt this is of.
    pub at_ns: u64,
    /// The size the caller gave for `clone3`'s struct, bytes; 0 for other calls.
    pub args_bytes: u64,
    /// The words of `clone3`'s struct, see [`arg`]; what another call passes stands in the places
    /// where `clone3` has it.
    pub args: [u64; arg::COUNT],
    /// The first, innermost, id of the array `set_tid`.
    pub set_tid: u32,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// Effective user id, initial user namespace.
    pub euid: u32,
    /// How deep the caller's user namespace is nested; 0 for the initial one.
    pub user_ns_level: u32,
    /// Effective capabilities in the caller's own user namespace.
    pub caps: u64,
    /// `signal_struct.flags`.
    pub signal_flags: u32,
    /// `task_struct.policy`: the scheduling policy.
    pub policy: u32,
    /// The caller's soft limit of open files (`RLIMIT_NOFILE`).
    pub open_files_max: u64,
    /// How deep the caller's own pid namespace is nested.
    pub pid_level: u32,
    /// The same of the pid namespace of its children.
    pub children_level: u32,
    /// `pid_namespace.pid_allocated` of that one: ids in use, and the bit `PIDNS_ADDING`.
    pub children_allocated: u32,
    /// Its inode number.
    pub children_inum: u32,
    /// Ids in use of the pid namespace that has the fewest left, counted from that of the children
    /// outwards, and its `pid_max`; the first that is full.
    pub pid_ns: Counted,
    /// Processes of the user against `RLIMIT_NPROC`: of the first user namespace that is full, else
    /// the caller's own.
    pub nproc: Counted,
    /// Tasks of the first group of the pids controller that is full, from the caller's own upwards,
    /// else of the one that has the fewest left.
    pub pids: Counted,
    /// Memory of the group of the memory controller that has the least left, pages.
    pub memory: Counted,
    /// The first namespace limit of `user.max_*` that is full, with
    /// [`known::NAMESPACE_FULL`]; read for `ENOSPC` only.
    pub namespaces: Counted,
    /// How many tasks the pids controller has refused the caller's own group, with
    /// [`known::PIDS_REFUSALS`]: more than when the call began if it refused this one.
    pub pids_refusals: u64,
    /// How often the caller's own group of the memory controller was out of memory, with
    /// [`known::MEMORY_OOMS`]; as above.
    pub memory_ooms: u64,
    /// Names of the path of the group of `pids`, for `ENOMEM` of that of `memory`: its own first, each
    /// closed by a NUL.
    pub names: [[u8; NAME_BYTES]; NAMES],
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(
    size_of::<RefusalRecord>()
        == 32 + 8 * arg::COUNT + 16 + 8 + 8 + 8 + 16 + 5 * 32 + 16 + NAMES * NAME_BYTES
);
const _: () = assert!(align_of::<RefusalRecord>() == 8);

impl RefusalRecord {
    /// The flags word as the caller passed it, with `clone`'s exit signal in its low byte, and the
    /// exit signal, as far as they were read.
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
    pub const fn has(&self, bit: u32) -> bool {
        self.bits & bit != 0
    }
}

/// Places of the words in `clone3`'s struct.
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
    /// Signal at the child's end.
    pub const EXIT_SIGNAL: usize = 4;
    /// Lowest byte of the child's stack.
    pub const STACK: usize = 5;
    /// Size of the child's stack.
    pub const STACK_SIZE: usize = 6;
    /// Thread-local storage.
    pub const TLS: usize = 7;
    /// The ids the child shall have, innermost pid namespace first.
    pub const SET_TID: usize = 8;
    /// How many.
    pub const SET_TID_SIZE: usize = 9;
    /// The file descriptor of the control group for the child.
    pub const CGROUP: usize = 10;
    /// How many words there are.
    pub const COUNT: usize = 11;
}

/// The flags that make a namespace in the order of the kernel's limits, and the file of each limit
/// in `/proc/sys/user`.
///
/// KERNEL: `include/linux/user_namespace.h` `enum ucount_type`: the first eight, in each release.
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

/// Places of [`NAMESPACES`] in the order in which a fork makes them.
///
/// KERNEL: kernel/nsproxy.c `create_new_namespaces`.
pub const NAMESPACE_ORDER: [u32; 8] = [0, 5, 2, 3, 1, 6, 4, 7];
