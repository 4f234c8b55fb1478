//! What is the machine's own: the assembler of the calls, their numbers, and the registers of a traced child.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use self::aarch64::{
    FORK, VFORK, fork_call, set_number, set_result, stack_outer, stopped_in,
};
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86_64::{
    FORK, VFORK, fork_call, set_number, set_result, stack_outer, stopped_in,
};
