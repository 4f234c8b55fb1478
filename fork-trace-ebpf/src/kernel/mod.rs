//! Every read of a kernel struct, except for those that make up the evidence of a refusal.
//!
//! User space takes the offset of each field from the running kernel's BTF and sets it before load,
//! as a read-only global ([`offsets`]). A field that this kernel lacks reads as `None`, and the
//! verifier removes the code that would use it.

pub(crate) mod arch;
pub(crate) mod errno;
pub(crate) mod groups;
mod holder;
pub(crate) mod memory;
pub(crate) mod namespace;
pub(crate) mod offsets;
pub(crate) mod pointer;
pub(crate) mod program;
pub(crate) mod regs;
pub(crate) mod syscall;
pub(crate) mod task;
pub(crate) mod waiting;
