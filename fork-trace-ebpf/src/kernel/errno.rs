//! The error numbers that the kernel side looks at.
//!
//! KERNEL: include/uapi/asm-generic/errno-base.h, include/uapi/asm-generic/errno.h,
//! include/linux/errno.h.

pub(crate) const EPERM: i64 = 1;
pub(crate) const EINTR: i64 = 4;
pub(crate) const EAGAIN: i64 = 11;
pub(crate) const ENOMEM: i64 = 12;
pub(crate) const ENOSPC: i64 = 28;
pub(crate) const ENOSYS: i64 = 38;
/// From here on the numbers are the kernel's own, and a caller does not see them.
pub(crate) const ERESTARTSYS: i64 = 512;
/// The kernel repeats the call once a signal was handled.
pub(crate) const ERESTARTNOINTR: i64 = 513;
