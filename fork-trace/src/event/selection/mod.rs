//! Which events of a recording are shown: attempts by every filter, and what belongs to an attempt with it.

mod lineage;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{
    error::UserError,
    event::{
        Event,
        bytes::{bytes, text},
        caller::Task,
        filters::Filters,
        fork::Fork,
        selection::lineage::Lineage,
        stage::StageLine,
        start::Start,
        stuck::Stuck,
        values::{Kind, Name},
    },
};

/// How many attempts are remembered at once whose children may have follow-ups.
const MOST_SHOWN: usize = 1 << 18;

/// How many `stuck` lines wait at once for the line of their attempt.
const MOST_STUCK: usize = 1024;

/// Which events are shown.
///
/// It reads every event, also those that are not shown: they tell who descends from whom. A property that an
/// event does not tell passes no filter, as in a live trace.
#[derive(Debug)]
pub struct Selection {
    filters: Filters,
    users: Vec<User>,
    comms: BTreeSet<String>,
    /// How many attempts are shown at most, the first ones.
    most: u64,
    lineage: Lineage,
    /// Attempts that are shown, as long as follow-ups may come: no more than [`MOST_SHOWN`].
    shown: HashSet<String>,
    /// How many attempts are shown.
    count: u64,
    /// The attempt of the latest `stage` line, and whether it is shown.
    of_line: (String, bool),
    /// Lines of attempts that had not ended, by attempt: no more than [`MOST_STUCK`].
    stuck: BTreeMap<String, Vec<Stuck>>,
    waiting: usize,
    left_out: u64,
    not_kept: u64,
    /// Children whose follow-ups are left out, because too many were remembered.
    forgotten: u64,
}

/// A user, as it was typed.
#[derive(Debug)]
enum User {
    Uid(u32),
    Name(String),
}

impl Selection {
    /// By `filters`, whose control groups are paths from the root of their hierarchy, and of these attempts the
    /// first `most`.
    #[must_use]
    pub fn new(filters: Filters, most: Option<u64>) -> Self {
        // A name has one spelling.
        let spelt = |name: &String| text(&bytes(name));
        let user = |user: &String| match user.parse() {
            Ok(uid) => User::Uid(uid),
            Err(_) => User::Name(spelt(user)),
        };
        Self {
            users: filters.users.iter().map(user).collect(),
            comms: filters.comms.iter().map(spelt).collect(),
            most: most.unwrap_or(u64::MAX),
            lineage: Lineage::new(&filters),
            shown: HashSet::new(),
            count: 0,
            of_line: (String::new(), false),
            stuck: BTreeMap::new(),
            waiting: 0,
            left_out: 0,
            not_kept: 0,
            forgotten: 0,
            filters,
        }
    }

    /// New tasks that were not shown so far.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Counts an attempt that is not shown, though it was selected.
    pub fn leave_out(&mut self, fork: &Fork) {
        self.not_kept += 1;
        self.left_out += u64::from(fork.succeeded());
    }

    /// How many of these there were.
    #[must_use]
    pub const fn not_kept(&self) -> u64 {
        self.not_kept
    }

    /// What did not fit, by the places that a `loss` line names; with `forgotten` follow-ups that did not fit
    /// elsewhere.
    pub fn lost(&self, forgotten: u64) -> impl Iterator<Item = (Name, u64)> + use<> {
        let forgotten = self.forgotten.saturating_add(forgotten);
        let lost = [("follow_full", self.lineage.left_out()), ("children_full", forgotten)];
        lost.into_iter().filter(|(_, count)| *count > 0).map(|(name, n)| (Name::Borrowed(name), n))
    }

    /// A recording begins.
    ///
    /// # Errors
    /// [`UserError::Filter`]: it does not tell what is filtered by.
    pub fn begin(&mut self, start: &Start) -> Result<(), UserError> {
        if self.filters.min_duration_ns.is_some() && start.waits == Some(false) {
            let reason = "the recording was made with --no-waits, and so does not tell how long callers \
                          were held";
            return Err(untold("--min-duration", reason));
        }
        let (filters, most) = (std::mem::take(&mut self.filters), Some(self.most));
        *self = Self { count: self.count, ..Self::new(filters, most) };
        Ok(())
    }

    /// Whether an event is shown. A `stuck` line of an attempt that is not over waits for
    /// [`Self::take_stuck`].
    ///
    /// # Errors
    /// [`UserError::Filter`]: the recording does not tell what is filtered by.
    pub fn shows(&mut self, event: &Event) -> Result<bool, UserError> {
        Ok(match event {
            Event::Fork(fork) => self.shows_fork(fork),
            Event::Stage(stage) => return self.shows_stage(stage),
            Event::VforkDone(done) => self.shows_child(Some(&done.fork_id), done.orphan),
            Event::Exec(exec) => self.shows_child(exec.fork_id.as_ref(), exec.orphan),
            Event::Exit(exit) => {
                self.lineage.ended(exit.pid, exit.mono_ns);
                let shown = self.shows_child(exit.fork_id.as_ref(), exit.orphan);
                exit.fork_id.as_ref().inspect(|id| _ = self.shown.remove(*id));
                shown
            }
            Event::Stuck(stuck) => self.shows_stuck(stuck),
            Event::Warning(warning) => self.shows_child(warning.fork_id.as_ref(), None),
            Event::Start(_) | Event::Loss(_) | Event::Summary(_) => true,
        })
    }

    /// The `stuck` lines of an attempt that is over now and is shown.
    pub fn take_stuck(&mut self, fork_id: &str) -> Vec<Stuck> {
        let stuck = self.stuck.remove(fork_id).unwrap_or_default();
        self.waiting -= stuck.len();
        stuck
    }

    /// The `stuck` lines of attempts that are shown though they were not over when the recording ended.
    pub fn take_all_stuck(&mut self) -> Vec<Stuck> {
        self.waiting = 0;
        let waiting = std::mem::take(&mut self.stuck);
        let mut stuck: Vec<_> = waiting.into_values().flatten().collect();
        stuck.retain(|stuck| self.wants_stuck(stuck));
        stuck.sort_by_key(|stuck| stuck.mono_ns);
        stuck
    }

    /// Whether something is shown that belongs to an attempt. What belongs to none, as the end of the traced
    /// command, is; what belongs to one that was lost is not if there are filters, which it may not pass.
    fn shows_child(&self, fork_id: Option<&String>, orphan: Option<bool>) -> bool {
        let is_orphan = orphan == Some(true) && self.filters == Filters::default();
        is_orphan || fork_id.is_none_or(|id| self.shown.contains(id))
    }

    fn shows_fork(&mut self, fork: &Fork) -> bool {
        let descends = self.lineage.add(fork);
        let shown = descends && self.wants(fork) && self.count < self.most;
        if shown {
            self.show(&fork.id, fork.child.as_ref().is_some_and(|child| child.pid == child.tid));
        } else {
            self.left_out += u64::from(fork.succeeded());
            self.take_stuck(&fork.id);
        }
        shown
    }

    /// Counts an attempt that is shown; a process may have follow-ups.
    fn show(&mut self, id: &str, is_process: bool) {
        self.count += 1;
        if !is_process {
            return;
        }
        if self.shown.len() < MOST_SHOWN {
            self.shown.insert(id.to_owned());
        } else {
            self.forgotten += 1;
        }
    }

    fn wants(&self, fork: &Fork) -> bool {
        let Filters { ppids, cgroups, kinds, min_duration_ns, .. } = &self.filters;
        let parent = &fork.parent;
        let user = |user: &User| match user {
            User::Uid(uid) => *uid == parent.uid,
            User::Name(name) => parent.user.as_deref() == Some(name),
        };
        let group = |path: &str| cgroups.iter().any(|group| is_within(path, group));
        (ppids.is_empty() || ppids.contains(&parent.ppid))
            && (self.users.is_empty() || self.users.iter().any(user))
            && self.wants_name(&parent.comm)
            && (cgroups.is_empty() || parent.cgroup.as_deref().is_some_and(group))
            && (kinds.is_empty() || fork.kind.is_some_and(|kind| kinds.contains(&kind)))
            && self.filters.shows(fork.succeeded(), fork.errno)
            // An attempt is wanted unless it is known to be shorter.
            && min_duration_ns.is_none_or(|least| fork.took_ns().is_none_or(|ns| ns >= least))
    }

    fn wants_name(&self, comm: &str) -> bool {
        self.comms.is_empty() || self.comms.contains(comm)
    }

    fn shows_stage(&mut self, stage: &StageLine) -> Result<bool, UserError> {
        let Filters { ppids, users, cgroups, min_duration_ns, .. } = &self.filters;
        for (option, is_given) in [
            ("-P", !ppids.is_empty()),
            ("-u", !users.is_empty()),
            ("--cgroup", !cgroups.is_empty()),
            ("--min-duration", min_duration_ns.is_some()),
        ] {
            if is_given {
                return Err(untold(
                    option,
                    "the recording has stages only, which do not tell that",
                ));
            }
        }
        let succeeded = stage.child_tid.is_some();
        if self.of_line.0 != stage.fork_id {
            let is_process = matches!(stage.kind, Some(Kind::Process | Kind::Vfork));
            let child = stage.child_tid.filter(|_| is_process);
            let Task { pid, comm, .. } = &stage.parent;
            let descends = self.lineage.add_child(*pid, child);
            let kinds = &self.filters.kinds;
            let shown = descends
                && self.wants_name(comm)
                && (kinds.is_empty() || stage.kind.is_some_and(|kind| kinds.contains(&kind)))
                && (!succeeded || self.filters.shows(true, None))
                && self.count < self.most;
            self.of_line = (stage.fork_id.clone(), shown);
            if shown {
                self.show(&stage.fork_id, is_process);
            } else {
                self.left_out += u64::from(succeeded);
                self.take_stuck(&stage.fork_id);
            }
        }
        // Of the stages of an attempt that failed only the one that refused it has the error.
        Ok(self.of_line.1 && self.filters.shows(succeeded, stage.errno))
    }

    fn shows_stuck(&mut self, stuck: &Stuck) -> bool {
        match &stuck.fork_id {
            Some(id) if self.waiting < MOST_STUCK => {
                self.stuck.entry(id.clone()).or_default().push(stuck.clone());
                self.waiting += 1;
                false
            }
            _ => self.wants_stuck(stuck),
        }
    }

    /// Whether what a `stuck` line says itself passes every filter.
    fn wants_stuck(&self, stuck: &Stuck) -> bool {
        let Filters { ppids, users, cgroups, kinds, failed, errnos, .. } = &self.filters;
        let least_ns = self.filters.min_duration_ns;
        ppids.is_empty()
            && users.is_empty()
            && cgroups.is_empty()
            && kinds.is_empty()
            && *failed != Some(true)
            && errnos.is_empty()
            && self.lineage.has(stuck.parent.pid, None)
            && self.wants_name(&stuck.parent.comm)
            && least_ns.is_none_or(|least_ns| stuck.for_ns >= least_ns)
    }
}

/// Whether the control group at `path` is the one at `group`, or below it.
fn is_within(path: &str, group: &str) -> bool {
    let below = path.strip_prefix(group.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn untold(option: &'static str, reason: &str) -> UserError {
    UserError::Untold { option, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
