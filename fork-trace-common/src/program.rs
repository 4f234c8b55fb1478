//! The program that a caller runs: the bytes of a [`ProgramRecord`].
//!
//! A process is described once, at its first attempt to fork, and again after each exec. So the user
//! side knows the program of a caller that has ended by the time its attempt is shown.

use crate::{follow_up::ARGS_BYTES, record::RecordKind};

/// How many steps are kept of the way from the program's file up to the root.
pub const STEPS: usize = 20;
/// How many bytes are kept of each step, the closing NUL included.
pub const STEP_BYTES: usize = 64;

/// What is known of a program: the bits of `bits` in a [`ProgramRecord`].
pub mod bits {
    /// `steps` reach the root, and none of them is cut.
    pub const WHOLE: u32 = 1;
    /// The arguments were read.
    pub const ARGS: u32 = 1 << 1;
}

/// A caller's program. The record is sent without the unused end of `args`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct ProgramRecord {
    /// [`RecordKind::Program`].
    pub kind: u32,
    /// See [`bits`].
    pub bits: u32,
    /// The caller's process id, in the initial pid namespace.
    pub tgid: u32,
    /// How often the caller and its ancestors had run another program (`task_struct.self_exec_id`):
    /// it tells the program from an earlier one of the same process.
    pub exec_id: u32,
    /// When the caller's process was made (`start_time` of its group leader).
    pub start_ns: u64,
    /// How many bytes all arguments have together, each with its closing NUL. That may be more than
    /// what is kept.
    pub args_bytes: u64,
    /// The names of the file, of its directory, and so on up to the root, each with its closing NUL.
    /// A step that leads from the root of a mount to where that is mounted is empty.
    pub steps: [[u8; STEP_BYTES]; STEPS],
    /// The arguments, each with its closing NUL.
    pub args: [u8; ARGS_BYTES],
}

impl ProgramRecord {
    /// How many bytes come before `args`.
    pub const HEAD: usize = size_of::<Self>() - ARGS_BYTES;

    /// A record with every byte zero but the kind.
    #[must_use]
    #[inline(always)]
    pub const fn zeroed() -> Self {
        Self {
            kind: RecordKind::Program as u32,
            bits: 0,
            tgid: 0,
            exec_id: 0,
            start_ns: 0,
            args_bytes: 0,
            steps: [[0; STEP_BYTES]; STEPS],
            args: [0; ARGS_BYTES],
        }
    }
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(ProgramRecord::HEAD == 32 + STEPS * STEP_BYTES);
const _: () = assert!(align_of::<ProgramRecord>() == 8);
