//! Which attempts are wanted, from what was typed to what the kernel side filters by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use clap::Args;
use fork_trace_common::{
    filter::{FilterKey, kind, property},
    settings::{FOLLOW_ALONE, FOLLOW_CHILDREN, FOLLOW_SHOWN},
};
use nix::unistd::User;

use crate::{
    cause::explain::parse_errno, cgroups::MOUNTS, cli, error::UserError, filters::Filters,
    fork::Kind,
};

/// Which attempts to show.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct Wanted {
    /// Only forks by this process; repeatable
    #[arg(short = 'p', long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// With -p: by its descendants too
    #[arg(short = 'f', long, requires = "pids")]
    pub follow: bool,
    /// Only forks by children of this process; repeatable
    #[arg(short = 'P', long = "ppid", value_name = "PID")]
    pub ppids: Vec<u32>,
    /// Only forks by this user, by name or number; repeatable
    #[arg(short = 'u', long = "uid", value_name = "USER")]
    pub users: Vec<String>,
    /// Only forks by tasks of this name; repeatable
    #[arg(short = 'n', long = "comm", value_name = "NAME")]
    pub comms: Vec<String>,
    /// Only forks in this cgroup itself, a path of the unified hierarchy; repeatable
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<String>,
    /// Only these kinds, separated by commas; default: all but kthread and io-worker
    #[arg(short = 'k', long = "kind", value_name = "KIND", value_enum, value_delimiter = ',')]
    pub kinds: Vec<Kind>,
    /// Only attempts that failed
    #[arg(short = 'x', long)]
    pub failed: bool,
    /// Only attempts that failed with this error, by name or number; repeatable
    #[arg(short = 'e', long = "errno", value_name = "NAME", value_parser = known_errno)]
    pub errnos: Vec<String>,
    /// Only attempts that took at least so long: 1ms, 500us
    #[arg(long, value_name = "TIME", value_parser = least_ns)]
    pub min_duration: Option<u64>,
}

/// What the kernel side filters by.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Entries of the map of followed processes; empty: all of the host's.
    pub follow: Vec<(u32, u8)>,
    /// Kinds.
    pub kinds: u32,
    /// Entries of the map of wishes.
    pub wishes: BTreeSet<FilterKey>,
    /// Only failed attempts.
    pub failed_only: bool,
    /// Only attempts that took so long.
    pub least_ns: u64,
}

impl Filter {
    /// All that is shown when nothing is asked for.
    #[must_use]
    pub fn all() -> Self {
        Self { kinds: kind::DEFAULT, ..Self::default() }
    }

    /// From what was typed; with a command, of that process's children only.
    ///
    /// # Errors
    /// [`UserError::Filter`]: it names what there is not.
    pub fn new(wanted: &Wanted, command_of: Option<u32>) -> Result<Self, UserError> {
        let mode = if wanted.follow { FOLLOW_SHOWN } else { FOLLOW_ALONE };
        let mut follow: Vec<_> = command_of.map(|own| (own, FOLLOW_CHILDREN)).into_iter().collect();
        for pid in &wanted.pids {
            if !PathBuf::from(format!("/proc/{pid}")).exists() {
                return Err(refused("-p", &pid.to_string(), "there is no such process"));
            }
            follow.push((*pid, mode));
        }
        if wanted.follow {
            follow.extend(descendants(&wanted.pids).into_iter().map(|pid| (pid, mode)));
        }
        let mut wishes = BTreeSet::new();
        let mut wish = |of: u32, value: u64, more: u64| wishes.insert([of.into(), value, more]);
        for ppid in &wanted.ppids {
            wish(property::PPID, (*ppid).into(), 0);
        }
        for user in &wanted.users {
            wish(property::UID, uid(user)?.into(), 0);
        }
        for name in &wanted.comms {
            let [first, second] = comm(name)?;
            wish(property::COMM, first, second);
        }
        for path in &wanted.cgroups {
            wish(property::CGROUP, cgroup(path)?, 0);
        }
        for name in &wanted.errnos {
            wish(property::ERRNO, errno(name)?, 0);
        }
        let kinds = wanted.kinds.iter().fold(0, |bits, kind| bits | bit(*kind));
        Ok(Self {
            follow,
            kinds: if kinds == 0 { kind::DEFAULT } else { kinds },
            wishes,
            failed_only: wanted.failed || !wanted.errnos.is_empty(),
            least_ns: wanted.min_duration.unwrap_or(0),
        })
    }

    /// The properties for which there are wishes.
    #[must_use]
    pub fn properties(&self) -> u32 {
        let bit =
            |wish: &FilterKey| wish.first().and_then(|of| u32::try_from(*of).ok()).unwrap_or(0);
        self.wishes.iter().fold(0, |bits, wish| bits | bit(wish))
    }

    /// Whether an attempt's outcome decides.
    #[must_use]
    pub const fn by_outcome(&self) -> bool {
        self.failed_only || self.least_ns > 0
    }
}

/// As the `start` line tells it.
#[must_use]
pub fn filters(wanted: &Wanted, command: Option<Vec<String>>) -> Filters {
    Filters {
        command,
        pids: wanted.pids.clone(),
        follow: wanted.follow.then_some(true),
        ppids: wanted.ppids.clone(),
        users: wanted.users.clone(),
        comms: wanted.comms.clone(),
        cgroups: wanted.cgroups.clone(),
        kinds: wanted.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        failed: wanted.failed.then_some(true),
        errnos: wanted.errnos.clone(),
        min_duration_ns: wanted.min_duration,
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

/// Processes that descend from `pids` just now.
fn descendants(pids: &[u32]) -> BTreeSet<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = BTreeSet::new();
    let mut new: Vec<u32> = pids.to_vec();
    while let Some(parent) = new.pop() {
        let children = parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid);
        new.extend(children.filter(|child| found.insert(*child)));
    }
    found
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

/// KERNEL: a cgroup's id is the inode number of its directory.
fn cgroup(path: &str) -> Result<u64, UserError> {
    let places: Vec<_> = if MOUNTS.iter().any(|mount| path.starts_with(mount)) {
        vec![PathBuf::from(path)]
    } else {
        MOUNTS.iter().map(|mount| PathBuf::from(format!("{mount}/{path}"))).collect()
    };
    let group = places.iter().find(|place| place.join("cgroup.controllers").exists());
    let inode = group.and_then(|place| fs::metadata(place).ok()).map(|data| data.ino());
    inode.ok_or_else(|| refused("--cgroup", path, "the unified hierarchy has no such group"))
}

/// An error's name or number as typed, if there is such an error.
fn known_errno(name: &str) -> Result<String, String> {
    cli::errno(name).map(|_| name.to_owned())
}

fn errno(name: &str) -> Result<u64, UserError> {
    let number = parse_errno(name).and_then(|errno| u64::try_from(errno as i32).ok());
    number.ok_or_else(|| refused("-e", name, "there is no such error"))
}

fn least_ns(text: &str) -> Result<u64, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok();
    let ns = duration.and_then(|duration| u64::try_from(duration.as_nanos()).ok());
    ns.filter(|ns| *ns > 0).ok_or_else(|| "give a time such as 1ms, 500us or 1s".to_owned())
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
        assert_eq!(least_ns("1ms"), Ok(1_000_000));
        assert_eq!(least_ns("500us"), Ok(500_000));
        for bad in ["", "0s", "-1s", "x"] {
            assert!(least_ns(bad).is_err(), "{bad}");
        }
        assert!(cgroup("/no/such/group").is_err());
    }

    #[test]
    fn what_was_typed_becomes_wishes() {
        let own = std::process::id();
        let mut wanted = Wanted { pids: vec![own], ppids: vec![1, 2], ..Wanted::default() };
        wanted.kinds = vec![Kind::Thread, Kind::IoWorker];
        wanted.errnos = vec!["EINVAL".to_owned()];
        let wishes = Filter::new(&wanted, None).unwrap();
        assert_eq!(wishes.follow, [(own, FOLLOW_ALONE)]);
        assert_eq!(wishes.kinds, kind::THREAD | kind::IO_WORKER);
        assert_eq!(wishes.properties(), property::PPID | property::ERRNO);
        assert!(wishes.failed_only && wishes.by_outcome());
        assert_eq!(wishes.wishes.len(), 3);
        wanted.pids = vec![u32::MAX];
        assert!(Filter::new(&wanted, None).is_err());
        let default = Filter::new(&Wanted::default(), Some(7)).unwrap();
        assert_eq!(default.follow, [(7, FOLLOW_CHILDREN)]);
        assert_eq!((default.kinds, default.by_outcome()), (kind::DEFAULT, false));
    }
}
