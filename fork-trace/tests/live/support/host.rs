//! Things of this host that a test makes or asks about: folders, control groups, BPF programs,
//! speed.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How many times slower than a machine this one is: an emulated guest says that it is one.
pub(crate) fn slowness() -> f64 {
    if env::var_os("FORK_TRACE_EMULATED").is_some() { 20.0 } else { 1.0 }
}

/// The Python of this host, if it has one.
pub(crate) fn python() -> Option<&'static str> {
    const PYTHON: &str = "/usr/bin/python3";
    Path::new(PYTHON).exists().then_some(PYTHON)
}

/// A folder of its own that goes away.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("fork-trace-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A file system mounted on a folder of its own; both go away.
pub(crate) struct Mount(Folder);

impl Mount {
    /// Mounts a file system of this type, with options for `mount`.
    pub(crate) fn new(name: &str, kind: &str, options: &[&str]) -> Self {
        let folder = Folder::new(name);
        let mut mount = Command::new("mount");
        mount.args(["-t", kind]).args(options).arg(kind).arg(folder.path());
        assert!(mount.status().unwrap().success(), "{mount:?}");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg(self.path()).status().ok();
    }
}

/// A cgroup of the unified hierarchy that goes away.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn make(name: &str) -> Option<Self> {
        Self::make_bytes(name.as_bytes())
    }

    /// The same with a name that may be no text.
    pub(crate) fn make_bytes(name: &[u8]) -> Option<Self> {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mount = mounts.iter().map(PathBuf::from).find(|at| at.join("cgroup.procs").exists())?;
        let path = mount.join(OsStr::from_bytes(name));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Some of the kernel's BPF programs by their ids, which it gives to no two programs. Others may
/// trace this host too, so a test asks about those of its own tracer and no others.
#[derive(Debug)]
pub(crate) struct Programs(BTreeSet<u32>);

impl Programs {
    /// Those that a process holds.
    pub(crate) fn of(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        let texts = descriptors.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
        let ids = texts.filter_map(|text| {
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
            id.trim().parse().ok()
        });
        let programs = Self(ids.collect());
        assert!(!programs.0.is_empty(), "{pid} holds no program");
        assert_eq!(programs.left().len(), programs.count(), "the kernel has them all");
        programs
    }

    /// All there are.
    pub(crate) fn all() -> Self {
        let all = aya::programs::loaded_programs();
        Self(all.filter_map(|program| Some(program.ok()?.id())).collect())
    }

    /// Those that came after `earlier` was asked for.
    pub(crate) fn since(self, earlier: &Self) -> Self {
        Self(self.0.difference(&earlier.0).copied().collect())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those of them that the kernel still has.
    fn left(&self) -> Vec<u32> {
        Self::all().0.intersection(&self.0).copied().collect()
    }

    /// Waits until the kernel has freed them, which is a moment after their last user is gone.
    /// Returns those that are still there after this time.
    pub(crate) fn left_after(&self, most: Duration) -> Vec<u32> {
        let end = Instant::now() + most;
        loop {
            let left = self.left();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A time in nanoseconds that an emulated machine may take so much longer for.
pub(crate) fn slower(ns: u64) -> u64 {
    let slower = Duration::from_nanos(ns).mul_f64(slowness());
    u64::try_from(slower.as_nanos()).unwrap_or(u64::MAX)
}
