//! The places of the fields in `struct clone_args`, in words of 64 bit.

pub(super) const FLAGS: usize = 0;
pub(super) const PIDFD: usize = 1;
pub(super) const CHILD_TID: usize = 2;
pub(super) const PARENT_TID: usize = 3;
pub(super) const EXIT_SIGNAL: usize = 4;
pub(super) const STACK: usize = 5;
pub(super) const STACK_SIZE: usize = 6;
pub(super) const TLS: usize = 7;
pub(super) const SET_TID: usize = 8;
pub(super) const SET_TID_SIZE: usize = 9;
pub(super) const CGROUP: usize = 10;
