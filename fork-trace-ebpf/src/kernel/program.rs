//! The program that an exec runs, and the arguments of the one that runs already.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_probe_read_user};
use fork_trace_common::follow_up::ARGS_BYTES;

use super::{
    offsets::BPRM_FILENAME,
    pointer::{Ptr, field},
};

/// VERIFIER: a length is masked with this, although the compiler knows that it is no more than
/// [`ARGS_BYTES`], so that the verifier sees a bound too.
pub(crate) const ARGS_MASK: u64 = (ARGS_BYTES as u64) * 2 - 1;

/// Reads the calling task's arguments, which are the `bytes` bytes from `start` on in its own memory, as far
/// as there is room for them; returns how many bytes that is, `None` if they cannot be read.
#[inline(always)]
pub(crate) fn read_args(room: &mut [u8; ARGS_BYTES], start: *const u8, bytes: u64) -> Option<u64> {
    let kept = bytes.min(ARGS_BYTES as u64);
    // SAFETY: the helper checks the address; `kept` is no more than there is room for.
    let read = unsafe {
        bpf_probe_read_user(room.as_mut_ptr().cast(), (kept & ARGS_MASK) as u32, start.cast())
    };
    (read == 0).then_some(kept)
}

/// The `linux_binprm` of an exec.
#[derive(Clone, Copy)]
pub(crate) struct Program(Ptr);

impl Program {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(program: *const c_void) -> Self {
        Self(Ptr::new(program))
    }

    /// The file as it was named to the kernel: a string in kernel memory.
    #[inline(always)]
    pub(crate) fn name(self) -> Option<*const u8> {
        field!(self.0, BPRM_FILENAME: *const u8)
    }
}
