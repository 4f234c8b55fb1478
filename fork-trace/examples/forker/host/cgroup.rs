//! Control groups of our own, under version 1 or 2. Each is removed when it is dropped, and those
//! that killed forkers left are removed before a new one is made.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    call::Skip,
    sys::{self, Errno},
};

/// The names of our groups begin with this; the process id of their maker follows.
const PREFIX: &str = "forker-";

/// The names of groups below one of ours.
pub(crate) const INNER: [&str; 3] = ["gone", "threaded", "invalid"];

/// Controllers that only groups without processes may give to their children; a host that has
/// cgroup2 has one of them there.
/// KERNEL: kernel/cgroup/cgroup.c `cgrp_dfl_threaded_ss_mask`: all but these are threaded.
const DOMAIN: [&str; 5] = ["hugetlb", "rdma", "misc", "io", "memory"];

/// A directory in which groups of a controller may be made.
pub(crate) struct Hierarchy {
    dir: PathBuf,
    /// The controller, where there is one.
    pub(crate) controller: Option<&'static str>,
    /// Whether it is version 1.
    pub(crate) v1: bool,
}

/// A group of our own.
pub(crate) struct Group {
    dir: PathBuf,
    /// The file in which the controller was switched on for this group, and the text that switches
    /// it off again.
    switched_on: Option<(PathBuf, String)>,
}

impl Hierarchy {
    /// The hierarchy of this controller, under whichever version has it.
    pub(crate) fn of(controller: &'static str) -> Result<Self, Skip> {
        let mounts = read("/proc/mounts")?;
        let groups = read("/proc/self/cgroup")?;
        let of_it = |options: &str| options.split(',').any(|option| option == controller);
        if let Some(root) = mount(&mounts, "cgroup", of_it) {
            let dir = own_group(&groups, controller, &root);
            return Ok(Self { dir, controller: Some(controller), v1: true });
        }
        let root = mount(&mounts, "cgroup2", |_options| true);
        let root = root.filter(|root| lists(&root.join("cgroup.controllers"), controller));
        let missing = || Skip(format!("the {controller} controller is not mounted"));
        let root = root.ok_or_else(missing)?;
        let dir = nearest_parent(&own_group(&groups, "", &root), root, controller);
        Ok(Self { dir, controller: Some(controller), v1: false })
    }

    /// The root of version 2, with one of the controllers that only groups without processes may
    /// give on.
    pub(crate) fn unified() -> Result<Self, Skip> {
        let dir = mount(&read("/proc/mounts")?, "cgroup2", |_options| true);
        let dir = dir.ok_or_else(|| Skip("no cgroup2 is mounted".to_owned()))?;
        let has = |name: &&str| lists(&dir.join("cgroup.controllers"), name);
        let controller = DOMAIN.into_iter().find(has);
        Ok(Self { dir, controller, v1: false })
    }

    /// The same place, where no controller is needed.
    pub(crate) fn without_controller(self) -> Self {
        Self { controller: None, ..self }
    }

    /// Makes a group that has the controller.
    pub(crate) fn group(&self) -> Result<Group, Errno> {
        self.sweep();
        let mut group = Group::new(self.dir.join(format!("{PREFIX}{}", sys::tgid())))?;
        if let Some(name) = self.controller.filter(|_| !self.v1)
            && !lists(&group.dir.join("cgroup.controllers"), name)
        {
            let switch = self.dir.join("cgroup.subtree_control");
            fs::write(&switch, format!("+{name}")).map_err(sys::number)?;
            group.switched_on = Some((switch, format!("-{name}")));
        }
        Ok(group)
    }

    /// Removes groups of forkers that were killed.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if is_left_behind(&entry) {
                // Most have no groups below them, and a group that is still in use stays.
                for inner in INNER {
                    drop(fs::remove_dir(entry.path().join(inner)));
                }
                drop(fs::remove_dir(entry.path()));
            }
        }
    }
}

impl Group {
    fn new(dir: PathBuf) -> Result<Self, Errno> {
        fs::create_dir(&dir).map_err(sys::number)?;
        Ok(Self { dir, switched_on: None })
    }

    /// Makes a group below.
    pub(crate) fn inner(&self, name: &str) -> Result<Self, Errno> {
        Self::new(self.dir.join(name))
    }

    /// Opens the group itself.
    pub(crate) fn open(&self) -> Result<File, Errno> {
        File::open(&self.dir).map_err(sys::number)
    }

    /// Writes to one of its files, and returns that for more.
    pub(crate) fn set(&self, file: &str, value: &str) -> Result<File, Errno> {
        let mut open =
            File::options().write(true).open(self.dir.join(file)).map_err(sys::number)?;
        open.write_all(value.as_bytes()).map_err(sys::number)?;
        Ok(open)
    }

    /// Whether one of its files has this text in it.
    pub(crate) fn shows(&self, file: &str, text: &str) -> bool {
        fs::read_to_string(self.dir.join(file)).is_ok_and(|content| content.contains(text))
    }

    /// The number in one of its files.
    pub(crate) fn number(&self, file: &str) -> Result<u64, Errno> {
        let content = fs::read_to_string(self.dir.join(file)).map_err(sys::number)?;
        content.trim_end().parse().map_err(|_error| libc::EINVAL)
    }

    /// Moves this process into the group.
    pub(crate) fn enter(&self) -> Result<(), Errno> {
        self.set("cgroup.procs", "0").map(drop)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may not have left the group yet.
        for _ in 0..200 {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => sys::sleep_ms(5),
                _ => break,
            }
        }
        if let Some((switch, off)) = &self.switched_on {
            // This fails where somebody else uses the controller by now.
            drop(fs::write(switch, off));
        }
    }
}

/// Whether a directory is a group of a forker that is gone.
fn is_left_behind(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists())
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

/// This process's group in the hierarchy of this controller; "" stands for version 2.
fn own_group(groups: &str, controller: &str, root: &Path) -> PathBuf {
    let path = groups.lines().find_map(|line| {
        let mut words = line.splitn(3, ':').skip(1);
        let (controllers, path) = (words.next()?, words.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let own = root.join(path.unwrap_or_default().trim_start_matches('/'));
    // In a container the path may be one that only the host has.
    if own.is_dir() { own } else { root.to_owned() }
}

/// The nearest group above `own` that gives its children the controller, else the root. It cannot
/// be `own`: version 2 lets only the root have both processes and children with limits.
fn nearest_parent(own: &Path, root: PathBuf, controller: &str) -> PathBuf {
    let mut above = own.ancestors().skip(1).take_while(|dir| dir.starts_with(&root));
    let giving = above.find(|dir| lists(&dir.join("cgroup.subtree_control"), controller));
    giving.map_or(root.clone(), Path::to_owned)
}

/// Whether a file of controllers has this one.
fn lists(file: &Path, controller: &str) -> bool {
    let controllers = fs::read_to_string(file).unwrap_or_default();
    controllers.split_whitespace().any(|name| name == controller)
}
