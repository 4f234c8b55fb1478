//! Follow-ups: what becomes of a child after its fork, as the bytes of records.
//!
//! A follow-up names its fork by the caller's thread id and the moment in which the attempt began.
//! So the user side need not remember forks to join them. All times are nanoseconds of
//! `CLOCK_MONOTONIC`.

use crate::record::TaskIds;

/// The first word of a follow-up. The values are apart from those of
/// [`RecordKind`](crate::record::RecordKind), with which other records begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FollowUpKind {
    /// A [`FollowUpRecord`]: the parent of a vfork returned to user space.
    VforkReturned = 3,
    /// A [`FollowUpRecord`]: a task of the child's process ended.
    Ended = 4,
    /// A [`FollowUpRecord`]: the child runs another program.
    Execed = 5,
    /// An [`ExecRecord`]: the child runs another program, whose name and arguments follow.
    ExecedWith = 6,
    /// An [`ExecRecord`] without arguments: the child could not run another program. `exit_code` is
    /// the error number.
    ExecFailed = 9,
}

/// What is known of a child: the bits of `state` in a [`Born`].
pub mod state {
    /// Its parent waits until it execs or ends.
    pub const VFORK: u32 = 1;
    /// Its parent had several threads, and shares no memory with it.
    pub const THREADS: u32 = 1 << 1;
    /// It runs another program than the one that its parent ran when it made the child.
    pub const EXECED: u32 = 1 << 2;
}

/// What is known of an event: the bits of `bits` in a [`FollowUpRecord`].
pub mod bits {
    /// Of [`super::FollowUpKind::Ended`]: the task was the last of its process, and `exit_code` is
    /// that of the process.
    pub const WHOLE: u32 = 1;
    /// Of [`super::FollowUpKind::VforkReturned`]: the parent has a fatal signal pending.
    pub const DYING: u32 = 1 << 1;
    /// Of [`super::ExecRecord`]: the program's name is longer than what is kept of it.
    pub const EXE_CUT: u32 = 1 << 2;
    /// Of [`super::ExecRecord`]: the arguments were read.
    pub const ARGS: u32 = 1 << 3;
    /// Of [`super::FollowUpKind::Ended`]: `max_rss_pages` was read.
    pub const MAX_RSS: u32 = 1 << 4;
    /// Of [`super::FollowUpKind::Ended`]: `cpu_ns` was read.
    pub const CPU: u32 = 1 << 5;
    /// Of [`super::ExecRecord`]: the program's name was read.
    pub const EXE: u32 = 1 << 6;
}

/// A child process that was made while tracing, and its fork.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Born {
    /// The child.
    pub child: TaskIds,
    /// When the attempt that made it began, as its record gives it; 0 for a child of the tracer's own,
    /// which is the traced command.
    pub began_ns: u64,
    /// When it was put on a run queue.
    pub woken_ns: u64,
    /// The thread id of the caller.
    pub parent_tid: u32,
    /// See [`state`].
    pub state: u32,
}

/// One event after a child's fork.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct FollowUpRecord {
    /// See [`FollowUpKind`].
    pub kind: u32,
    /// See [`bits`].
    pub bits: u32,
    /// The child that it is about.
    pub born: Born,
    /// When it happened.
    pub at_ns: u64,
    /// Of [`FollowUpKind::Ended`]: how the child ended, as `wait(2)` reports it. The low seven bits
    /// are the signal, and the second byte is the exit code.
    pub exit_code: u64,
    /// Of [`FollowUpKind::Ended`], with [`bits::CPU`]: how long all threads of the process were on
    /// CPUs, in nanoseconds.
    pub cpu_ns: u64,
    /// Of [`FollowUpKind::Ended`], with [`bits::MAX_RSS`]: the most pages that the process had
    /// resident at once (`signal_struct.maxrss`).
    pub max_rss_pages: u64,
}

/// How many bytes of a program's name are kept.
pub const EXE_BYTES: usize = 256;
/// How many bytes of a program's arguments are kept.
pub const ARGS_BYTES: usize = 1024;

/// A child runs another program. The record is sent without the unused end of `args`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct ExecRecord {
    /// The event.
    pub life: FollowUpRecord,
    /// How many bytes all arguments have together, each with its closing NUL. That may be more than
    /// what is kept.
    pub args_bytes: u64,
    /// The file as it was named to the kernel, with its closing NUL.
    pub exe: [u8; EXE_BYTES],
    /// The arguments, each with its closing NUL.
    pub args: [u8; ARGS_BYTES],
}

impl ExecRecord {
    /// How many bytes come before `args`.
    pub const HEAD: usize = size_of::<Self>() - ARGS_BYTES;

    /// A record with every byte zero.
    #[must_use]
    #[inline(always)]
    pub const fn zeroed() -> Self {
        const BORN: Born = Born {
            child: TaskIds { tgid: 0, tid: 0, start_ns: 0 },
            began_ns: 0,
            woken_ns: 0,
            parent_tid: 0,
            state: 0,
        };
        Self {
            life: FollowUpRecord {
                kind: FollowUpKind::ExecedWith as u32,
                bits: 0,
                born: BORN,
                at_ns: 0,
                exit_code: 0,
                cpu_ns: 0,
                max_rss_pages: 0,
            },
            args_bytes: 0,
            exe: [0; EXE_BYTES],
            args: [0; ARGS_BYTES],
        }
    }
}

// There is no padding: nothing would set a byte that no field names before it leaves the kernel.
const _: () = assert!(size_of::<Born>() == 40);
const _: () = assert!(size_of::<FollowUpRecord>() == 80);
const _: () = assert!(ExecRecord::HEAD == 80 + 8 + EXE_BYTES);
const _: () = assert!(align_of::<ExecRecord>() == 8);
