//! The tasks that a process sees in its own pid namespace, each with its ids there and in the initial
//! one: one entry of what the kernel's iterator over tasks writes.

/// The function of the kernel that an iterator over tasks attaches to.
pub const TASK_ITERATOR: &str = "bpf_iter_task";

/// Symbol of the level of the pid namespace whose ids the mounted `/proc` shows, a `u32`: 0 for the
/// initial one, [`ABSENT`](crate::settings::ABSENT) where no id can be looked up there.
pub const PROC_LEVEL: &str = "PROC_LEVEL";
/// Symbol of that namespace's number (`pid:[NUMBER]` in `/proc/PID/ns`), a `u32`.
pub const PROC_NS: &str = "PROC_NS";
/// Symbol of the number of levels by which that namespace lies above the reader's own, a `u32`; for
/// the iterator.
pub const PROC_ABOVE: &str = "PROC_ABOVE";

/// One task, as the iterator writes it. All ids of the initial pid namespace are the kernel's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct TaskSeen {
    /// Process id, initial pid namespace.
    pub tgid: u32,
    /// Thread id, initial pid namespace.
    pub tid: u32,
    /// Process id of the parent (`real_parent`), initial pid namespace.
    pub ppid: u32,
    /// Process id in the reader's pid namespace.
    pub seen_tgid: u32,
    /// Thread id in the reader's pid namespace.
    pub seen_tid: u32,
    /// 1 for the reader itself.
    pub is_reader: u32,
    /// Of the reader: how deep its pid namespace is nested; 0 is the initial one.
    pub level: u32,
    /// Of the reader: the number of the pid namespace [`PROC_ABOVE`] levels above its own; 0 where it
    /// is not known.
    pub proc_ns: u32,
}
