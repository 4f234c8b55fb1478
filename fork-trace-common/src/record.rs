//! The bytes the kernel side writes and the user side reads: one [`ForkRecord`] per attempt, one
//! small [`StartRecord`] per child, and where functions are probed a [`FunctionTimes`] per attempt.
//!
//! Every byte is zeroed before it is filled, and a field that was not read is marked by an absent
//! bit in `bits`, never by its zero. All times are `CLOCK_MONOTONIC` nanoseconds
//! (`bpf_ktime_get_ns`). Layout is checked at compile time on both sides.

use crate::{
    function::{MANY, ONCE},
    memory::MemoryCounts,
    stage::Mark,
};

/// First word of every record: what the rest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// A [`ForkRecord`].
    Fork = 1,
    /// A [`StartRecord`].
    Start = 2,
    /// A [`FunctionTimes`].
    Functions = 7,
    /// A [`RefusalRecord`](crate::refusal::RefusalRecord).
    Refusal = 8,
    /// A [`WaitsRecord`](crate::wait::WaitsRecord).
    Waits = 9,
}

/// The system call of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Syscall {
    /// None: a task made by the kernel.
    None = 0,
    /// `fork(2)`.
    Fork = 1,
    /// `vfork(2)`.
    Vfork = 2,
    /// `clone(2)`.
    Clone = 3,
    /// `clone3(2)`.
    Clone3 = 4,
}

/// What is known of a record; `bits` of [`ForkRecord`].
pub mod bits {
    /// The entry of the call was seen: `start_ns` and the entry mark are real. From 6.13 on the
    /// kernel skips a program of the system call tracepoints now and then: they may be preempted,
    /// and another task's run on the same CPU counts as recursion.
    /// KERNEL: `kernel/trace/bpf_trace.c` `__bpf_trace_run`.
    pub const ENTERED: u32 = 1;
    /// `clone_flags` was read from the caller.
    pub const FLAGS: u32 = 1 << 1;
    /// The child exists: `child` and `task_flags` are filled.
    pub const CHILD: u32 = 1 << 2;
    /// The call came through the 32-bit entry (`TS_COMPAT`).
    pub const COMPAT: u32 = 1 << 3;
    /// The record ends where the parent begins to wait for a vfork child: `ret` is what the
    /// parent will see, there is no exit mark.
    pub const VFORK_WAIT: u32 = 1 << 4;
    /// The last pass ended with `ERESTARTNOINTR`; the same call is expected again.
    pub const RESTARTING: u32 = 1 << 5;
    /// `threads` was read.
    pub const THREADS: u32 = 1 << 6;
    /// `copied_vmas` and `copied_page_table_bytes` were read.
    pub const COPIED: u32 = 1 << 8;
    /// The kernel makes the task for itself; there is no system call.
    pub const KERNEL_MADE: u32 = 1 << 9;
    /// `memory` was read, its `rss_pages` apart.
    pub const MEMORY: u32 = 1 << 10;
    /// `memory.rss_pages` was read.
    pub const RSS: u32 = 1 << 11;
    /// `set_tids` was read from the caller.
    pub const SET_TIDS: u32 = 1 << 12;
    /// `pids_refusals` was read.
    pub const PIDS_REFUSALS: u32 = 1 << 13;
    /// `memory_ooms` was read.
    pub const MEMORY_OOMS: u32 = 1 << 14;
    /// `exit_signal` was read from the caller.
    pub const EXIT_SIGNAL: u32 = 1 << 7;
    /// The caller left its CPU during the attempt: a [`WaitsRecord`](crate::wait::WaitsRecord)
    /// comes before this record, unless it was lost.
    pub const WAITED: u32 = 1 << 15;
}

/// A task, taken in the hook.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct TaskIds {
    /// Process id in the initial pid namespace (`task_struct.tgid`).
    pub tgid: u32,
    /// Thread id in the initial pid namespace (`task_struct.pid`).
    pub tid: u32,
    /// When the task was made (`task_struct.start_time`).
    pub start_ns: u64,
}

/// One attempt to make a task, whatever came of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct ForkRecord {
    /// [`RecordKind::Fork`].
    pub kind: u32,
    /// What is known: see [`bits`].
    pub bits: u32,
    /// When the attempt began: its first entry, before any restart.
    pub start_ns: u64,
    /// Times of the marks of the last pass, by [`Mark`]; 0 where a mark was not passed.
    pub marks: [u64; Mark::IN_RECORD],
    /// The flags word as the caller passed it: `clone`'s with the exit signal in its low byte,
    /// `clone3`'s `flags` field, the kernel's equivalent for `fork` and `vfork`.
    pub clone_flags: u64,
    /// The flags as `task_newtask` reports them, exit signal removed.
    pub task_flags: u64,
    /// The return value as the caller sees it: the child's id in the caller's pid namespace, or
    /// a negative errno.
    pub ret: i64,
    /// The caller.
    pub parent: TaskIds,
    /// The child, with [`bits::CHILD`].
    pub child: TaskIds,
    /// When the caller's process was made: `start_time` of its group leader.
    pub parent_process_start_ns: u64,
    /// Mappings of the child's own address space when it was made, with [`bits::COPIED`].
    pub copied_vmas: u64,
    /// Bytes of page tables built for it, with [`bits::COPIED`]; `u64::MAX` where the kernel keeps
    /// no count.
    pub copied_page_table_bytes: u64,
    /// Id of the caller's cgroup in the unified hierarchy (`bpf_get_current_cgroup_id`).
    pub cgroup_id: u64,
    /// User stack pointer at entry: with `ip` it tells a restarted call from a new one.
    pub sp: u64,
    /// User instruction pointer at entry.
    pub ip: u64,
    /// Signal sent to the parent when the child ends, 0 for none; with
    /// [`bits::EXIT_SIGNAL`]. As the caller passed it: `clone3`'s field has 64 bits.
    pub exit_signal: u64,
    /// Process id of the caller's parent (`real_parent`), initial pid namespace.
    pub ppid: u32,
    /// Real user id of the caller, initial user namespace.
    pub uid: u32,
    /// Threads in the caller's process, with [`bits::THREADS`].
    pub threads: u32,
    /// See [`Syscall`].
    pub syscall: u32,
    /// Passes that ended with `ERESTARTNOINTR` before this one.
    pub restarts: u32,
    /// CPU on which the parent woke the child; with the wake-up mark.
    pub parent_cpu: u32,
    /// `PF_*` flags of the child (`task_struct.flags`), with [`bits::CHILD`].
    pub child_pf: u32,
    /// The child's id in its own, innermost pid namespace, with [`bits::CHILD`].
    pub child_ns_tid: u32,
    /// The caller's process id in its own, innermost pid namespace; 0 where it was not read.
    pub parent_ns_pid: u32,
    /// Process id of the child's parent, initial pid namespace, where that is not the caller
    /// (`CLONE_PARENT`); 0 where it is.
    pub real_parent: u32,
    /// Process id of the caller's tracer, initial pid namespace; 0 for none.
    pub tracer: u32,
    /// The caller's `task_struct.ptrace`: what the tracer asked for.
    pub ptrace: u32,
    /// `clone3`'s `set_tid_size`, with [`bits::SET_TIDS`].
    pub set_tids: u64,
    /// The caller's memory when the call began, with [`bits::MEMORY`] and [`bits::RSS`]; only of
    /// calls that copy it.
    pub memory: MemoryCounts,
    /// How many tasks the pids controller had refused the caller's own group when the call began,
    /// with [`bits::PIDS_REFUSALS`].
    pub pids_refusals: u64,
    /// How often the caller's own group of the memory controller had been out of memory then, with
    /// [`bits::MEMORY_OOMS`].
    pub memory_ooms: u64,
    /// The mark of the first allocation that found no memory, plus 1; 0: none.
    pub failed_alloc: u64,
    /// Name of the calling task.
    pub comm: [u8; 16],
}

/// The child's first way back to user space.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct StartRecord {
    /// [`RecordKind::Start`].
    pub kind: u32,
    /// The CPU it was first given; the one it returned on where that was not seen.
    pub cpu: u32,
    /// Which child; joined by thread id and start time, so that a reused id never matches.
    pub child: TaskIds,
    /// When it passed `sys_exit`.
    pub return_ns: u64,
    /// When it was first given a CPU; 0 where that was not seen.
    pub on_cpu_ns: u64,
    /// How long `schedule_tail` took; 0 where that was not seen.
    pub tail_ns: u64,
}

/// The functions that an attempt passed; comes right before its [`ForkRecord`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct FunctionTimes {
    /// [`RecordKind::Functions`].
    pub kind: u32,
    /// The first function that returned an error: its place in `function::FUNCTIONS` plus 1; 0: none.
    pub failed: u32,
    /// The calling thread, with `start_ns` the key to the [`ForkRecord`].
    pub tid: u32,
    /// The error it returned; 0 where it only returned null.
    pub errno: u32,
    /// `start_ns` of the [`ForkRecord`].
    pub start_ns: u64,
    /// Entry and return of each function that runs once, the first time it ran; 0 where not seen.
    pub once: [[u64; 2]; ONCE],
    /// Of each function that runs many times, all together.
    pub many: [Runs; MANY],
}

/// All runs of a function in one attempt.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Runs {
    /// First entry; 0: none.
    pub first_ns: u64,
    /// Last return.
    pub last_ns: u64,
    /// The entry of the run under way; 0: none.
    pub entered_ns: u64,
    /// Time of all runs.
    pub spent_ns: u64,
    /// How many returned.
    pub count: u64,
}

impl FunctionTimes {
    /// A record with every byte zero but the kind.
    #[must_use]
    pub const fn zeroed() -> Self {
        const NONE: Runs = Runs { first_ns: 0, last_ns: 0, entered_ns: 0, spent_ns: 0, count: 0 };
        Self {
            kind: RecordKind::Functions as u32,
            failed: 0,
            tid: 0,
            errno: 0,
            start_ns: 0,
            once: [[0; 2]; ONCE],
            many: [NONE; MANY],
        }
    }
}

impl ForkRecord {
    /// A record with every byte zero.
    #[must_use]
    #[inline(always)]
    pub const fn zeroed() -> Self {
        const NOBODY: TaskIds = TaskIds { tgid: 0, tid: 0, start_ns: 0 };
        Self {
            kind: RecordKind::Fork as u32,
            bits: 0,
            start_ns: 0,
            marks: [0; Mark::IN_RECORD],
            clone_flags: 0,
            task_flags: 0,
            ret: 0,
            parent: NOBODY,
            child: NOBODY,
            parent_process_start_ns: 0,
            copied_vmas: 0,
            copied_page_table_bytes: 0,
            cgroup_id: 0,
            sp: 0,
            ip: 0,
            exit_signal: 0,
            ppid: 0,
            uid: 0,
            threads: 0,
            syscall: Syscall::None as u32,
            restarts: 0,
            parent_cpu: 0,
            child_pf: 0,
            child_ns_tid: 0,
            parent_ns_pid: 0,
            real_parent: 0,
            tracer: 0,
            ptrace: 0,
            set_tids: 0,
            memory: MemoryCounts::zeroed(),
            pids_refusals: 0,
            memory_ooms: 0,
            failed_alloc: 0,
            comm: [0; 16],
        }
    }

    /// Whether `bit` of [`bits`] is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, bit: u32) -> bool {
        self.bits & bit != 0
    }

    /// When the attempt passed `mark`, in nanoseconds of `CLOCK_MONOTONIC`; 0 if it did not, or if
    /// the mark is the child's.
    #[must_use]
    #[inline(always)]
    pub fn mark_ns(&self, mark: Mark) -> u64 {
        self.marks.get(mark as usize).copied().unwrap_or_default()
    }
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(size_of::<TaskIds>() == 16);
const _: () = assert!(
    size_of::<ForkRecord>()
        == 16 + 8 * Mark::IN_RECORD + 24 + 32 + 56 + 32 + 16 + 48 + size_of::<MemoryCounts>()
);
const _: () = assert!(size_of::<StartRecord>() == 48);
const _: () = assert!(size_of::<FunctionTimes>() == 24 + 16 * ONCE + 40 * MANY);
const _: () = assert!(align_of::<ForkRecord>() == 8 && align_of::<StartRecord>() == 8);
