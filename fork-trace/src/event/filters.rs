//! Whose attempts a stream shows, as its `start` line tells it: the JSON type only.

use serde::{Deserialize, Serialize};

use crate::event::{errno::parse_errno, fork::Fork, values::Kind};

/// Which attempts are shown; nothing named: all of the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// The command that was started and whose descendants are followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Callers by process id, in the pid namespace that fork-trace runs in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    /// What these ids are in the initial pid namespace, where fork-trace runs in another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_pids: Vec<u32>,
    /// Descendants of these processes too; absent: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Callers by their parent's process id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ppids: Vec<u32>,
    /// The same of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ppids: Vec<u32>,
    /// Callers by user, as typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Callers by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comms: Vec<String>,
    /// Callers by cgroup, as typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// Kinds that are shown; empty: all but `kthread` and `io-worker`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// Only attempts that failed; absent: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Only attempts that failed with one of these errors, as typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errnos: Vec<String>,
    /// Only attempts that took at least so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_duration_ns: Option<u64>,
}

impl Filters {
    /// Whether a recorded `fork` is shown, by its outcome: `failed` and `errnos`.
    #[must_use]
    pub fn shows(&self, fork: &Fork) -> bool {
        let is = |name: &String| {
            let errno = parse_errno(name).and_then(|errno| u32::try_from(errno as i32).ok());
            errno.is_some() && errno == fork.errno
        };
        (self.failed != Some(true) || !fork.succeeded())
            && (self.errnos.is_empty() || self.errnos.iter().any(is))
    }
}
