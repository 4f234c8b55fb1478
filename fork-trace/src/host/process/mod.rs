//! Processes, as `/proc` shows them a moment later.

pub mod ancestors;
pub mod cgroup;
pub mod cgroup_path;
pub mod container;
pub mod forking;
pub mod id_holder;
pub mod identity;
pub mod ids;
pub mod mappings;
pub mod stat;
pub mod unit;
pub mod zombies;

use std::{
    fs,
    io::{self, ErrorKind},
    sync::LazyLock,
};

use crate::{event::bytes::text, host::namespaces};

/// The program that this process runs.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// The entries of a folder that are numbers: the processes in `/proc`, the threads in `/proc/PID/task`. One that ends
/// meanwhile is left out.
///
/// # Errors
/// The folder cannot be read.
pub fn numbers(folder: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        match entry {
            Ok(entry) => {
                found.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The threads that process `pid` has now, as `/proc` shows them; none if it is gone.
#[must_use]
pub fn threads(pid: u32) -> Vec<u32> {
    numbers(&format!("/proc/{pid}/task")).unwrap_or_default()
}

/// The name of the thread now that `/proc` shows as `tid`, as [`text`] tells it; `None` if it is gone.
#[must_use]
pub fn task_name(tid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{tid}/comm")).ok()?;
    Some(text(name.strip_suffix(b"\n").unwrap_or(&name)))
}

/// Whether `/proc` shows tasks by their ids of the initial pid namespace, which the kernel side gives:
/// elsewhere such an id may be a stranger's.
#[must_use]
pub fn shows_initial_ids() -> bool {
    // This process stays in its pid namespace.
    static SHOWS: LazyLock<bool> = LazyLock::new(|| namespaces::is_initial("pid"));
    *SHOWS
}

/// The name of the task that the kernel side calls `tid`; `None` where it cannot be looked up.
#[must_use]
pub fn initial_task_name(tid: u32) -> Option<String> {
    shows_initial_ids().then(|| task_name(tid))?
}

/// The most memory that this process has had resident at once since it runs this program.
///
/// KERNEL: `fs/proc/task_mmu.c` `task_mem`: `VmHWM`, in KiB.
#[must_use]
pub fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read("/proc/self/status").ok()?;
    let kib = status_field(&status, "VmHWM:")?.strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// The value in the line of a `/proc/PID/status` that begins with `name`. The first line holds a name that
/// may be any bytes, but the kernel escapes line feeds in it.
fn status_field<'a>(status: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
    std::str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_at_least_what_is_resident() {
        let page = vec![1_u8; 4 << 20];
        let peak = peak_resident_bytes().unwrap();
        assert!(peak >= 4 << 20, "{peak} {}", page.len());
    }
}
