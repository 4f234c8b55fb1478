//! One attempt to make a task, from the entry of its system call to the moment its record is sent.
//!
//! There is one record for each attempt. It begins when the calling thread enters the system call,
//! is filled as the attempt passes its marks, and is sent once: when the call returns, or for a
//! vfork when the child is awake, because the parent's wait may last for hours. Meanwhile it lies
//! in the map `ATTEMPTS` under a key that is the calling thread's: `bpf_get_current_pid_tgid`.
//!
//! If the kernel repeats a call because a signal came in, the attempt goes on, and the marks of its
//! last pass are the ones that count.

pub(crate) mod begin;
mod caller;
pub(crate) mod child;
pub(crate) mod finish;
pub(crate) mod functions_passed;
pub(crate) mod libc;
pub(crate) mod marks;
mod record;
pub(crate) mod samples;
pub(crate) mod stacks;
pub(crate) mod start;
mod submit;
pub(crate) mod taken;
pub(crate) mod waits;
