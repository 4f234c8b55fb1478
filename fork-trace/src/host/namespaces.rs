//! The namespaces that this process runs in.

use std::{fs, os::unix::fs::MetadataExt as _};

/// A sort of namespaces: its name in `/proc/PID/ns`, and the number of the initial one.
///
/// KERNEL: `PROC_PID_INIT_INO` and its like in `include/linux/proc_ns.h`; the initial mount namespace
/// has no such number.
const KINDS: [(&str, Option<u64>); 5] = [
    ("pid", Some(0xeffffffc)),
    ("user", Some(0xeffffffd)),
    ("mnt", None),
    ("cgroup", Some(0xeffffffb)),
    ("time", Some(0xeffffffa)),
];

/// A namespace of this process.
#[derive(Clone, Copy, Debug)]
pub struct Namespace {
    /// Its sort, as in `/proc/PID/ns`.
    pub kind: &'static str,
    /// Its number, as in `pid:[NUMBER]`.
    pub number: u64,
    /// Whether it is the initial one; `None` where that cannot be told.
    pub initial: Option<bool>,
}

/// Those of this process, as far as the kernel has such namespaces and shows them.
#[must_use]
pub fn own() -> Vec<Namespace> {
    let own = |(kind, initial): (&'static str, Option<u64>)| {
        let number = number(kind)?;
        Some(Namespace { kind, number, initial: initial.map(|initial| initial == number) })
    };
    KINDS.into_iter().filter_map(own).collect()
}

/// Whether this process is in the initial namespace of a sort; also where the kernel has no others.
#[must_use]
pub fn is_initial(kind: &str) -> bool {
    let initial = KINDS.iter().find_map(|(name, initial)| (*name == kind).then_some(*initial));
    number(kind).is_none_or(|number| initial.flatten() == Some(number))
}

/// Whether children of this process will be in another namespace of this kind (`pid`, `time`) than itself.
/// If it is the pid namespace, it can have no threads.
///
/// KERNEL: kernel/fork.c `copy_process`; fs/proc/namespaces.c: before 7.0 or so `pid_for_children` leads
/// nowhere until the other namespace has a process.
#[must_use]
pub fn children_are_elsewhere(kind: &str) -> bool {
    number(kind) != number(&format!("{kind}_for_children"))
}

fn number(name: &str) -> Option<u64> {
    fs::metadata(place(name)).ok().map(|namespace| namespace.ino())
}

fn place(name: &str) -> String {
    format!("/proc/self/ns/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespaces_are_told() {
        let own = own();
        let user = own.iter().find(|namespace| namespace.kind == "user").unwrap();
        assert_eq!(user.initial, Some(is_initial("user")));
        assert!(own.iter().all(|namespace| namespace.number > 0));
        assert!(is_initial("no such sort"));
        assert!(!["pid", "time"].into_iter().any(children_are_elsewhere));
    }
}
