//! Filters: which attempts are wanted, by the kind of task, and by properties of the caller and of
//! the outcome.
//!
//! User space sets the switches and fills the map of filters before it attaches anything, and the
//! kernel side decides. A filter accepts one or more values of a property. If several properties
//! have a filter, an attempt has to pass all of them.

/// A kind of task, as a bit of [`KINDS`].
pub mod kind {
    /// A process with memory of its own, or shared without waiting.
    pub const PROCESS: u32 = 1;
    /// A process that the caller waits for.
    pub const VFORK: u32 = 1 << 1;
    /// A thread of the caller's process.
    pub const THREAD: u32 = 1 << 2;
    /// A kernel thread.
    pub const KTHREAD: u32 = 1 << 3;
    /// A thread of `io_uring`.
    pub const IO_WORKER: u32 = 1 << 4;
    /// Another task that the kernel makes, such as a helper program or a worker of vhost.
    pub const OTHER: u32 = 1 << 5;
    /// The kinds that are shown unless the user asks for others.
    pub const DEFAULT: u32 = PROCESS | VFORK | THREAD | OTHER;
}

/// A property that a [`FilterKey`] names, as a bit of [`FILTERED_BY`].
pub mod property {
    /// The process id of the caller's parent.
    pub const PPID: u32 = 1;
    /// The real user id of the caller.
    pub const UID: u32 = 1 << 1;
    /// The name of the calling task.
    pub const COMM: u32 = 1 << 2;
    /// A control group that the caller is in or below, in whichever hierarchy.
    pub const CGROUP: u32 = 1 << 3;
    /// The error number of the outcome.
    pub const ERRNO: u32 = 1 << 4;
}

/// A key of the map of filters, which stands for a value that is accepted. The first word is the
/// property, one of [`property`]. The value follows, in one word, or in two for the bytes of a
/// name. A control group has two as well: its id, which is unique in its hierarchy only, and the
/// number of that hierarchy. A key with the id 0 says that some group of a hierarchy is wanted, so
/// that the others need not be looked at.
pub type FilterKey = [u64; 3];

/// The symbol of the kinds that are wanted: a `u32`, with bits of [`kind`].
pub const KINDS: &str = "KINDS";
/// The symbol of the properties that have a filter: a `u32`, with bits of [`property`].
pub const FILTERED_BY: &str = "FILTERED_BY";
/// The symbol of the switch that limits tracing to failed attempts: a `u8`, 0 or 1.
pub const FAILED_ONLY: &str = "FAILED_ONLY";
