//! Errors of system calls.

use std::{ffi::c_int, io};

/// An errno; every failure here is one, because it also has to fit a child's exit status.
pub(crate) type Errno = c_int;

/// The errno of an error of std.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn number(error: io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The last call's errno.
pub(crate) fn errno() -> Errno {
    number(io::Error::last_os_error())
}

/// Turns a libc return value into a result.
pub(crate) fn check(ret: c_int) -> Result<c_int, Errno> {
    if ret == -1 { Err(errno()) } else { Ok(ret) }
}
