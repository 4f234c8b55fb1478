//! What `/proc` and `/etc/passwd` add to a [`Fork`]: user name, program, cgroup.
//!
//! Bounded and never waiting: users come from one read of `/etc/passwd` (a directory service could
//! take seconds), programs from a cache and at most `LOOKUPS` fresh look-ups per batch. A value
//! that may belong to another process is left out.

use std::{collections::HashMap, fs, io::Read as _};

use nix::{
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};

use crate::{
    event::{caller::Parent, fork::Fork},
    host::process::{cgroup::Cgroups, container::container, stat::Stat},
};

/// Fresh look-ups in `/proc` per batch.
const LOOKUPS: u32 = 256;
/// Bytes of a command line that are shown.
const COMMAND_LINE: u64 = 256;
/// Programs remembered; the cache starts anew when it is full.
const MOST: usize = 4096;

/// Adds names.
pub struct Enricher {
    users: HashMap<u32, String>,
    /// By process, its start and its task's name: an exec changes the last.
    programs: HashMap<(u32, u64, String), Option<String>>,
    cgroups: Cgroups,
    lookups: u32,
    /// `CLOCK_BOOTTIME` less `CLOCK_MONOTONIC`: time asleep so far.
    asleep_ns: u64,
    tick_ns: u64,
}

impl Enricher {
    /// Reads the users.
    #[must_use]
    pub fn new() -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0);
        Self {
            users: users(&passwd),
            programs: HashMap::new(),
            cgroups: Cgroups::default(),
            lookups: 0,
            asleep_ns: asleep_ns(),
            tick_ns: 1_000_000_000 / ticks.unwrap_or(100),
        }
    }

    /// A new batch begins.
    pub fn next_batch(&mut self) {
        self.lookups = 0;
    }

    /// Adds what is known to `fork`.
    pub fn add(&mut self, fork: &mut Fork) {
        fork.parent.user = self.users.get(&fork.parent.uid).cloned();
        fork.parent.exe = self.program(&fork.parent);
        fork.parent.cgroup = self.cgroup(&fork.parent);
        fork.parent.container = fork.parent.cgroup.as_deref().and_then(container);
    }

    /// The command line of a process, if the one with that id still is the one that began then;
    /// shortened to `COMMAND_LINE` bytes.
    #[must_use]
    pub fn command_line(&self, pid: u32, start_ns: u64) -> Option<String> {
        let mut bytes = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
        file.take(COMMAND_LINE).read_to_end(&mut bytes).ok()?;
        let stat = Stat::read(pid)?;
        let words: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let line = words.join(" ").trim_end().to_owned();
        (self.is_start(stat.start_ticks, start_ns) && !line.is_empty()).then_some(line)
    }

    fn cgroup(&mut self, parent: &Parent) -> Option<String> {
        let (id, process) = (parent.cgroup_id?, (parent.pid, parent.start_ns?));
        if let Some(known) = self.cgroups.known(id, process) {
            return Some(known.to_owned());
        }
        if self.lookups == LOOKUPS {
            return None;
        }
        self.lookups += 1;
        self.cgroups.read(id, process).map(str::to_owned)
    }

    fn program(&mut self, parent: &Parent) -> Option<String> {
        let key = (parent.pid, parent.start_ns?, parent.comm.clone());
        if let Some(known) = self.programs.get(&key) {
            return known.clone();
        }
        if self.lookups == LOOKUPS {
            return None;
        }
        self.lookups += 1;
        if self.programs.len() == MOST {
            self.programs.clear();
        }
        let program = self.read_program(parent, key.1);
        self.programs.insert(key, program.clone());
        program
    }

    /// `/proc/PID/exe`, if the process there is still the one that forked and its leader still
    /// has the name of the task that did. Another thread's name says nothing of an exec.
    fn read_program(&self, parent: &Parent, start_ns: u64) -> Option<String> {
        let pid = parent.pid;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let stat = Stat::read(pid)?;
        let same_process = self.is_start(stat.start_ticks, start_ns);
        let same_program = stat.comm == parent.comm;
        (same_process && same_program).then(|| program.to_string_lossy().into_owned())
    }

    /// Whether `/proc`'s ticks since boot are the kernel's `start_ns`.
    fn is_start(&self, ticks: u64, start_ns: u64) -> bool {
        ticks.abs_diff((start_ns + self.asleep_ns) / self.tick_ns) <= 1
    }
}

impl Default for Enricher {
    fn default() -> Self {
        Self::new()
    }
}

fn users(passwd: &str) -> HashMap<u32, String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, name.to_owned()))
    };
    // The first name of a uid is the one that counts, as for getpwuid.
    let mut users = HashMap::new();
    for (uid, name) in passwd.lines().filter_map(entry) {
        users.entry(uid).or_insert(name);
    }
    users
}

fn asleep_ns() -> u64 {
    let ns = |clock| {
        clock_gettime(clock).map_or(0, |now| {
            u64::try_from(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
                .unwrap_or(0)
        })
    };
    ns(ClockId::CLOCK_BOOTTIME).saturating_sub(ns(ClockId::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_uid_counts() {
        let users = users("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\nbroken\nann:x:1000:1000::/:/\n");
        assert_eq!(users.get(&0).map(String::as_str), Some("root"));
        assert_eq!(users.get(&1000).map(String::as_str), Some("ann"));
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn only_the_same_process_and_name_give_a_program() {
        let enricher = Enricher::new();
        let pid = std::process::id();
        let stat = Stat::read(pid).unwrap();
        let start_ns = stat.start_ticks * enricher.tick_ns - enricher.asleep_ns;
        let mut parent = Parent {
            pid,
            tid: pid,
            ppid: 1,
            comm: stat.comm,
            exe: None,
            uid: 0,
            user: None,
            threads: None,
            start_ns: Some(start_ns),
            cgroup_id: None,
            cgroup: None,
            ns_pid: None,
            container: None,
            real_parent_pid: None,
            ptrace: None,
        };
        let own = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        assert_eq!(enricher.read_program(&parent, start_ns), Some(own));
        assert_eq!(enricher.read_program(&parent, start_ns + 1_000_000_000), None);
        parent.comm = "another".to_owned();
        assert_eq!(enricher.read_program(&parent, start_ns), None);
    }
}
