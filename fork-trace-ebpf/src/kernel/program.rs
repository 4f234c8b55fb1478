//! The program that an exec runs.

use aya_ebpf::cty::c_void;

use super::{
    offsets::BPRM_FILENAME,
    pointer::{Ptr, field},
};

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
