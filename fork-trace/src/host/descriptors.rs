//! What the kernel shows of this process's own file descriptors.

use std::{fs, io, os::fd::RawFd};

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
