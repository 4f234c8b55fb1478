//! This process's own file descriptors: what the kernel shows of them, and how many there may be.

use std::{fs, io, os::fd::RawFd, sync::OnceLock};

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The text that the kernel shows of descriptor `fd`, in lines of `name:\tvalue`.
///
/// KERNEL: fs/proc/fd.c `seq_show`, and the file's own `show_fdinfo`.
///
/// # Errors
/// The descriptor is not open, or `/proc` is not mounted.
pub fn info(fd: RawFd) -> io::Result<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
}

/// Every open descriptor of this process, with its text.
#[must_use]
pub fn all() -> Vec<(RawFd, String)> {
    let Ok(open) = fs::read_dir("/proc/self/fdinfo") else { return Vec::new() };
    let descriptor = |name: &str| {
        let fd = name.parse().ok()?;
        Some((fd, info(fd).ok()?))
    };
    open.flatten().filter_map(|entry| descriptor(entry.file_name().to_str()?)).collect()
}

/// The soft limit of open files that this process was started with, once it was raised.
static LIMIT: OnceLock<rlim_t> = OnceLock::new();

/// Keeps the limit that this process was started with, for the command that it may start.
pub(super) fn keep_limit(soft: rlim_t) {
    LIMIT.get_or_init(|| soft);
}

/// Whether this process has raised its limit of open files.
#[must_use]
pub fn limit_is_raised() -> bool {
    LIMIT.get().is_some()
}

/// Sets the limit of open files to what this process was started with. It makes two system calls and
/// nothing else, so that it may be called between fork and exec.
///
/// # Errors
/// The system refuses.
pub fn restore_limit() -> io::Result<()> {
    let Some(soft) = LIMIT.get() else { return Ok(()) };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, *soft, hard)?)
}
