//! Who fills a limit: which tasks are asked for, and what the iterator over tasks writes of each.

/// The sort of limit whose tasks are asked for; `kind` of [`HoldersOf`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HoldersKind {
    /// Every task counts.
    Host = 0,
    /// The tasks of a user in a user namespace and those nested in it, as `RLIMIT_NPROC` counts them.
    User = 1,
    /// The tasks of a pid namespace and those nested in it.
    PidNamespace = 2,
    /// The tasks of a control group of the pids controller and those below it.
    Group = 3,
}

/// Which tasks are asked for. What a kind does not need is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HoldersOf {
    /// See [`HoldersKind`].
    pub kind: u32,
    /// The user, as an id of the initial user namespace.
    pub uid: u32,
    /// The inode number of the user or pid namespace. 0 stands for every user namespace.
    pub inum: u32,
    /// How deep the pid namespace is nested.
    pub level: u32,
    /// The kernfs id of the group.
    pub group: u64,
}

/// How many bytes a task's name has, with its closing NUL.
///
/// KERNEL: include/linux/sched.h `TASK_COMM_LEN`.
pub const COMM_BYTES: usize = 16;

/// A task that counts against the limit, as the iterator writes it. All ids are of the initial pid
/// namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct HolderSeen {
    /// Process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Process id of the parent (`real_parent`).
    pub ppid: u32,
    /// The task's `PF_*` flags.
    pub flags: u32,
    /// The task's state (`__state`).
    pub state: u32,
    /// How far the task has ended (`exit_state`).
    pub exit_state: u32,
    /// The task's name, filled up with NUL.
    pub comm: [u8; COMM_BYTES],
    /// The name of the first thread of its process.
    pub process_comm: [u8; COMM_BYTES],
    /// The name of the task that is its parent.
    pub parent_comm: [u8; COMM_BYTES],
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(size_of::<HolderSeen>() == 24 + 3 * COMM_BYTES);
const _: () = assert!(size_of::<HoldersOf>() == 24);
