//! Limits of the number of tasks, and how full they are.

use std::{collections::BTreeSet, fs, path::Path};

use crate::event::{fill::Fill, values::Name};

/// Groups that are looked at for one question.
const MOST: usize = 128;

/// The limits of the host, and those of `groups`, which are paths from the root of their hierarchy, and of the
/// groups around these. What cannot be read, or has no limit, is left out.
#[must_use]
pub fn fills(groups: impl Iterator<Item = impl AsRef<str>>) -> Vec<Fill> {
    // A process of one thread is one task; ids are given to tasks.
    let tasks = fs::read_to_string("/proc/loadavg").ok().and_then(|text| tasks(&text));
    let hosts = [("kernel.threads-max", "threads-max"), ("kernel.pid_max", "pid_max")];
    let hosts = hosts.into_iter().filter_map(|(name, file)| {
        let max = number(Path::new("/proc/sys/kernel").join(file))?;
        fill(name, None, tasks?, max)
    });
    let mut all: Vec<_> = hosts.collect();
    let mut paths = BTreeSet::new();
    for group in groups {
        let around = Path::new(group.as_ref()).ancestors();
        paths.extend(around.map(Path::to_owned).take(MOST - paths.len().min(MOST)));
    }
    // The pids controller of the unified hierarchy, or that of version 1.
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"].map(Path::new);
    all.extend(paths.iter().filter_map(|path| {
        let below = path.strip_prefix("/").ok()?;
        mounts.iter().find_map(|mount| {
            let folder = mount.join(below);
            let (current, max) = (number(folder.join("pids.current"))?, folder.join("pids.max"));
            fill("pids.max", Some(path.to_string_lossy().into_owned()), current, number(max)?)
        })
    }));
    all
}

fn fill(limit: &'static str, path: Option<String>, current: u64, max: u64) -> Option<Fill> {
    (max > 0).then_some(Fill { limit: Name::Borrowed(limit), path, current, max, is_bytes: false })
}

/// A file that holds one number; `max`, which means that there is no limit, is none.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How many tasks there are, of the text of `/proc/loadavg`.
///
/// KERNEL: fs/proc/loadavg.c `loadavg_proc_show`: the fourth word ends in `nr_threads`.
fn tasks(text: &str) -> Option<u64> {
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_the_host_are_read() {
        assert_eq!(tasks("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!((tasks("0.20 0.18"), tasks("")), (None, None));
        let fills = fills(["/no/such/group"].iter());
        let names: Vec<_> = fills.iter().map(|fill| fill.limit.as_ref()).collect();
        assert!(names.contains(&"kernel.threads-max") && names.contains(&"kernel.pid_max"));
        assert!(fills.iter().all(|fill| fill.current > 0 && fill.max > 0), "{fills:?}");
    }
}
