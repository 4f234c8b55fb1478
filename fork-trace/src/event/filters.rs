//! Which attempts a stream shows, as its `start` line says it. This is the JSON type; `bpf/filter`
//! is what the kernel side filters by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{errno::parse_errno, values::Kind};

/// Which attempts are shown. Without any filter these are all attempts of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Filters {
    /// The command that fork-trace started, with its arguments: its attempts and those of its
    /// descendants are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Only callers with one of these process ids, in the pid namespace that fork-trace runs in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    /// The same processes by their ids in the initial pid namespace, where fork-trace runs in
    /// another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_pids: Vec<u32>,
    /// Whether callers are shown, too, that descend from these processes; absent where they are
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Only callers whose parent has one of these process ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ppids: Vec<u32>,
    /// The same parents by their ids in the initial pid namespace, where fork-trace runs in another
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ppids: Vec<u32>,
    /// Only callers of these users, as the user typed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Only callers with one of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comms: Vec<String>,
    /// Only callers in these control groups or below them, as the user typed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// Only attempts of these kinds; where it is empty, all kinds but `kthread` and `io-worker`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// Whether only attempts are shown that failed; absent where successful ones are shown too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Only attempts that failed with one of these errors, as the user typed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errnos: Vec<String>,
    /// Only attempts that took at least this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_duration_ns: Option<u64>,
}

impl Filters {
    /// Adds the filters of a replay to those of the recording. Where both name values of one property, those of
    /// the replay are told: it shows no others.
    pub fn narrow(&mut self, replayed: &Self) {
        fn take<T: Clone>(own: &mut Vec<T>, replayed: &[T]) {
            if !replayed.is_empty() {
                *own = replayed.to_vec();
            }
        }
        if !replayed.pids.is_empty() {
            self.follow = replayed.follow;
            // A replay takes the ids that the recording tells.
            self.host_pids.clear();
        }
        if !replayed.ppids.is_empty() {
            self.host_ppids.clear();
        }
        take(&mut self.pids, &replayed.pids);
        take(&mut self.ppids, &replayed.ppids);
        take(&mut self.users, &replayed.users);
        take(&mut self.comms, &replayed.comms);
        take(&mut self.cgroups, &replayed.cgroups);
        take(&mut self.kinds, &replayed.kinds);
        take(&mut self.errnos, &replayed.errnos);
        self.failed = self.failed.or(replayed.failed);
        self.min_duration_ns = self.min_duration_ns.max(replayed.min_duration_ns);
    }

    /// Whether these filters show what was recorded of an attempt that succeeded or failed with `errno`. Only
    /// the outcome is compared, with `failed` and `errnos`, for the other filters were applied before it was
    /// recorded.
    #[must_use]
    pub fn shows(&self, succeeded: bool, errno: Option<u32>) -> bool {
        let is = |name: &String| {
            let wanted = parse_errno(name).and_then(|errno| u32::try_from(errno as i32).ok());
            wanted.is_some() && wanted == errno
        };
        (self.failed != Some(true) || !succeeded)
            && (self.errnos.is_empty() || self.errnos.iter().any(is))
    }
}
