//! What holds an id of a pid namespace, so that no new task can have it.
//!
//! KERNEL: kernel/pid.c `free_pid`: an id is free when no task, no process group and no session has
//! it any more.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, fd::FromRawFd as _, fd::OwnedFd, unix::fs::MetadataExt as _},
};

use nix::libc;

use crate::{
    event::{
        bytes::text,
        cause::{HeldBy, Holder},
    },
    host::process::{numbers, shows_initial_ids, threads},
};

/// Processes that are looked at.
const MOST: usize = 8_192;

/// A pid namespace: its inode number, and how deep it is nested.
#[derive(Clone, Copy, Debug)]
pub struct PidNamespace {
    /// Inode number.
    pub inum: u32,
    /// 0 for the initial one.
    pub level: u32,
}

/// What holds `id` in the pid namespace `of`, as `/proc` shows it now; `None` where nothing is found.
#[must_use]
pub fn holder(id: u32, of: PidNamespace) -> Option<Holder> {
    if !shows_initial_ids() {
        // `/proc` does not show the ids of all levels.
        return None;
    }
    if of.level == 0
        && let Some(status) = Status::read(&format!("/proc/{id}/status"))
    {
        return Some(status.holder());
    }
    let mut other = None;
    for pid in numbers("/proc").ok()?.into_iter().take(MOST) {
        let Some(status) = Status::read(&format!("/proc/{pid}/status")) else { continue };
        if !is_in(pid, &status, of) {
            continue;
        }
        if status.at(&status.ids, of) == Some(id) {
            return Some(status.holder());
        }
        if let Some(thread) =
            status.threads.filter(|threads| *threads > 1).and_then(|_| thread(pid, id, of))
        {
            return Some(thread);
        }
        for (ids, what) in
            [(&status.groups, HeldBy::ProcessGroup), (&status.sessions, HeldBy::Session)]
        {
            if status.at(ids, of) == Some(id) {
                other = Some(Holder { what, ..status.holder() });
            }
        }
    }
    other
}

/// The thread of process `pid` that has `id`.
fn thread(pid: u32, id: u32, of: PidNamespace) -> Option<Holder> {
    let mut all = threads(pid)
        .into_iter()
        .filter_map(|tid| Status::read(&format!("/proc/{pid}/task/{tid}/status")));
    let found = all.find(|status| status.at(&status.ids, of) == Some(id));
    found.map(|status| status.holder())
}

/// Whether process `pid` is in the namespace, or in one that is nested in it.
fn is_in(pid: u32, status: &Status, of: PidNamespace) -> bool {
    let Some(deeper) = status.ids.len().checked_sub(of.level as usize + 1) else { return false };
    if of.level == 0 {
        return true;
    }
    let own = format!("/proc/{pid}/ns/pid");
    if deeper == 0 {
        return inum(&own) == Some(of.inum);
    }
    let above = |mut namespace: OwnedFd| {
        for _ in 0..deeper {
            namespace = parent(&namespace)?;
        }
        File::from(namespace).metadata().ok()
    };
    let found = File::open(own).ok().and_then(|file| above(file.into()));
    found.is_some_and(|data| u32::try_from(data.ino()) == Ok(of.inum))
}

/// The namespace around another one.
fn parent(namespace: &OwnedFd) -> Option<OwnedFd> {
    /// KERNEL: include/uapi/linux/nsfs.h.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: this ioctl has no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) };
    // SAFETY: the kernel has just opened it for us alone.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn inum(path: &str) -> Option<u32> {
    fs::metadata(path).ok().and_then(|data| u32::try_from(data.ino()).ok())
}

/// What `/proc/PID/status` says of a task's ids: each in every pid namespace from the initial one to
/// the task's own.
#[derive(Debug, Default)]
struct Status {
    name: String,
    zombie: bool,
    tgid: u32,
    ids: Vec<u32>,
    groups: Vec<u32>,
    sessions: Vec<u32>,
    threads: Option<u32>,
}

impl Status {
    fn read(path: &str) -> Option<Self> {
        Self::parse(&fs::read(path).ok()?)
    }

    /// KERNEL: fs/proc/array.c `task_state`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some(name) = line.strip_prefix(b"Name:\t") {
                status.name = text(&unescaped(name));
            }
            let Some((field, value)) =
                std::str::from_utf8(line).ok().and_then(|l| l.split_once(':'))
            else {
                continue;
            };
            let value = value.trim();
            let ids = || value.split_ascii_whitespace().map_while(|id| id.parse().ok()).collect();
            match field {
                "State" => status.zombie = value.starts_with('Z'),
                "Tgid" => status.tgid = value.parse().ok()?,
                "NSpid" => status.ids = ids(),
                "NSpgid" => status.groups = ids(),
                "NSsid" => status.sessions = ids(),
                "Threads" => status.threads = value.parse().ok(),
                _ => {}
            }
        }
        (!status.ids.is_empty()).then_some(status)
    }

    fn at(&self, ids: &[u32], of: PidNamespace) -> Option<u32> {
        ids.get(of.level as usize).copied()
    }

    fn holder(&self) -> Holder {
        let what = match self.ids.first() {
            _ if self.zombie => HeldBy::Zombie,
            Some(id) if *id != self.tgid => HeldBy::Thread,
            _ => HeldBy::Process,
        };
        Holder { what, pid: self.tgid, comm: self.name.clone() }
    }
}

/// A name as it is: the kernel spells a line feed and a backslash in it with a backslash.
///
/// KERNEL: fs/proc/array.c `proc_task_name`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(byte) = rest.next() {
        out.push(match (byte, rest.as_slice().first()) {
            (b'\\', Some(b'n')) => rest.next().map_or(*byte, |_n| b'\n'),
            (b'\\', Some(b'\\')) => *rest.next().unwrap_or(byte),
            _ => *byte,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_ids_of_every_level() {
        let text = "Name:\tsh\nState:\tZ (zombie)\nTgid:\t70\nNSpid:\t70\t5\nNSpgid:\t60\t4\nNSsid:\t60\t4\nThreads:\t1\n";
        let status = Status::parse(text.as_bytes()).unwrap();
        let of = |level| PidNamespace { inum: 1, level };
        assert_eq!(
            (status.at(&status.ids, of(0)), status.at(&status.ids, of(1))),
            (Some(70), Some(5))
        );
        assert_eq!(
            (status.at(&status.groups, of(1)), status.at(&status.ids, of(2))),
            (Some(4), None)
        );
        let holder = status.holder();
        assert_eq!((holder.what, holder.pid, holder.comm.as_str()), (HeldBy::Zombie, 70, "sh"));
        assert!(Status::parse(b"Name:\ta\n").is_none());
        let odd = Status::parse(b"Name:\ta\xff\\nb\\\\c\nNSpid:\t7\n").unwrap();
        assert_eq!(odd.name, "a\\xff\nb\\c");
    }

    #[test]
    fn this_process_and_its_threads_hold_their_ids() {
        if !shows_initial_ids() {
            return;
        }
        let initial = PidNamespace { inum: 0, level: 0 };
        let own = holder(std::process::id(), initial).unwrap();
        assert_eq!((own.what, own.pid), (HeldBy::Process, std::process::id()));
        let tid = nix::unistd::gettid().as_raw().unsigned_abs();
        let thread = holder(tid, initial).unwrap();
        assert_eq!(thread.pid, std::process::id());
    }
}
