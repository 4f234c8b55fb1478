//! Which attempts are wanted: kinds of tasks, and properties of the caller and of the outcome.
//!
//! Userspace sets the switches and fills the map before anything is attached; the kernel side
//! decides. What is wanted of one property is any of its values; every property named has to match.

/// A kind of task, as a bit of [`KINDS`].
pub mod kind {
    /// A process with memory of its own, or shared without waiting.
    pub const PROCESS: u32 = 1;
    /// A process for which the caller waits.
    pub const VFORK: u32 = 1 << 1;
    /// A thread of the caller's process.
    pub const THREAD: u32 = 1 << 2;
    /// A kernel thread.
    pub const KTHREAD: u32 = 1 << 3;
    /// A thread of `io_uring`.
    pub const IO_WORKER: u32 = 1 << 4;
    /// Another task that the kernel makes: a helper program, a worker of vhost.
    pub const OTHER: u32 = 1 << 5;
    /// What is shown where nothing else is asked for.
    pub const DEFAULT: u32 = PROCESS | VFORK | THREAD | OTHER;
}

/// A property that [`FilterKey`]es name, as a bit of [`FILTERED_BY`].
pub mod property {
    /// Process id of the caller's parent.
    pub const PPID: u32 = 1;
    /// Real user id of the caller.
    pub const UID: u32 = 1 << 1;
    /// Name of the calling task.
    pub const COMM: u32 = 1 << 2;
    /// Id of the caller's cgroup in the unified hierarchy.
    pub const CGROUP: u32 = 1 << 3;
    /// Error number of the outcome.
    pub const ERRNO: u32 = 1 << 4;
}

/// Key of the map of wishes: a property as one of [`property`], and its value; a name as its bytes.
pub type FilterKey = [u64; 3];

/// Symbol of the kinds that are wanted, a `u32` of [`kind`].
pub const KINDS: &str = "KINDS";
/// Symbol of the properties that are named, a `u32` of [`property`].
pub const FILTERED_BY: &str = "FILTERED_BY";
/// Symbol of the switch for failed attempts only: a `u8`, 0 or 1.
pub const FAILED_ONLY: &str = "FAILED_ONLY";
