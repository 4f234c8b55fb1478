//! The path of a caller's cgroup, from `/proc/PID/cgroup` a moment later: bounded and cached.
//!
//! A path of the unified hierarchy is kept by the cgroup's id, which the directory's inode confirms;
//! one of the older hierarchies by process and start.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// Paths remembered of each sort; a cache starts anew when it is full.
const MOST: usize = 4096;

/// Where the unified hierarchy is mounted: alone, or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Paths of cgroups.
#[derive(Default)]
pub struct Cgroups {
    unified: HashMap<u64, String>,
    older: HashMap<(u32, u64), String>,
}

impl Cgroups {
    /// What is remembered of the cgroup `id`, or of the process.
    #[must_use]
    pub fn known(&self, id: u64, process: (u32, u64)) -> Option<&str> {
        let older = self.older.get(&process);
        older.or_else(|| self.unified.get(&id)).map(String::as_str)
    }

    /// Reads `/proc/PID/cgroup` and remembers the path.
    pub fn read(&mut self, id: u64, process: (u32, u64)) -> Option<&str> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", process.0)).ok()?;
        let (unified, older) = paths(&text);
        if let Some(path) = older.filter(|_| unified.is_none_or(|path| path == "/")) {
            if self.older.len() == MOST {
                self.older.clear();
            }
            self.older.insert(process, path.to_owned());
            return self.older.get(&process).map(String::as_str);
        }
        let path = unified.filter(|path| inode(path) == Some(id))?;
        if self.unified.len() == MOST {
            self.unified.clear();
        }
        self.unified.insert(id, path.to_owned());
        self.unified.get(&id).map(String::as_str)
    }
}

/// The id of the cgroup at `path`, either below the mount of the unified hierarchy or with it; `None`
/// where that hierarchy has no such group.
///
/// KERNEL: a cgroup's id is the inode number of its directory.
#[must_use]
pub fn id(path: &str) -> Option<u64> {
    let places: Vec<_> = if MOUNTS.iter().any(|mount| path.starts_with(mount)) {
        vec![PathBuf::from(path)]
    } else {
        MOUNTS.iter().map(|mount| PathBuf::from(format!("{mount}/{path}"))).collect()
    };
    let group = places.iter().find(|place| place.join("cgroup.controllers").exists())?;
    fs::metadata(group).ok().map(|data| data.ino())
}

/// KERNEL: fs/kernfs: a cgroup's id is its directory's inode number on 64-bit machines.
fn inode(path: &str) -> Option<u64> {
    let place = |mount: &&str| PathBuf::from(format!("{mount}{path}"));
    let mounted = |mount: &&&str| place(mount).join("cgroup.procs").exists();
    let mount = MOUNTS.iter().find(mounted)?;
    fs::metadata(place(mount)).ok().map(|data| data.ino())
}

/// The path in the unified hierarchy, and the deepest one in the others, of `/proc/PID/cgroup`.
fn paths(text: &str) -> (Option<&str>, Option<&str>) {
    let mut unified = None;
    let mut older: Option<&str> = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(_), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if number == "0" {
            unified = Some(path);
        } else if path != "/" && older.is_none_or(|deepest| depth(path) > depth(deepest)) {
            older = Some(path);
        }
    }
    (unified, older)
}

fn depth(path: &str) -> usize {
    path.split('/').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_path_and_the_deepest_of_the_others() {
        let text = "12:pids:/a\n4:memory:/a/b:c\n1:name=systemd:/x\n0::/user.slice\n";
        assert_eq!(paths(text), (Some("/user.slice"), Some("/a/b:c")));
        assert_eq!(paths("0::/\n"), (Some("/"), None));
        assert_eq!(paths("2:cpu:/\nbroken\n"), (None, None));
    }

    #[test]
    fn own_path_is_found_or_absent() {
        let mut cgroups = Cgroups::default();
        let process = (std::process::id(), 1);
        let text = fs::read_to_string("/proc/self/cgroup").unwrap();
        if let Some(path) = cgroups.read(u64::MAX, process).map(str::to_owned) {
            assert!(text.contains(&path), "only an older path is kept without the right id");
            assert_eq!(cgroups.known(0, process), Some(path.as_str()));
        }
        assert_eq!(cgroups.read(1, (u32::MAX, 1)), None);
    }
}
