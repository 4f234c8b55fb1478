//! The control groups that a path names, as a user types it: whatever path this program prints, and
//! whatever hierarchy it is of.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    event::bytes::{bytes, text},
    host::process::{cgroup::lines, unit::unit},
};

/// Where hierarchies are mounted as a rule.
const MOUNT: &str = "/sys/fs/cgroup";

/// The controllers, and the other names that a hierarchy's folder below [`MOUNT`] has.
const HIERARCHIES: [&str; 18] = [
    "unified",
    "systemd",
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "net_prio",
    "blkio",
    "io",
    "perf_event",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
    "cgroup",
];

/// A control group, as the kernel side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The number of its hierarchy; 0 is the unified one.
    pub hierarchy: u64,
    /// Its id, which is unique in that hierarchy only.
    pub id: u64,
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Which group of the hierarchy is mounted.
    root: PathBuf,
    /// Where.
    place: PathBuf,
    hierarchy: u64,
}

/// The groups at `path`. A path below a mount, also of a file of a group, names one; another path is
/// looked up in each hierarchy, and may be in more than one. Empty: there is none. A byte of the path
/// that is no UTF-8 is spelt as [`text`] does.
///
/// KERNEL: fs/kernfs: a group's id is its directory's inode number on 64-bit machines.
#[must_use]
pub fn named(path: &str) -> Vec<Group> {
    let mounts = mounts();
    let typed = PathBuf::from(OsString::from_vec(bytes(path)));
    // The kernel's directory of a hierarchy may have links to it, such as cpu for cpu,cpuacct.
    let whole = fs::canonicalize(&typed).unwrap_or_default();
    let around = mounts.iter().filter(|mount| whole.starts_with(&mount.place));
    if let Some(mount) = around.max_by_key(|mount| mount.place.as_os_str().len()) {
        return group(mount, &whole).into_iter().collect();
    }
    let mut found: Vec<_> =
        mounts.iter().filter_map(|mount| group(mount, &below(mount, &typed)?)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The path from the root of its hierarchy of the group that a user means by `typed`: that path itself, or one
/// below the usual mount, also of a file of the group. Nothing is looked up, for the group may be another host's.
#[must_use]
pub fn from_root(typed: &str) -> String {
    let path = text(&bytes(typed));
    let below = path.strip_prefix(MOUNT).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let parts = below.unwrap_or(&path).split('/').filter(|part| !part.is_empty());
    let mut parts: Vec<&str> = parts.collect();
    if below.is_some() {
        let is_hierarchy = |part: &&str| part.split(',').all(|name| HIERARCHIES.contains(&name));
        if parts.first().is_some_and(is_hierarchy) {
            parts.remove(0);
        }
        let is_file = |part: &&str| {
            let controller = part.split_once('.').map(|(controller, _)| controller);
            controller.is_some_and(|name| HIERARCHIES.contains(&name)) && unit(part).is_none()
        };
        parts.pop_if(|part| is_file(&*part));
    }
    format!("/{}", parts.join("/"))
}

/// Whether any hierarchy is mounted where it can be seen: another mount may cover it.
#[must_use]
pub fn is_mounted() -> bool {
    mounts().iter().any(|mount| mount.place.join("cgroup.procs").exists())
}

/// The group whose directory, or a file in it, is at `place`.
fn group(mount: &Mount, place: &Path) -> Option<Group> {
    let directory = if place.is_dir() { place } else { place.parent()? };
    if !place.exists() || !directory.join("cgroup.procs").exists() {
        return None;
    }
    let id = fs::metadata(directory).ok()?.ino();
    Some(Group { hierarchy: mount.hierarchy, id })
}

/// Where the group is that has this path from the root of its hierarchy.
fn below(mount: &Mount, path: &Path) -> Option<PathBuf> {
    let whole = Path::new("/").join(path);
    let rest = whole.strip_prefix(&mount.root).ok()?;
    // A path that leaves the mount is none of the hierarchy's.
    let leaves = rest.components().any(|part| part.as_os_str() == "..");
    (!leaves).then(|| mount.place.join(rest))
}

fn mounts() -> Vec<Mount> {
    let read = |file: &str| fs::read(file).unwrap_or_default();
    mounts_of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// The mounts of hierarchies in `/proc/PID/mountinfo`, with their numbers of `/proc/PID/cgroup`.
///
/// KERNEL: `fs/proc_namespace.c` `show_mountinfo`: the file system's own options come last, and are the
/// controllers of the hierarchy, or its name.
fn mounts_of(mountinfo: &[u8], groups: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let (root, place) = (unescaped(fields.get(3)?), unescaped(fields.get(4)?));
        let tail = fields.iter().position(|field| *field == b"-")?;
        let options: Vec<_> = fields.get(tail + 3)?.split(|byte| *byte == b',').collect();
        let hierarchy = match *fields.get(tail + 1)? {
            b"cgroup2" => 0,
            b"cgroup" => {
                let is_it =
                    |names: &[u8]| names.split(|byte| *byte == b',').all(|n| options.contains(&n));
                let mut older = lines(groups).filter(|line| !line.controllers.is_empty());
                let line = older.find(|line| is_it(line.controllers))?;
                std::str::from_utf8(line.hierarchy).ok()?.parse().ok()?
            }
            _ => return None,
        };
        Some(Mount { root, place, hierarchy })
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// A path in which the kernel has written blanks and the like as `\040`.
fn unescaped(path: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_have_the_number_of_their_hierarchy() {
        let mountinfo = b"30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            31 24 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw,nosuid master:9 - cgroup none rw,cpu,cpuacct\n\
            32 24 0:28 / /a\\040b rw - cgroup none rw,xattr,name=systemd\n\
            33 24 0:29 / /x rw - cgroup none rw,gone\n\
            34 24 0:30 / / rw - ext4 /dev/sda rw\nbroken\n";
        let groups = b"7:cpu,cpuacct:/x\n1:name=systemd:/\n0::/\n";
        let mount = |root: &str, place: &str, hierarchy| Mount {
            root: root.into(),
            place: place.into(),
            hierarchy,
        };
        let found = mounts_of(mountinfo, groups);
        let wanted = [
            mount("/", "/sys/fs/cgroup/unified", 0),
            mount("/docker/abc", "/sys/fs/cgroup/cpu,cpuacct", 7),
            mount("/", "/a b", 1),
        ];
        assert_eq!(found, wanted);
        let at = |place: usize, path: &str| below(&found[place], Path::new(path));
        assert_eq!(at(0, "/a/b"), Some("/sys/fs/cgroup/unified/a/b".into()));
        assert_eq!(at(0, "a"), Some("/sys/fs/cgroup/unified/a".into()));
        assert_eq!(at(1, "/docker/abc/d"), Some("/sys/fs/cgroup/cpu,cpuacct/d".into()));
        assert_eq!(at(1, "/docker/abcd"), None, "another group");
        assert_eq!(at(0, "/../a"), None, "a group outside of this process's namespace");
    }

    #[test]
    fn a_group_of_another_host_has_its_path_from_the_root() {
        for (typed, wanted) in [
            ("/a/b", "/a/b"),
            ("a/b/", "/a/b"),
            ("/", "/"),
            ("/sys/fs/cgroup", "/"),
            ("/sys/fs/cgroup/a/b", "/a/b"),
            ("/sys/fs/cgroup/unified/a", "/a"),
            ("/sys/fs/cgroup/cpu,cpuacct/a", "/a"),
            ("/sys/fs/cgroup/pids/forker-7/pids.max", "/forker-7"),
            ("/sys/fs/cgroup/a/cgroup.procs", "/a"),
            ("/sys/fs/cgroup/a/cpu.slice", "/a/cpu.slice"),
            ("/sys/fs/cgroups/pids/a", "/sys/fs/cgroups/pids/a"),
            ("/pids/a", "/pids/a"),
            ("/a\\x41\\xff", "/a\\x41\\xff"),
        ] {
            assert_eq!(from_root(typed), wanted, "{typed}");
        }
    }

    #[test]
    fn this_process_is_in_groups_that_are_found() {
        if !is_mounted() {
            return;
        }
        let file = fs::read("/proc/self/cgroup").unwrap();
        let unified = lines(&file).find(|line| line.hierarchy == b"0");
        let mounted = mounts().iter().any(|mount| mount.hierarchy == 0);
        if let Some(line) = unified.filter(|_| mounted) {
            let path = String::from_utf8_lossy(line.path).into_owned();
            assert!(named(&path).iter().any(|group| group.hierarchy == 0), "{path}");
        }
        for mount in mounts() {
            let place = mount.place.to_str().unwrap();
            let root = named(place);
            assert_eq!(root.len(), 1, "{place}");
            assert_eq!(root[0].hierarchy, mount.hierarchy);
            assert_eq!(named(&format!("{place}/cgroup.procs")), root, "a file of the group");
        }
        assert_eq!(named("/no/such/group"), []);
        assert_eq!(named("/etc"), []);
    }
}
