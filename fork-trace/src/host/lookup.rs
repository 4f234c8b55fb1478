//! What `/proc` and `/etc/passwd` add to a [`Fork`]: user name, program, cgroup.
//!
//! Bounded and never waiting: users come from one read of `/etc/passwd` (a directory service could
//! take seconds), programs from a cache and at most `LOOKUPS` fresh look-ups per batch. A value
//! that may belong to another process is left out. Ids are those that the mounted `/proc` shows, as
//! the kernel side gives them: it may be of another pid namespace than the initial one.

use std::{fs, io::Read as _, os::unix::ffi::OsStrExt as _, sync::Arc};

use crate::{
    event::{bytes::text, caller::Parent, fork::Fork},
    host::process::{
        ancestors::Ancestors, cgroup::Cgroups, container::container, identity::Identity,
        stat::Stat, unit::unit,
    },
};
use foldhash::HashMap;

/// Fresh look-ups in `/proc` per batch.
const LOOKUPS: u32 = 256;
/// Bytes of a command line that are shown.
const COMMAND_LINE: u64 = 256;
/// Programs remembered; the cache starts anew when it is full.
const MOST: usize = 4096;

/// Adds names.
pub struct Enricher {
    users: HashMap<u32, Arc<str>>,
    /// By process, its start and its task's name: an exec changes the last.
    programs: HashMap<(u32, u64, String), Option<Arc<str>>>,
    cgroups: Cgroups,
    /// How many fresh look-ups are left in this batch.
    lookups_left: u32,
    identity: Identity,
    ancestors: Ancestors,
    /// It adds nothing.
    silent: bool,
}

impl Enricher {
    /// Reads the users.
    #[must_use]
    pub fn new() -> Self {
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        Self {
            users: users(&passwd),
            programs: HashMap::default(),
            cgroups: Cgroups::default(),
            lookups_left: LOOKUPS,
            identity: Identity::new(),
            ancestors: Ancestors::default(),
            silent: false,
        }
    }

    /// Adds nothing from now on: nobody reads names.
    pub const fn silence(&mut self) {
        self.silent = true;
    }

    /// A new batch begins.
    pub fn next_batch(&mut self) {
        self.lookups_left = LOOKUPS;
    }

    /// Adds what is known to `fork`, whose caller has the id `proc_pid` in `/proc`; 0: none.
    pub fn add(&mut self, fork: &mut Fork, proc_pid: u32) {
        if self.silent {
            return;
        }
        fork.parent.user = self.users.get(&fork.parent.uid).cloned();
        if proc_pid == 0 {
            return;
        }
        if fork.parent.exe.is_none() {
            fork.parent.exe = self.program(&fork.parent, proc_pid);
        }
        fork.parent.cgroup = self.cgroup(&fork.parent, proc_pid);
        let cgroup = fork.parent.cgroup.as_deref();
        let (unit, container) = (cgroup.and_then(unit).map(Arc::from), cgroup.and_then(container));
        fork.parent.unit = unit;
        fork.parent.container = container;
        // Otherwise the ids in `/proc` are those of another pid namespace.
        if proc_pid == fork.parent.pid {
            fork.ancestors =
                self.ancestors.of(&fork.parent, &self.identity, &mut self.lookups_left);
        }
    }

    /// The command line of a process, if the one with that id in `/proc` still is the one that began
    /// then; shortened to `COMMAND_LINE` bytes. No process has the id 0.
    #[must_use]
    pub fn command_line(&self, proc_pid: u32, start_ns: u64) -> Option<String> {
        let mut bytes = Vec::new();
        let file = fs::File::open(format!("/proc/{proc_pid}/cmdline")).ok()?;
        file.take(COMMAND_LINE).read_to_end(&mut bytes).ok()?;
        let stat = Stat::read(proc_pid)?;
        let words: Vec<_> = bytes.split(|byte| *byte == 0).map(text).collect();
        let line = words.join(" ").trim_end().to_owned();
        (self.identity.is_start(stat.start_ticks, start_ns) && !line.is_empty()).then_some(line)
    }

    fn cgroup(&mut self, parent: &Parent, proc_pid: u32) -> Option<Arc<str>> {
        let (id, process) = (parent.cgroup_id?, (parent.pid, parent.start_ns?));
        if let Some(known) = self.cgroups.known(id, process) {
            return Some(known);
        }
        if self.cgroups.is_unknown(id, process) {
            return None;
        }
        self.lookups_left = self.lookups_left.checked_sub(1)?;
        self.cgroups.read(id, process, proc_pid)
    }

    fn program(&mut self, parent: &Parent, proc_pid: u32) -> Option<Arc<str>> {
        let key = (parent.pid, parent.start_ns?, parent.comm.clone());
        if let Some(known) = self.programs.get(&key) {
            return known.clone();
        }
        self.lookups_left = self.lookups_left.checked_sub(1)?;
        if self.programs.len() == MOST {
            self.programs.clear();
        }
        let program = self.read_program(parent, proc_pid, key.1);
        self.programs.insert(key, program.clone());
        program
    }

    /// `/proc/PID/exe`, if the process there is still the one that forked and its leader still
    /// has the name of the task that did. Another thread's name says nothing of an exec.
    fn read_program(&self, parent: &Parent, proc_pid: u32, start_ns: u64) -> Option<Arc<str>> {
        let program = fs::read_link(format!("/proc/{proc_pid}/exe")).ok()?;
        let stat = Stat::read(proc_pid)?;
        let same_process = self.identity.is_start(stat.start_ticks, start_ns);
        let same_program = stat.comm == parent.comm;
        (same_process && same_program).then(|| text(program.as_os_str().as_bytes()).into())
    }
}

impl Default for Enricher {
    fn default() -> Self {
        Self::new()
    }
}

/// Names by number. A line that is none costs only itself.
fn users(passwd: &[u8]) -> HashMap<u32, Arc<str>> {
    let entry = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let uid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        Some((uid, text(name)))
    };
    // The first name of a uid is the one that counts, as for getpwuid.
    let mut users = HashMap::default();
    for (uid, name) in passwd.split(|byte| *byte == b'\n').filter_map(entry) {
        users.entry(uid).or_insert_with(|| name.into());
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_uid_counts() {
        let users = users(
            b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0\nbroken\nb\xffb:x:7:7\nann:x:1000:1000::/:/\n",
        );
        assert_eq!(users.get(&7).map(|name| &**name), Some("b\\xffb"));
        assert_eq!(users.get(&0).map(|name| &**name), Some("root"));
        assert_eq!(users.get(&1000).map(|name| &**name), Some("ann"));
        assert_eq!(users.len(), 3);
    }

    #[test]
    fn only_the_same_process_and_name_give_a_program() {
        let enricher = Enricher::new();
        let pid = std::process::id();
        let stat = Stat::read(pid).unwrap();
        let ticks_ns = stat.start_ticks * enricher.identity.tick_ns;
        let start_ns = ticks_ns.saturating_add_signed(-enricher.identity.boot_ns);
        let mut parent = Parent {
            pid,
            tid: pid,
            ppid: 1,
            comm: stat.comm,
            exe: None,
            argv: None,
            argv_truncated: None,
            uid: 0,
            user: None,
            threads: None,
            start_ns: Some(start_ns),
            cgroup_id: None,
            cgroup: None,
            unit: None,
            ns_pid: None,
            container: None,
            real_parent_pid: None,
            ptrace: None,
        };
        let own = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        assert_eq!(enricher.read_program(&parent, pid, start_ns).as_deref(), Some(own.as_str()));
        assert_eq!(enricher.read_program(&parent, pid, start_ns + 1_000_000_000), None);
        parent.comm = "another".to_owned();
        assert_eq!(enricher.read_program(&parent, pid, start_ns), None);
    }
}
