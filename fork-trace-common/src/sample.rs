//! What a task was just doing inside a fork when a timer came: the bytes of a [`SampleRecord`].
//!
//! A timer on each CPU looks whether the task that it interrupts has an attempt under way, and if so
//! writes down its kernel stack. Each sample is sent as soon as it is taken, so the kernel side
//! keeps nothing of it.

use crate::{record::RecordKind, wait::FRAMES};

/// The name of the program that takes samples.
pub const SAMPLE_PROGRAM: &str = "sample";

/// One sample. Sent without the part of `stack` that was not filled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct SampleRecord {
    /// [`RecordKind::Sample`].
    pub kind: u32,
    /// The calling thread.
    pub tid: u32,
    /// `start_ns` of its attempt.
    pub start_ns: u64,
    /// When the sample was taken.
    pub at_ns: u64,
    /// How many addresses of `stack` were read; 0: the stack could not be read.
    pub frames: u64,
    /// The kernel stack: the address of the interrupted instruction, then return addresses, the
    /// innermost first.
    pub stack: [u64; FRAMES],
}

impl SampleRecord {
    /// Bytes before `stack`.
    pub const HEAD: usize = size_of::<Self>() - 8 * FRAMES;

    /// A record with every byte zero but the kind.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self {
            kind: RecordKind::Sample as u32,
            tid: 0,
            start_ns: 0,
            at_ns: 0,
            frames: 0,
            stack: [0; FRAMES],
        }
    }
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(SampleRecord::HEAD == 32);
const _: () = assert!(align_of::<SampleRecord>() == 8);
