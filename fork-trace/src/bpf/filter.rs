//! Which attempts are wanted, as the kernel side filters by it.

use std::collections::BTreeSet;

use fork_trace_common::{
    filter::{FilterKey, kind, property},
    settings::{FOLLOW_ALONE, FOLLOW_CHILDREN, FOLLOW_SHOWN},
};

use crate::{
    error::UserError,
    event::{bytes::bytes, errno::parse_errno, filters::Filters, values::Kind},
    host::{
        process::{
            cgroup_path::{self, Group},
            ids::Ids,
        },
        users::User,
    },
};

/// What the kernel side filters by.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Entries of the map of followed processes; empty: all of the host's.
    pub follow: Vec<(u32, u8)>,
    /// Kinds.
    pub kinds: u32,
    /// Entries of the map of filter.
    pub keys: BTreeSet<FilterKey>,
    /// Only failed attempts.
    pub failed_only: bool,
    /// Only attempts that took so long.
    pub min_duration_ns: u64,
}

impl Filter {
    /// All that is shown when nothing is asked for.
    #[must_use]
    pub fn all() -> Self {
        Self { kinds: kind::DEFAULT, ..Self::default() }
    }

    /// From what is wanted, with ids as `ids` says; with a command, of that process's children only.
    ///
    /// # Errors
    /// [`UserError::Filter`]: it names what there is not. [`UserError::Surroundings`]: there is
    /// nothing to look it up in.
    pub fn new(wanted: &Filters, ids: &Ids) -> Result<Self, UserError> {
        let mode = if wanted.follow == Some(true) { FOLLOW_SHOWN } else { FOLLOW_ALONE };
        let process = |option: &'static str, pid: &u32| {
            ids.process(*pid).map_err(|reason| refused(option, &pid.to_string(), &reason))
        };
        let pids = wanted.pids.iter().map(|pid| process("-p", pid));
        let pids: Vec<u32> = pids.collect::<Result<_, _>>()?;
        let mut follow: Vec<_> = pids.iter().map(|pid| (*pid, mode)).collect();
        if wanted.command.is_some() {
            let own = ids.own().map_err(|reason| refused("--", "CMD", &reason))?;
            follow.push((own, FOLLOW_CHILDREN));
        }
        if wanted.follow == Some(true) {
            follow.extend(ids.descendants(&pids).into_iter().map(|pid| (pid, mode)));
        }
        let mut keys = BTreeSet::new();
        let mut want = |of: u32, value: u64, more: u64| keys.insert([of.into(), value, more]);
        for ppid in &wanted.ppids {
            want(property::PPID, process("-P", ppid)?.into(), 0);
        }
        for user in &wanted.users {
            want(property::UID, uid(user)?.into(), 0);
        }
        for name in &wanted.comms {
            let [first, second] = comm(name)?;
            want(property::COMM, first, second);
        }
        for path in &wanted.cgroups {
            for Group { hierarchy, id } in cgroups(path)? {
                want(property::CGROUP, id, hierarchy);
                want(property::CGROUP, 0, hierarchy);
            }
        }
        for name in &wanted.errnos {
            want(property::ERRNO, errno(name)?, 0);
        }
        let kinds = wanted.kinds.iter().fold(0, |bits, kind| bits | bit(*kind));
        Ok(Self {
            follow,
            kinds: if kinds == 0 { kind::DEFAULT } else { kinds },
            keys,
            failed_only: wanted.failed == Some(true) || !wanted.errnos.is_empty(),
            min_duration_ns: wanted.min_duration_ns.unwrap_or(0),
        })
    }

    /// The properties for which there are filter.
    #[must_use]
    pub fn properties(&self) -> u32 {
        let bit = |key: &FilterKey| key.first().and_then(|of| u32::try_from(*of).ok()).unwrap_or(0);
        self.keys.iter().fold(0, |bits, key| bits | bit(key))
    }

    /// Whether an attempt's outcome decides.
    #[must_use]
    pub const fn by_outcome(&self) -> bool {
        self.failed_only || self.min_duration_ns > 0
    }
}

/// A kind's bit in the kernel side's filter.
const fn bit(of: Kind) -> u32 {
    match of {
        Kind::Process => kind::PROCESS,
        Kind::Vfork => kind::VFORK,
        Kind::Thread => kind::THREAD,
        Kind::Kthread => kind::KTHREAD,
        Kind::IoWorker => kind::IO_WORKER,
        Kind::Other => kind::OTHER,
    }
}

fn refused(option: &'static str, value: &str, reason: &str) -> UserError {
    UserError::Filter { option, value: value.to_owned(), reason: reason.to_owned() }
}

fn uid(user: &str) -> Result<u32, UserError> {
    if let Ok(number) = user.parse::<u32>() {
        let reason = "no user has this number: the kernel takes it for none";
        return if number == u32::MAX { Err(refused("-u", user, reason)) } else { Ok(number) };
    }
    match User::by_name(&bytes(user)) {
        Ok(Some(user)) => Ok(user.uid),
        Ok(None) => Err(refused("-u", user, "there is no such user")),
        Err(error) => Err(refused("-u", user, &format!("the users cannot be read: {error}"))),
    }
}

/// A name as the kernel keeps it: 15 bytes and a NUL. A byte of it that is no UTF-8 is typed as the
/// output tells it.
fn comm(name: &str) -> Result<[u64; 2], UserError> {
    let name_bytes = bytes(name);
    let mut comm = [0; 16];
    let room = comm.get_mut(..name_bytes.len());
    let room = room.filter(|room| room.len() < 16 && !room.is_empty());
    let reason = "a task's name has 1 to 15 bytes";
    room.ok_or_else(|| refused("-n", name, reason))?.copy_from_slice(&name_bytes);
    let (first, second) = comm.split_at(8);
    Ok([first, second]
        .map(|half| half.first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes))))
}

fn cgroups(path: &str) -> Result<Vec<Group>, UserError> {
    let found = cgroup_path::named(path);
    if !found.is_empty() {
        return Ok(found);
    }
    if cgroup_path::is_mounted() {
        return Err(refused("--cgroup", path, "no hierarchy of control groups has such a group"));
    }
    Err(UserError::Surroundings {
        what: format!("--cgroup {path}: no hierarchy of control groups is mounted"),
        cure: "mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned(),
    })
}

fn errno(name: &str) -> Result<u64, UserError> {
    let number = parse_errno(name).and_then(|errno| u64::try_from(errno as i32).ok());
    number.ok_or_else(|| refused("-e", name, "there is no such error"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!(uid("0").unwrap(), 0);
        assert_eq!(uid("root").unwrap(), 0);
        for bad in ["no such user", "4294967295", "4294967296", "-1", "", "a\0b", "\\xff"] {
            assert!(uid(bad).is_err(), "{bad}");
        }
        assert_eq!(errno("EAGAIN").unwrap(), 11);
        assert_eq!(errno("22").unwrap(), 22);
        for bad in ["EWHAT", "0", "4096", "", "UnknownErrno"] {
            assert!(errno(bad).is_err(), "{bad}");
        }
        assert_eq!(comm("sh").unwrap(), [u64::from_ne_bytes(*b"sh\0\0\0\0\0\0"), 0]);
        assert_eq!(comm("123456789012345").unwrap()[1], u64::from_ne_bytes(*b"9012345\0"));
        assert_eq!(comm("\\xff").unwrap(), [u64::from_ne_bytes(*b"\xff\0\0\0\0\0\0\0"), 0]);
        assert!(comm("").is_err() && comm("1234567890123456").is_err());
        assert!(cgroups("/no/such/group").is_err());
    }

    #[test]
    fn what_is_wanted_becomes_keys() {
        let own = std::process::id();
        let mut wanted = Filters { pids: vec![own], ppids: vec![1, own], ..Filters::default() };
        wanted.kinds = vec![Kind::Thread, Kind::IoWorker];
        wanted.errnos = vec!["EINVAL".to_owned()];
        let filter = Filter::new(&wanted, &Ids::Initial).unwrap();
        assert_eq!(filter.follow, [(own, FOLLOW_ALONE)]);
        assert_eq!(filter.kinds, kind::THREAD | kind::IO_WORKER);
        assert_eq!(filter.properties(), property::PPID | property::ERRNO);
        assert!(filter.failed_only && filter.by_outcome());
        assert_eq!(filter.keys.len(), 3);
        wanted.pids = vec![u32::MAX];
        assert!(Filter::new(&wanted, &Ids::Initial).is_err());
        let command = Filters { command: Some(Vec::new()), ..Filters::default() };
        let default = Filter::new(&command, &Ids::Initial).unwrap();
        assert_eq!(default.follow, [(own, FOLLOW_CHILDREN)]);
        assert_eq!((default.kinds, default.by_outcome()), (kind::DEFAULT, false));
    }
}
