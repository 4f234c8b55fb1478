//! Which attempts are wanted, as the kernel side filters by it.

use std::collections::BTreeSet;

use fork_trace_common::{
    filter::{FilterKey, kind, property},
    settings::{FOLLOW_ALONE, FOLLOW_CHILDREN, FOLLOW_SHOWN},
};
use nix::unistd::User;

use crate::{
    error::UserError,
    event::{errno::parse_errno, filters::Filters, values::Kind},
    host::process::{self, cgroup},
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

    /// From what is wanted; with a command, of that process's children only.
    ///
    /// # Errors
    /// [`UserError::Filter`]: it names what there is not.
    pub fn new(wanted: &Filters) -> Result<Self, UserError> {
        let mode = if wanted.follow == Some(true) { FOLLOW_SHOWN } else { FOLLOW_ALONE };
        let own = wanted.command.as_ref().map(|_| std::process::id());
        let mut follow: Vec<_> = own.map(|own| (own, FOLLOW_CHILDREN)).into_iter().collect();
        for pid in &wanted.pids {
            if !process::exists(*pid) {
                return Err(refused("-p", &pid.to_string(), "there is no such process"));
            }
            follow.push((*pid, mode));
        }
        if wanted.follow == Some(true) {
            follow.extend(process::descendants(&wanted.pids).into_iter().map(|pid| (pid, mode)));
        }
        let mut keys = BTreeSet::new();
        let mut want = |of: u32, value: u64, more: u64| keys.insert([of.into(), value, more]);
        for ppid in &wanted.ppids {
            want(property::PPID, (*ppid).into(), 0);
        }
        for user in &wanted.users {
            want(property::UID, uid(user)?.into(), 0);
        }
        for name in &wanted.comms {
            let [first, second] = comm(name)?;
            want(property::COMM, first, second);
        }
        for path in &wanted.cgroups {
            want(property::CGROUP, cgroup(path)?, 0);
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
    let number = || user.parse().ok();
    let named = || User::from_name(user).ok().flatten().map(|user| user.uid.as_raw());
    number().or_else(named).ok_or_else(|| refused("-u", user, "there is no such user"))
}

/// A name as the kernel keeps it: 15 bytes and a NUL.
fn comm(name: &str) -> Result<[u64; 2], UserError> {
    let mut bytes = [0; 16];
    let room = bytes.get_mut(..name.len()).filter(|room| room.len() < 16 && !room.is_empty());
    let reason = "a task's name has 1 to 15 bytes";
    room.ok_or_else(|| refused("-n", name, reason))?.copy_from_slice(name.as_bytes());
    let (first, second) = bytes.split_at(8);
    Ok([first, second]
        .map(|half| half.first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes))))
}

fn cgroup(path: &str) -> Result<u64, UserError> {
    let id = cgroup::id(path);
    id.ok_or_else(|| refused("--cgroup", path, "the unified hierarchy has no such group"))
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
        assert!(uid("no such user").is_err());
        assert_eq!(errno("EAGAIN").unwrap(), 11);
        assert_eq!(errno("22").unwrap(), 22);
        for bad in ["EWHAT", "0", "4096", "", "UnknownErrno"] {
            assert!(errno(bad).is_err(), "{bad}");
        }
        assert_eq!(comm("sh").unwrap(), [u64::from_ne_bytes(*b"sh\0\0\0\0\0\0"), 0]);
        assert_eq!(comm("123456789012345").unwrap()[1], u64::from_ne_bytes(*b"9012345\0"));
        assert!(comm("").is_err() && comm("1234567890123456").is_err());
        assert!(cgroup("/no/such/group").is_err());
    }

    #[test]
    fn what_is_wanted_becomes_keys() {
        let own = std::process::id();
        let mut wanted = Filters { pids: vec![own], ppids: vec![1, 2], ..Filters::default() };
        wanted.kinds = vec![Kind::Thread, Kind::IoWorker];
        wanted.errnos = vec!["EINVAL".to_owned()];
        let filter = Filter::new(&wanted).unwrap();
        assert_eq!(filter.follow, [(own, FOLLOW_ALONE)]);
        assert_eq!(filter.kinds, kind::THREAD | kind::IO_WORKER);
        assert_eq!(filter.properties(), property::PPID | property::ERRNO);
        assert!(filter.failed_only && filter.by_outcome());
        assert_eq!(filter.keys.len(), 3);
        wanted.pids = vec![u32::MAX];
        assert!(Filter::new(&wanted).is_err());
        let default =
            Filter::new(&Filters { command: Some(Vec::new()), ..Filters::default() }).unwrap();
        assert_eq!(default.follow, [(own, FOLLOW_CHILDREN)]);
        assert_eq!((default.kinds, default.by_outcome()), (kind::DEFAULT, false));
    }
}
