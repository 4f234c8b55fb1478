//! What becomes of a child after its fork: the bytes of the follow-up records.
//!
//! A follow-up names its fork by the caller's thread id and the moment the attempt began, so the
//! user side needs no memory of forks to join them. All times are `CLOCK_MONOTONIC` nanoseconds.

use crate::record::TaskIds;

/// First word of a follow-up, beside [`RecordKind`](crate::record::RecordKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FollowUpKind {
    /// A [`FollowUpRecord`]: the parent of a vfork returned to user space.
    VforkReturned = 3,
    /// A [`FollowUpRecord`]: a task of the child's process ended.
    Ended = 4,
    /// A [`FollowUpRecord`]: the child runs another program.
    Execed = 5,
    /// An [`ExecRecord`]: the same, with the program's name and arguments.
    ExecedWith = 6,
}

/// What is known of a child; `state` of [`Born`].
pub mod state {
    /// Its parent waits until it execs or ends.
    pub const VFORK: u32 = 1;
    /// Its parent had more threads than one, and shares no memory with it.
    pub const THREADS: u32 = 1 << 1;
    /// It runs another program than its parent did when it was made.
    pub const EXECED: u32 = 1 << 2;
}

/// What is known of an event; `bits` of [`FollowUpRecord`].
pub mod bits {
    /// [`super::FollowUpKind::Ended`]: it was the last task of its process, and `exit_code` is the process's.
    pub const WHOLE: u32 = 1;
    /// [`super::FollowUpKind::VforkReturned`]: a fatal signal waits for the parent.
    pub const DYING: u32 = 1 << 1;
    /// [`super::ExecRecord`]: the program's name is longer than there is room for.
    pub const EXE_CUT: u32 = 1 << 2;
    /// [`super::ExecRecord`]: the arguments were read.
    pub const ARGS: u32 = 1 << 3;
}

/// A child process born while tracing, and its fork.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Born {
    /// Which child.
    pub child: TaskIds,
    /// When the attempt that made it began, as in its record.
    pub began_ns: u64,
    /// When it was put on a run queue.
    pub woken_ns: u64,
    /// Thread id of the caller.
    pub parent_tid: u32,
    /// See [`state`].
    pub state: u32,
}

/// One event in a child's life.
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
    /// Whose.
    pub born: Born,
    /// When.
    pub at_ns: u64,
    /// [`FollowUpKind::Ended`]: as `wait(2)` tells it, the signal in the low seven bits, the exit code
    /// in the second byte.
    pub exit_code: u64,
}

/// Bytes of a program's name that are kept.
pub const EXE_BYTES: usize = 256;
/// Bytes of a program's arguments that are kept.
pub const ARGS_BYTES: usize = 1024;

/// A child runs another program. Sent without the unused end of `args`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct ExecRecord {
    /// The event.
    pub life: FollowUpRecord,
    /// Bytes of all arguments together, each with its closing NUL; may exceed what was kept.
    pub args_bytes: u64,
    /// The file as it was named to the kernel, closed by NUL.
    pub exe: [u8; EXE_BYTES],
    /// Arguments, each closed by NUL.
    pub args: [u8; ARGS_BYTES],
}

impl ExecRecord {
    /// Bytes before `args`.
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
            },
            args_bytes: 0,
            exe: [0; EXE_BYTES],
            args: [0; ARGS_BYTES],
        }
    }
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(size_of::<Born>() == 40);
const _: () = assert!(size_of::<FollowUpRecord>() == 64);
const _: () = assert!(ExecRecord::HEAD == 64 + 8 + EXE_BYTES);
const _: () = assert!(align_of::<ExecRecord>() == 8);
