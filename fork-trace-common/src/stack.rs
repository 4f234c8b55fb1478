//! The user-space stack of a caller: the bytes of a [`StackRecord`].
//!
//! It is taken when the call begins, by frame pointers, and sent as soon as it is taken. Every byte is zeroed
//! before it is filled.

use crate::record::RecordKind;

/// How many frames are kept: the innermost.
pub const FRAMES: usize = 64;
/// How many bytes they have.
pub const STACK_BYTES: u32 = 2048;
/// The symbol of the switch that takes the callers' stacks: a `u8`, 0 or 1.
pub const STACKS_ON: &str = "STACKS_ON";

/// What is known of a frame; `status` of [`Frame`].
///
/// KERNEL: include/uapi/linux/bpf.h `BPF_STACK_BUILD_ID_VALID`, `BPF_STACK_BUILD_ID_IP`.
pub mod status {
    /// `at` is an offset in the file that `build_id` names.
    pub const BUILD_ID: u32 = 1;
    /// `at` is an address.
    pub const ADDRESS: u32 = 2;
}

/// A frame as the kernel gives it.
///
/// KERNEL: include/uapi/linux/bpf.h `struct bpf_stack_build_id`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Frame {
    /// See [`status`].
    pub status: u32,
    /// The build id of the file, zero behind its end.
    pub build_id: [u8; 20],
    /// Where the code goes on: of the innermost frame behind the system call, of another behind a call.
    pub at: u64,
}

impl Frame {
    /// A frame of which nothing is known.
    pub const NONE: Self = Self { status: 0, build_id: [0; 20], at: 0 };
}

/// The stack of one caller. Sent without the part of `stack` that was not filled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct StackRecord {
    /// [`RecordKind::Stack`].
    pub kind: u32,
    /// The calling thread.
    pub tid: u32,
    /// `start_ns` of its attempt.
    pub start_ns: u64,
    /// Where the code of its program begins (`mm_struct.start_code`); 0: not read.
    pub start_code: u64,
    /// Where its first stack begins (`mm_struct.start_stack`), which differs from one exec to the next; 0:
    /// not read.
    pub start_stack: u64,
    /// The inode number of its program's file; 0: not read.
    pub exe_inode: u64,
    /// How many frames of `stack` were read.
    pub frames: u64,
    /// The frames, the innermost first.
    pub stack: [Frame; FRAMES],
}

impl StackRecord {
    /// Bytes before `stack`.
    pub const HEAD: usize = size_of::<Self>() - size_of::<[Frame; FRAMES]>();

    /// A record with every byte zero but the kind.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self {
            kind: RecordKind::Stack as u32,
            tid: 0,
            start_ns: 0,
            start_code: 0,
            start_stack: 0,
            exe_inode: 0,
            frames: 0,
            stack: [Frame::NONE; FRAMES],
        }
    }
}

// There is no padding: nothing would set a byte that no field names before it leaves the kernel.
const _: () = assert!(size_of::<Frame>() == 32);
const _: () = assert!(STACK_BYTES as usize == size_of::<Frame>() * FRAMES);
const _: () = assert!(StackRecord::HEAD == 48);
const _: () = assert!(align_of::<StackRecord>() == 8);
