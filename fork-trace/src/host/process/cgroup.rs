//! The path of a caller's cgroup, from `/proc/PID/cgroup` a moment later: bounded and cached.
//!
//! A path of the unified hierarchy is kept by the cgroup's id, which the directory's inode confirms;
//! one of the older hierarchies by process and start.

use std::{
    ffi::{OsStr, OsString},
    fs,
    hash::Hash,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::PathBuf,
    sync::Arc,
};

use foldhash::{HashMap, HashSet};

use crate::event::bytes::text;

/// Paths remembered of each sort; a cache starts anew when it is full.
const MOST: usize = 4096;

/// Where the unified hierarchy is mounted: alone, or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Paths of cgroups, as [`text`] tells them.
#[derive(Default)]
pub struct Cgroups {
    unified: HashMap<u64, Arc<str>>,
    older: HashMap<(u32, u64), Arc<str>>,
    /// Of which nothing was found: a cgroup's id and a process of it.
    unknown: HashSet<(u64, (u32, u64))>,
}

impl Cgroups {
    /// What is remembered of the cgroup `id`, or of the process.
    #[must_use]
    pub fn known(&self, id: u64, process: (u32, u64)) -> Option<Arc<str>> {
        let older = self.older.get(&process);
        older.or_else(|| self.unified.get(&id)).cloned()
    }

    /// Whether it is remembered that nothing was found of that process in that cgroup, as of one that
    /// had ended by then.
    #[must_use]
    pub fn is_unknown(&self, id: u64, process: (u32, u64)) -> bool {
        self.unknown.contains(&(id, process))
    }

    /// Reads `/proc/PID/cgroup` of the process that has the id `proc_pid` there, and remembers the
    /// path, or that there is none.
    pub fn read(&mut self, id: u64, process: (u32, u64), proc_pid: u32) -> Option<Arc<str>> {
        let path = self.find(id, process, proc_pid);
        if path.is_none() {
            if self.unknown.len() == MOST {
                self.unknown.clear();
            }
            self.unknown.insert((id, process));
        }
        path
    }

    fn find(&mut self, id: u64, process: (u32, u64), proc_pid: u32) -> Option<Arc<str>> {
        let file = fs::read(format!("/proc/{proc_pid}/cgroup")).ok()?;
        let (unified, older) = paths(&file);
        if let Some(path) = older.filter(|_| unified.is_none_or(|path| path == b"/")) {
            return Some(remember(&mut self.older, process, path));
        }
        let path = unified.filter(|path| inode(path) == Some(id))?;
        Some(remember(&mut self.unified, id, path))
    }
}

fn remember<K: Eq + Hash>(paths: &mut HashMap<K, Arc<str>>, key: K, path: &[u8]) -> Arc<str> {
    if paths.len() == MOST {
        paths.clear();
    }
    let path: Arc<str> = text(path).into();
    paths.insert(key, path.clone());
    path
}

/// The path of the group of process `pid` that a controller sees, now: in the controller's own
/// hierarchy, or else in the unified one; `""` stands for what the unified hierarchy itself does. `None` where
/// the process is gone, and for the root, where nothing holds tasks back: of a process that has ended, version
/// 1 says that it is there.
#[must_use]
pub fn of_controller(pid: u32, controller: &str) -> Option<String> {
    let file = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let is_it = |name: &[u8]| name == controller.as_bytes();
    let own = lines(&file).find(|line| line.controllers.split(|byte| *byte == b',').any(is_it));
    let line = own.or_else(|| lines(&file).find(Line::is_unified))?;
    Some(text(line.path)).filter(|path| path != "/")
}

/// KERNEL: fs/kernfs: a cgroup's id is its directory's inode number on 64-bit machines.
fn inode(path: &[u8]) -> Option<u64> {
    let places = MOUNTS.iter().map(|mount| below(mount, path));
    let place = places.into_iter().find(|place| place.join("cgroup.procs").exists())?;
    fs::metadata(place).ok().map(|data| data.ino())
}

/// `path` below `mount`, even if it begins with a slash.
fn below(mount: &str, path: &[u8]) -> PathBuf {
    let mut place = OsString::from(mount);
    place.push("/");
    place.push(OsStr::from_bytes(path));
    place.into()
}

/// A line of `/proc/PID/cgroup`.
pub(super) struct Line<'a> {
    /// The number of the hierarchy; 0 is the unified one.
    pub(super) hierarchy: &'a [u8],
    /// The controllers of the hierarchy, or its name; empty for the unified one.
    pub(super) controllers: &'a [u8],
    /// The path of the process's group.
    pub(super) path: &'a [u8],
}

impl Line<'_> {
    /// Whether it is of the unified hierarchy, whose number is 0.
    fn is_unified(&self) -> bool {
        self.hierarchy == b"0"
    }
}

/// The lines that are whole.
pub(super) fn lines(file: &[u8]) -> impl Iterator<Item = Line<'_>> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Line { hierarchy, controllers, path })
    })
}

/// The path in the unified hierarchy, and the deepest one in the others, of `/proc/PID/cgroup`.
fn paths(file: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let mut unified = None;
    let mut older: Option<&[u8]> = None;
    for line in lines(file) {
        let path = line.path;
        if line.is_unified() {
            unified = Some(path);
        } else if path != b"/" && older.is_none_or(|deepest| depth(path) > depth(deepest)) {
            older = Some(path);
        }
    }
    (unified, older)
}

fn depth(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_path_and_the_deepest_of_the_others() {
        let file = b"12:pids:/a\n4:memory:/a/b:\xff\n1:name=systemd:/x\n0::/user.slice\n";
        assert_eq!(paths(file), (Some(&b"/user.slice"[..]), Some(&b"/a/b:\xff"[..])));
        assert_eq!(paths(b"0::/\n"), (Some(&b"/"[..]), None));
        assert_eq!(paths(b"2:cpu:/\nbroken\n"), (None, None));
    }

    #[test]
    fn own_path_is_found_or_absent() {
        let mut cgroups = Cgroups::default();
        let process = (std::process::id(), 1);
        let text = fs::read_to_string("/proc/self/cgroup").unwrap();
        if let Some(path) = cgroups.read(u64::MAX, process, process.0) {
            assert!(text.contains(&*path), "only an older path is kept without the right id");
            assert_eq!(cgroups.known(0, process), Some(path));
        }
        assert_eq!(cgroups.read(1, (u32::MAX, 1), u32::MAX), None);
        let unknown = |id| cgroups.is_unknown(id, (u32::MAX, 1));
        assert_eq!((unknown(1), unknown(2)), (true, false));
    }
}
