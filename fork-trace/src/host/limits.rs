//! What `/proc`, `/sys` and the cgroup file systems say just after a refusal.
//!
//! The files are read at most once for each batch of records, so that a storm of failures costs
//! hardly more than one. The number of group paths that are looked up for a batch is bounded too.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
};

use fork_trace_common::{
    flags::CLONE_INTO_CGROUP,
    record::ForkRecord,
    refusal::{RefusalRecord, arg, known},
};
use nix::{errno::Errno, libc};

use crate::{
    event::{bytes::text, cause::Holder, memory::PAGE_BYTES},
    host::process::{
        id_holder::{PidNamespace, holder},
        identity::Identity,
        mappings::{Largest, largest},
    },
};

/// What this process read just after a refusal; `None` where it could not be read. The values may
/// have changed since the kernel refused.
#[derive(Clone, Debug, Default)]
pub struct Aftermath {
    /// The number of tasks of the host, and `kernel.threads-max`.
    pub threads: Option<(u64, u64)>,
    /// `kernel.pid_max` of the initial pid namespace.
    pub pid_max: Option<u64>,
    /// Whether `kernel.unprivileged_userns_clone` is 0; `Some(false)` where there is no such file.
    pub no_unprivileged_userns: Option<bool>,
    /// `vm.overcommit_memory`.
    pub overcommit_mode: Option<u64>,
    /// `Committed_AS` and `CommitLimit`, in bytes.
    pub committed_bytes: Option<(u64, u64)>,
    /// `MemTotal` and `SwapTotal` together, in bytes.
    pub memory_and_swap_bytes: Option<u64>,
    /// The caller's largest private writable mapping, where it matters and the caller is still there.
    pub largest: Option<Largest>,
    /// What the descriptor is open on that `CLONE_INTO_CGROUP` names.
    pub into: Option<String>,
    /// What holds the id that `set_tid` asks for, where it asks for one only.
    pub id_holder: Option<Holder>,
    /// The path of the control group that has the limit, from the root of its hierarchy: of the
    /// memory controller where the error is `ENOMEM` or `EINTR`, otherwise of the pids controller. It is
    /// looked up only where the kernel side could not read the whole path.
    pub group_path: Option<String>,
    /// Where the hierarchy of the pids controller is mounted.
    pub pids_mount: Option<String>,
    /// Where the hierarchy of the memory controller is mounted.
    pub memory_mount: Option<String>,
    /// Whether the hierarchy of the memory controller is one of version 1.
    pub memory_v1: bool,
}

/// How many paths and callers are looked up for one batch.
const LOOKUPS: u32 = 64;
/// Look-ups in a batch for which every process of the host, or every mapping of one, may be read.
const LONG_LOOKUPS: u32 = 4;

/// A mounted hierarchy of control groups.
struct Hierarchy {
    /// The directory where it is mounted.
    place: String,
    /// Whether it is version 1.
    v1: bool,
    /// That directory, open, to find groups by their id.
    root: File,
}

/// Reads what can explain a refusal, and keeps it for the rest of the batch.
pub struct LimitReader {
    /// The hierarchy of the pids controller.
    pids: Option<Hierarchy>,
    /// The hierarchy of the memory controller.
    memory: Option<Hierarchy>,
    /// What was read last.
    known: Aftermath,
    /// Whether it was read for this batch.
    fresh: bool,
    /// How many group paths were looked up for this batch.
    lookups: u32,
    long_lookups: u32,
    identity: Identity,
}

impl LimitReader {
    /// Finds the mounted hierarchies of control groups.
    #[must_use]
    pub fn new() -> Self {
        // A place whose name is no text costs only itself.
        let mounts = fs::read("/proc/mounts").unwrap_or_default();
        let mounts = String::from_utf8_lossy(&mounts);
        let hierarchy = |controller| {
            let (place, v1) = mount(&mounts, controller)?;
            Some(Hierarchy { root: File::open(&place).ok()?, place, v1 })
        };
        let (pids, memory) = (hierarchy("pids"), hierarchy("memory"));
        Self {
            pids,
            memory,
            known: Aftermath::default(),
            fresh: false,
            lookups: 0,
            long_lookups: 0,
            identity: Identity::new(),
        }
    }

    /// Begins a new batch: for it everything is read anew.
    pub const fn next_batch(&mut self) {
        self.fresh = false;
        self.lookups = 0;
        self.long_lookups = 0;
    }

    /// What can explain that the attempt `record` failed with `errno`; `refusal` is the evidence.
    pub fn of(
        &mut self,
        errno: u32,
        record: &ForkRecord,
        refusal: Option<&RefusalRecord>,
    ) -> Aftermath {
        if !self.fresh {
            self.known = read();
            self.fresh = true;
        }
        let mut after = self.known.clone();
        after.pids_mount = self.pids.as_ref().map(|pids| pids.place.clone());
        after.memory_mount = self.memory.as_ref().map(|memory| memory.place.clone());
        after.memory_v1 = self.memory.as_ref().is_some_and(|memory| memory.v1);
        let Some(refusal) = refusal else { return after };
        let is = |of: Errno| i32::try_from(errno) == Ok(of as i32);
        if is(Errno::ENOMEM) && self.mappings_may_refuse(refusal) && self.caller_is_there(record) {
            after.largest = largest(record.parent_proc_pid);
        }
        if is(Errno::EEXIST) {
            after.id_holder = self.id_holder(refusal);
        }
        if refusal.args.first().is_some_and(|flags| flags & CLONE_INTO_CGROUP != 0) {
            after.into = self.into(record, refusal);
        }
        if refusal.has(known::GROUP_PATH) {
            return after;
        }
        if is(Errno::EAGAIN) && refusal.has(known::PIDS) {
            after.group_path = self.path(refusal.pids.owner, true);
        }
        if (is(Errno::ENOMEM) || is(Errno::EINTR)) && refusal.has(known::MEMORY) {
            after.group_path = self.path(refusal.memory.owner, false);
        }
        after
    }

    /// Whether the caller's mappings can be what was refused: with `vm.overcommit_memory` 0 one that is larger
    /// than memory and swap, with 2 all of them together.
    fn mappings_may_refuse(&self, refusal: &RefusalRecord) -> bool {
        let most = refusal.has(known::PRIVATE_PAGES).then_some(refusal.private_pages);
        let bytes = most.unwrap_or(u64::MAX).saturating_mul(PAGE_BYTES);
        match self.known.overcommit_mode {
            Some(0) => self.known.memory_and_swap_bytes.is_none_or(|there_is| bytes > there_is),
            mode => mode == Some(2),
        }
    }

    /// Whether one more long look-up is allowed and the caller's process is still there.
    fn caller_is_there(&mut self, record: &ForkRecord) -> bool {
        if self.long_lookups == LONG_LOOKUPS {
            return false;
        }
        self.long_lookups += 1;
        self.identity.is_alive(record.parent_proc_pid, record.parent_process_start_ns)
    }

    /// What holds the id that was asked for. Of several it is not known which one was taken.
    fn id_holder(&mut self, refusal: &RefusalRecord) -> Option<Holder> {
        let asked = refusal.has(known::SET_TID) && refusal.args.get(arg::SET_TID_SIZE) == Some(&1);
        if !asked || !refusal.has(known::PID_NS) || self.long_lookups == LONG_LOOKUPS {
            return None;
        }
        self.long_lookups += 1;
        let of = PidNamespace { inum: refusal.children_inum, level: refusal.children_level };
        holder(*refusal.set_tid.first()?, of)
    }

    /// What the descriptor is open on that the caller gave.
    fn into(&mut self, record: &ForkRecord, refusal: &RefusalRecord) -> Option<String> {
        if self.lookups == LOOKUPS {
            return None;
        }
        self.lookups += 1;
        let (pid, fd) = (record.parent_proc_pid, refusal.args.get(arg::CGROUP)?);
        let path = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
        let same = self.identity.is_alive(pid, record.parent_process_start_ns);
        same.then(|| text(path.as_os_str().as_bytes()))
    }

    /// The path of the group with this kernfs id, from the root of its hierarchy: that of the pids
    /// controller where `pids` is set, otherwise that of the memory controller.
    fn path(&mut self, id: u64, pids: bool) -> Option<String> {
        if self.lookups == LOOKUPS {
            return None;
        }
        self.lookups += 1;
        let hierarchy = if pids { &self.pids } else { &self.memory }.as_ref()?;
        let group = open_by_id(hierarchy.root.as_raw_fd(), id)?;
        let path = fs::read_link(format!("/proc/self/fd/{}", group.as_raw_fd())).ok()?;
        let path = path.as_os_str().as_bytes().strip_prefix(hierarchy.place.as_bytes())?;
        path.starts_with(b"/").then(|| text(path))
    }
}

impl Default for LimitReader {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens the group with this kernfs id.
///
/// KERNEL: fs/kernfs/mount.c `kernfs_fh_to_dentry`: a file handle is the node's id of 64 bits.
fn open_by_id(root: RawFd, id: u64) -> Option<OwnedFd> {
    /// KERNEL: include/linux/exportfs.h.
    const FILEID_KERNFS: i32 = 0xfe;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the handle has the layout of `struct file_handle`, with as many bytes as it says.
    let fd = unsafe { libc::open_by_handle_at(root, (&raw mut handle).cast(), flags) };
    // SAFETY: the kernel has just opened it for us alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where the hierarchy of this controller is mounted, and whether it is one of version 1. Without
/// one of version 1 it is that of version 2, which has all controllers.
fn mount(mounts: &str, controller: &str) -> Option<(String, bool)> {
    let place = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, fs, options) = (words.next()?, words.next()?, words.next()?);
            let wanted = option.is_none_or(|wanted| options.split(',').any(|o| o == wanted));
            (fs == kind && wanted).then(|| place.to_owned())
        })
    };
    let first = place("cgroup", Some(controller)).map(|place| (place, true));
    first.or_else(|| Some((place("cgroup2", None)?, false)))
}

/// Reads everything that does not depend on the refusal.
fn read() -> Aftermath {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    let userns = "/proc/sys/kernel/unprivileged_userns_clone";
    let forbidden = match fs::read_to_string(userns) {
        Ok(text) => Some(text.trim() == "0"),
        Err(error) => (error.kind() == ErrorKind::NotFound).then_some(false),
    };
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Aftermath {
        threads: tasks(&load).zip(number("/proc/sys/kernel/threads-max")),
        pid_max: number("/proc/sys/kernel/pid_max"),
        no_unprivileged_userns: forbidden,
        overcommit_mode: number("/proc/sys/vm/overcommit_memory"),
        committed_bytes: field(&memory, "Committed_AS:").zip(field(&memory, "CommitLimit:")),
        memory_and_swap_bytes: field(&memory, "MemTotal:")
            .zip(field(&memory, "SwapTotal:"))
            .map(|(memory, swap)| memory.saturating_add(swap)),
        ..Aftermath::default()
    }
}

/// The number of tasks of the host, which stands after the slash in `/proc/loadavg`.
fn tasks(load: &str) -> Option<u64> {
    let (_, tasks) = load.split(' ').nth(3)?.split_once('/')?;
    tasks.parse().ok()
}

/// A field of `/proc/meminfo`, which is in KiB there, in bytes.
fn field(memory: &str, name: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_hierarchy_of_version_1_is_preferred() {
        let mounts =
            "none /cg cgroup rw,memory 0 0\nnone /u cgroup2 rw 0 0\nx / ext4 rw,pids 0 0\n";
        assert_eq!(mount(mounts, "memory"), Some(("/cg".to_owned(), true)));
        assert_eq!(mount(mounts, "pids"), Some(("/u".to_owned(), false)));
        assert_eq!(mount("", "pids"), None);
    }

    #[test]
    fn numbers_are_found_in_the_files() {
        assert_eq!(tasks("0.00 0.01 0.05 2/731 12345\n"), Some(731));
        assert_eq!(tasks("0.00"), None);
        let memory = "MemFree: 1 kB\nCommitted_AS:  2048 kB\n";
        assert_eq!(field(memory, "Committed_AS:"), Some(2 << 20));
        assert_eq!(field(memory, "CommitLimit:"), None);
        let read = read();
        let (tasks, max) = read.threads.unwrap();
        assert!(0 < tasks && tasks < max);
        assert!(read.pid_max.unwrap() > 300 && read.overcommit_mode.is_some());
    }

    #[test]
    fn a_group_is_found_by_its_id() {
        let Some(pids) = LimitReader::new().pids else { return };
        let Some(group) =
            fs::read_dir(&pids.place).unwrap().flatten().find(|entry| entry.path().is_dir())
        else {
            return;
        };
        let id = group.metadata().unwrap().ino();
        // Opening by id needs a right that this process may not have.
        let Some(found) = open_by_id(pids.root.as_raw_fd(), id) else { return };
        let path = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap();
        assert_eq!(path, group.path());
    }
}
