//! The bytes that the kernel side writes and the user side reads: one [`ForkRecord`] for each
//! attempt, one small [`StartRecord`] for each child, and where functions are probed one
//! [`FunctionTimes`] for each attempt.
//!
//! Every byte is set to zero before it is filled. A field that was not read is marked by a bit that
//! is absent from `bits`, never by being zero. All times are nanoseconds of `CLOCK_MONOTONIC`
//! (`bpf_ktime_get_ns`). The layouts are checked when either side is compiled.

use crate::{
    call_site::SITE_COUNT,
    function::{MANY, ONCE},
    memory::MemoryCounts,
    stage::Mark,
};

/// The first word of every record, which says what the rest is.
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
    /// A [`ProgramRecord`](crate::program::ProgramRecord).
    Program = 10,
    /// A [`WaitsRecord`](crate::wait::WaitsRecord).
    Waits = 11,
    /// A [`SampleRecord`](crate::sample::SampleRecord).
    Sample = 12,
    /// A [`LibcRecord`](crate::libc::LibcRecord).
    Libc = 13,
    /// An [`AtforkRecord`](crate::libc::AtforkRecord).
    Atfork = 14,
    /// A [`StackRecord`](crate::stack::StackRecord).
    Stack = 15,
}

/// The system call of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Syscall {
    /// There is none, because the kernel makes the task for itself.
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

/// What is known of an attempt: the bits of `bits` in a [`ForkRecord`].
pub mod bits {
    /// The entry of the call was seen, so `start_ns` and the entry mark are real. From 6.13 on the
    /// kernel now and then skips a program of the system call tracepoints: such a program may be
    /// preempted, and then another task's run of it on the same CPU counts as recursion.
    /// KERNEL: `kernel/trace/bpf_trace.c` `__bpf_trace_run`.
    pub const ENTERED: u32 = 1;
    /// `clone_flags` was read from the caller.
    pub const FLAGS: u32 = 1 << 1;
    /// The child exists: `child` and `task_flags` are filled.
    pub const CHILD: u32 = 1 << 2;
    /// The call came through the 32-bit entry (`TS_COMPAT`).
    pub const COMPAT: u32 = 1 << 3;
    /// The record ends where the parent begins to wait for a vfork child. So `ret` is what the
    /// parent is going to see, and there is no exit mark.
    pub const VFORK_WAIT: u32 = 1 << 4;
    /// The last pass ended with `ERESTARTNOINTR`, so the kernel is expected to repeat the call.
    pub const RESTARTING: u32 = 1 << 5;
    /// `threads` was read.
    pub const THREADS: u32 = 1 << 6;
    /// `copied` was read, its `rss_pages` apart.
    pub const COPIED: u32 = 1 << 8;
    /// The kernel makes the task for itself, so there is no system call.
    pub const KERNEL_MADE: u32 = 1 << 9;
    /// `memory` was read, except for `rss_pages`.
    pub const MEMORY: u32 = 1 << 10;
    /// `memory.rss_pages` was read.
    pub const RSS: u32 = 1 << 11;
    /// `set_tids` was read from the caller.
    pub const SET_TIDS: u32 = 1 << 12;
    /// `pids_refusals` was read.
    pub const PIDS_REFUSALS: u32 = 1 << 13;
    /// `memory_ooms` was read.
    pub const MEMORY_OOMS: u32 = 1 << 14;
    /// `copied.rss_pages` was read.
    pub const COPIED_RSS: u32 = 1 << 15;
    /// Just before the child would share the caller's root and working directory, one of those who
    /// share it was inside `execve`. It is read only for `CLONE_FS`, and only where the mark before
    /// that is taken.
    pub const IN_EXEC: u32 = 1 << 20;
    /// `exit_signal` was read from the caller.
    pub const EXIT_SIGNAL: u32 = 1 << 7;
    /// The caller left its CPU during the attempt: a [`WaitsRecord`](crate::wait::WaitsRecord)
    /// comes before this record, unless it was lost.
    pub const WAITED: u32 = 1 << 21;
    /// The caller is inside a wrapper of the C library: a [`LibcRecord`](crate::libc::LibcRecord) of
    /// the caller comes when it returns from that, and one of the child where it returns too, unless
    /// they are lost.
    pub const LIBC: u32 = 1 << 22;
    /// The record came in brief, and the rest of it is zero. User space sets this bit.
    pub const BRIEF: u32 = 1 << 23;
    /// What a record in brief does not tell.
    pub const NOT_IN_BRIEF: u32 =
        MEMORY | RSS | COPIED | COPIED_RSS | SET_TIDS | PIDS_REFUSALS | MEMORY_OOMS;
}

/// A program of this tracer that works for a while inside an attempt, at a tracepoint that bounds a
/// stage: what it takes is part of the stage that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum TracerProgram {
    /// At [`Mark::SysEnter`].
    SysEnter = 0,
    /// At [`Mark::TaskNewtask`].
    TaskNewtask = 1,
    /// At [`Mark::SchedWakeupNew`].
    SchedWakeupNew = 2,
}

impl TracerProgram {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// A task, taken in the hook.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct TaskIds {
    /// Its process id in the initial pid namespace (`task_struct.tgid`).
    pub tgid: u32,
    /// Its thread id in the initial pid namespace (`task_struct.pid`).
    pub tid: u32,
    /// When it was made (`task_struct.start_time`).
    pub start_ns: u64,
}

/// One attempt to make a task, whether it made one or failed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct ForkRecord {
    /// [`RecordKind::Fork`].
    pub kind: u32,
    /// What is known, as [`bits`].
    pub bits: u32,
    /// When the attempt began: the first entry of the call, before any restart.
    pub start_ns: u64,
    /// The flags word as the caller passed it. For `clone` it has the exit signal in its low byte,
    /// for `clone3` it is the field `flags`, and for `fork` and `vfork` it is what the kernel uses
    /// in its place.
    pub clone_flags: u64,
    /// The flags as `task_newtask` reports them, without the exit signal.
    pub task_flags: u64,
    /// The return value as the caller sees it: the child's id in the caller's pid namespace, or a
    /// negative errno.
    pub ret: i64,
    /// The caller.
    pub parent: TaskIds,
    /// The child, with [`bits::CHILD`].
    pub child: TaskIds,
    /// When the caller's process was made: the `start_time` of its group leader.
    pub parent_process_start_ns: u64,
    /// The id of the caller's cgroup in the unified hierarchy (`bpf_get_current_cgroup_id`).
    pub cgroup_id: u64,
    /// The user's stack pointer at entry. With `ip` it tells a repeated call from a new one.
    pub sp: u64,
    /// The user's instruction pointer at entry.
    pub ip: u64,
    /// The signal that the parent gets when the child ends, or 0 for none, with
    /// [`bits::EXIT_SIGNAL`]. It is what the caller passed, and the field of `clone3` has 64 bits.
    pub exit_signal: u64,
    /// The process id of the caller's parent (`real_parent`) in the initial pid namespace.
    pub ppid: u32,
    /// The real user id of the caller in the initial user namespace.
    pub uid: u32,
    /// How many threads the caller's process has, with [`bits::THREADS`].
    pub threads: u32,
    /// The system call, a [`Syscall`].
    pub syscall: u32,
    /// How many passes before the last one ended with `ERESTARTNOINTR`.
    pub restarts: u32,
    /// The CPU on which the parent woke the child. It is known if the wake-up mark is.
    pub parent_cpu: u32,
    /// The `PF_*` flags of the child (`task_struct.flags`), with [`bits::CHILD`].
    pub child_pf: u32,
    /// The child's id in its own, innermost pid namespace, with [`bits::CHILD`].
    pub child_ns_tid: u32,
    /// The caller's process id in its own, innermost pid namespace; 0 if it was not read.
    pub parent_ns_pid: u32,
    /// The process id, in the initial pid namespace, of the child's parent if that is not the
    /// caller (`CLONE_PARENT`); 0 if it is.
    pub real_parent: u32,
    /// The process id of the caller's tracer in the initial pid namespace; 0 for none.
    pub tracer: u32,
    /// What the tracer asked for (`task_struct.ptrace` of the caller).
    pub ptrace: u32,
    /// The caller's process id as the tool's `/proc` shows it, which may be of another pid namespace
    /// than the initial one; 0 where it shows none.
    pub parent_proc_pid: u32,
    /// The same of the child's process, with [`bits::CHILD`].
    pub child_proc_pid: u32,
    /// The name of the calling task.
    pub comm: [u8; 16],
    /// When the last pass passed each [`Mark`], at [`Mark::place`]; 0 where it did not.
    pub marks: [u64; Mark::IN_RECORD],
    /// The field `set_tid_size` of `clone3`, with [`bits::SET_TIDS`].
    pub set_tids: u64,
    /// The caller's memory when the call began, with [`bits::MEMORY`] and [`bits::RSS`]. It is read
    /// only for calls that copy it.
    pub memory: MemoryCounts,
    /// The child's own memory when it had just been made, and so what was copied for it, with
    /// [`bits::COPIED`] and [`bits::COPIED_RSS`].
    pub copied: MemoryCounts,
    /// How long this tracer's own programs took within the attempt, by [`TracerProgram`]; 0 where one
    /// did not run to its end.
    pub tracer_ns: [u64; TracerProgram::COUNT],
    /// How many tasks the pids controller had refused to the caller's own group when the call
    /// began, with [`bits::PIDS_REFUSALS`].
    pub pids_refusals: u64,
    /// How often the caller's own group of the memory controller had been out of memory when the
    /// call began, with [`bits::MEMORY_OOMS`].
    pub memory_ooms: u64,
    /// The mark of the first allocation that found no memory, plus 1; 0 if there was none.
    pub failed_alloc: u64,
    /// When an allocation began to reclaim memory, by its place in
    /// [`SITES`](crate::call_site::SITES); 0 where it did not have to. Its mark is taken only when it
    /// is done.
    pub alloc_began_ns: [u64; SITE_COUNT],
}

/// The child's start: its first moments on a CPU, and its first return to user space.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct StartRecord {
    /// [`RecordKind::Start`].
    pub kind: u32,
    /// The CPU that it was first given, or if that was not seen the one on which it returned.
    pub cpu: u32,
    /// The child. Its thread id and start time together are the key to the attempt, so that an id
    /// that is used again never matches.
    pub child: TaskIds,
    /// When it passed the `sys_exit` tracepoint; 0 where children do not pass it.
    pub return_ns: u64,
    /// When it was first given a CPU; 0 if that was not seen.
    pub on_cpu_ns: u64,
    /// How long `schedule_tail` took; 0 if that was not seen.
    pub tail_ns: u64,
}

/// The functions that an attempt passed. The record comes right before the attempt's
/// [`ForkRecord`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct FunctionTimes {
    /// [`RecordKind::Functions`].
    pub kind: u32,
    /// The first function that returned an error: its place in `function::FUNCTIONS`, plus 1; 0 if
    /// there was none.
    pub failed: u32,
    /// The calling thread. Together with `start_ns` it is the key to the [`ForkRecord`].
    pub tid: u32,
    /// The errno that it returned; 0 if it returned null, which gives none.
    pub errno: u32,
    /// The field `start_ns` of the [`ForkRecord`].
    pub start_ns: u64,
    /// When the run that counts of each function that runs once was entered and when it returned; 0 where
    /// that was not seen.
    pub once: [[u64; 2]; ONCE],
    /// The runs of each function that runs many times.
    pub many: [Runs; MANY],
}

/// All runs of one function in one attempt.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Runs {
    /// The first entry; 0 if there was none.
    pub first_ns: u64,
    /// The last return.
    pub last_ns: u64,
    /// The entry of the run under way; 0 if there is none.
    pub entered_ns: u64,
    /// How long all runs together took.
    pub spent_ns: u64,
    /// How many runs returned.
    pub count: u64,
}

impl FunctionTimes {
    /// A record with every byte zero, except for the kind.
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
    /// A record with every byte zero, except for the kind.
    #[must_use]
    #[inline(always)]
    pub const fn zeroed() -> Self {
        const NOBODY: TaskIds = TaskIds { tgid: 0, tid: 0, start_ns: 0 };
        Self {
            kind: RecordKind::Fork as u32,
            bits: 0,
            start_ns: 0,
            clone_flags: 0,
            task_flags: 0,
            ret: 0,
            parent: NOBODY,
            child: NOBODY,
            parent_process_start_ns: 0,
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
            parent_proc_pid: 0,
            child_proc_pid: 0,
            comm: [0; 16],
            marks: [0; Mark::IN_RECORD],
            set_tids: 0,
            memory: MemoryCounts::zeroed(),
            copied: MemoryCounts::zeroed(),
            tracer_ns: [0; TracerProgram::COUNT],
            pids_refusals: 0,
            memory_ooms: 0,
            failed_alloc: 0,
            alloc_began_ns: [0; SITE_COUNT],
        }
    }

    /// The length of a record in brief, which is sent when the ring is nearly full: it ends after the marks that
    /// say when the attempt ended, [`Mark::SysExit`] and [`Mark::SchedWakeupNew`].
    pub const BRIEF: usize = core::mem::offset_of!(Self, marks) + 2 * size_of::<u64>();

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
        self.marks.get(mark.place()).copied().unwrap_or_default()
    }
}

// There is no padding: nothing would set a byte that no field names before it leaves the kernel.
const _: () = assert!(size_of::<TaskIds>() == 16);
const _: () = assert!(
    size_of::<ForkRecord>()
        == 16
            + 8 * Mark::IN_RECORD
            + 24
            + 32
            + 40
            + 32
            + 16
            + 56
            + 8 * SITE_COUNT
            + 8 * TracerProgram::COUNT
            + 2 * size_of::<MemoryCounts>()
);
const _: () = assert!(size_of::<StartRecord>() == 48);
const _: () = assert!(size_of::<FunctionTimes>() == 24 + 16 * ONCE + 40 * MANY);
// A record in brief has what it is there for, and no half of anything.
const _: () = assert!(Mark::SysExit.place() == 0 && Mark::SchedWakeupNew.place() == 1);
const _: () = assert!(ForkRecord::BRIEF.is_multiple_of(8));
const _: () = assert!(align_of::<ForkRecord>() == 8 && align_of::<StartRecord>() == 8);
