//! What forker has to know of the host: rights, its own number in /proc, the pids cgroup.
//!
//! The only module here that reads /proc and /sys.

use std::{
    ffi::c_int,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    call::{Outcome, Skip},
    sys::{self, Errno},
};

/// `CAP_SYS_ADMIN`'s bit in the capability word.
const SYS_ADMIN: u64 = 1 << 21;

/// What the names of our control groups begin with; the maker's process id follows.
pub(crate) const GROUP_PREFIX: &str = "forker-";

/// Whether this process may make namespaces.
pub(crate) fn is_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let word = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let word = word.and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
    word.is_some_and(|word| word & SYS_ADMIN != 0)
}

/// Skips what needs `CAP_SYS_ADMIN` where it is missing.
pub(crate) fn require_admin() -> Outcome {
    if is_admin() { Ok(()) } else { Err(Skip("needs CAP_SYS_ADMIN".to_owned())) }
}

/// Skips what needs to change its uid where that is not allowed.
pub(crate) fn require_root() -> Outcome {
    if sys::is_root() { Ok(()) } else { Err(Skip("needs root, to become another user".to_owned())) }
}

/// This process's id in the pid namespace that /proc was mounted in; 0 if unknown.
pub(crate) fn tid_in_proc() -> c_int {
    let link = fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(0)
}

/// Major and minor number of the kernel's release.
pub(crate) fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Where cgroup2 is mounted, after groups of forkers that were killed were removed from it.
pub(crate) fn unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let dir = mount(&mounts, "cgroup2", |_options| true)?;
    for inner in ["gone", "threaded", "invalid"] {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if is_left_behind(&entry) {
                // There may be none, or one still in use.
                drop(fs::remove_dir(entry.path().join(inner)));
            }
        }
    }
    PidsParent { dir: dir.clone() }.sweep();
    Some(dir)
}

/// Whether a directory is a group of a forker that is gone.
fn is_left_behind(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let maker = name.to_str().and_then(|name| name.strip_prefix(GROUP_PREFIX));
    maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists())
}

/// A directory of the pids controller in which forker may make a group.
pub(crate) struct PidsParent {
    dir: PathBuf,
}

/// A control group of our own, removed on drop.
pub(crate) struct PidsGroup {
    dir: PathBuf,
    /// The file in which the controller was switched on for this group's sake.
    switched_on: Option<PathBuf>,
}

impl PidsParent {
    /// A place under version 1 or 2 of the controller, whichever has it.
    pub(crate) fn find() -> Result<Self, Skip> {
        let mounts = read("/proc/mounts")?;
        let groups = read("/proc/self/cgroup")?;
        let v1 = mount(&mounts, "cgroup", |options| options.split(',').any(|o| o == "pids"));
        let v2 = mount(&mounts, "cgroup2", |_options| true);
        let v2 = v2.filter(|root| has_pids(&root.join("cgroup.controllers")));
        let dir = match (v1, v2) {
            (Some(root), _) => own_group(&groups, "pids", &root),
            (None, Some(root)) => nearest_parent(&own_group(&groups, "", &root), root),
            (None, None) => return Err(Skip("no pids controller is mounted".to_owned())),
        };
        Ok(Self { dir })
    }

    /// Makes a group that holds at most `max` processes.
    pub(crate) fn group(&self, max: u32) -> Result<PidsGroup, Errno> {
        self.sweep();
        let dir = self.dir.join(format!("{GROUP_PREFIX}{}", sys::tgid()));
        fs::create_dir(&dir).map_err(sys::number)?;
        let mut group = PidsGroup { dir, switched_on: None };
        let limit = group.dir.join("pids.max");
        if !limit.exists() {
            let switch = self.dir.join("cgroup.subtree_control");
            fs::write(&switch, "+pids").map_err(sys::number)?;
            group.switched_on = Some(switch);
        }
        fs::write(limit, max.to_string()).map_err(sys::number)?;
        Ok(group)
    }

    /// Removes groups of forkers that were killed.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if is_left_behind(&entry) {
                // One still in use stays.
                drop(fs::remove_dir(entry.path()));
            }
        }
    }
}

impl PidsGroup {
    /// Moves this process into the group.
    pub(crate) fn enter(&self) -> Result<(), Errno> {
        fs::write(self.dir.join("cgroup.procs"), "0").map_err(sys::number)
    }
}

impl Drop for PidsGroup {
    fn drop(&mut self) {
        // The last process may be half way out.
        for _ in 0..200 {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => sys::sleep_ms(5),
                _ => break,
            }
        }
        if let Some(switch) = &self.switched_on {
            // As it was; another user of the controller may forbid it.
            drop(fs::write(switch, "-pids"));
        }
    }
}

fn read(path: &str) -> Result<String, Skip> {
    fs::read_to_string(path).map_err(|error| Skip(format!("{path}: {error}")))
}

/// Where a file system of this type, with such options, is mounted.
fn mount(mounts: &str, kind: &str, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, fs, options) = (words.next()?, words.next()?, words.next()?);
        (fs == kind && wanted(options)).then(|| PathBuf::from(place))
    })
}

/// This process's group in the hierarchy of this controller, "" for version 2.
fn own_group(groups: &str, controller: &str, root: &Path) -> PathBuf {
    let path = groups.lines().find_map(|line| {
        let mut words = line.splitn(3, ':').skip(1);
        let (controllers, path) = (words.next()?, words.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let own = root.join(path.unwrap_or_default().trim_start_matches('/'));
    // In a container the path may be the host's.
    if own.is_dir() { own } else { root.to_owned() }
}

/// The nearest group above `own` that gives its children the controller, else the root. Not `own`:
/// version 2 lets only the root have both processes and children with limits.
fn nearest_parent(own: &Path, root: PathBuf) -> PathBuf {
    let mut above = own.ancestors().skip(1).take_while(|dir| dir.starts_with(&root));
    let giving = above.find(|dir| has_pids(&dir.join("cgroup.subtree_control")));
    giving.map_or(root.clone(), Path::to_owned)
}

/// Whether a file of controllers has pids.
fn has_pids(file: &Path) -> bool {
    let controllers = fs::read_to_string(file).unwrap_or_default();
    controllers.split_whitespace().any(|name| name == "pids")
}
