//! What is counted of one program.

use std::sync::Arc;

use crate::{
    event::{
        caller::{Ancestor, Parent},
        fork::Fork,
        tally::{distribution::Distribution, slowest::Slowest, stages::Stages},
        values::{Kind, Name},
    },
    output::{
        text::cause,
        top::counts::{self, Counts, Recent},
    },
};

/// Causes of failures that are told apart for each program.
const MOST_CAUSES: usize = 16;

/// What the attempts of one program have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) comm: Arc<str>,
    pub(super) exe: Option<Arc<str>>,
    pub(super) cgroup: Option<Arc<str>>,
    pub(super) uid: u32,
}

impl Key {
    pub(super) fn is_of(&self, parent: &Parent) -> bool {
        self.uid == parent.uid && self.exe == parent.exe && self.cgroup == parent.cgroup
    }
}

/// The last failure of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) second: u64,
    pub(super) name: Name,
    /// Why, in words, each with a label.
    pub(super) why: Vec<(&'static str, String)>,
}

/// What was counted of one program.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) key: Key,
    pub(super) user: Option<Arc<str>>,
    pub(super) unit: Option<Arc<str>>,
    pub(super) container: Option<Arc<str>>,
    pub(super) all: Counts,
    pub(super) recent: Recent,
    pub(super) kinds: Vec<(Kind, u64)>,
    pub(super) held: Distribution,
    pub(super) slowest: Slowest,
    pub(super) stages: Stages,
    pub(super) failures: Vec<(Name, u64)>,
    pub(super) last_failure: Option<Failure>,
    /// The process that forked last, and from which it descends.
    pub(super) pid: u32,
    pub(super) ancestors: Arc<[Ancestor]>,
    /// There were too many programs before this one, and it may have been among them.
    pub(super) late: bool,
}

impl Cell {
    pub(super) fn new(key: Key, parent: Option<&Parent>, late: bool) -> Self {
        let container = parent.and_then(|parent| parent.container.as_ref());
        Self {
            key,
            user: parent.and_then(|parent| parent.user.clone()),
            unit: parent.and_then(|parent| parent.unit.clone()),
            container: container.map(|of| format!("{}:{}", of.runtime, of.id).into()),
            all: Counts::default(),
            recent: Recent::default(),
            kinds: Vec::new(),
            held: Distribution::default(),
            slowest: Slowest::default(),
            stages: Stages::default(),
            failures: Vec::new(),
            last_failure: None,
            pid: 0,
            ancestors: Arc::default(),
            late,
        }
    }

    pub(super) fn fork(&mut self, fork: &Fork, second: u64) {
        self.all.fork(fork);
        self.recent.at(second).fork(fork);
        self.pid = fork.parent.pid;
        if !fork.ancestors.is_empty() {
            self.ancestors = Arc::clone(&fork.ancestors);
        }
        if let Some(kind) = fork.kind {
            self.kind(kind, 1);
        }
        self.stages.add(&fork.stages);
        self.slowest.add(fork);
        if !fork.is_failure() {
            return;
        }
        let name = fork.failure();
        counts::add(&mut self.failures, &name, 1, MOST_CAUSES);
        // In a storm of failures the words are made once a second.
        let is_new = |last: &Failure| last.name != name || last.second != second;
        if self.last_failure.as_ref().is_none_or(is_new) {
            let mut why = cause::lines(fork);
            if why.is_empty() {
                why.push(("why:", name.clone().into_owned()));
            }
            self.last_failure = Some(Failure { second, name, why });
        }
    }

    fn kind(&mut self, kind: Kind, number: u64) {
        match self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += number,
            None => self.kinds.push((kind, number)),
        }
    }

    pub(super) fn held(&mut self, ns: u64, waits: &[(Name, u64)], second: u64) {
        self.all.held(ns, waits);
        self.recent.at(second).held(ns, waits);
        self.held.add(ns);
    }

    /// Adds all that `other` has.
    pub(super) fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        self.recent.merge(&other.recent);
        self.held.merge(&other.held);
        self.slowest.merge(&other.slowest);
        self.stages.merge(&other.stages);
        for (kind, number) in &other.kinds {
            self.kind(*kind, *number);
        }
        for (name, number) in &other.failures {
            counts::add(&mut self.failures, name, *number, MOST_CAUSES);
        }
        let second = |cell: &Self| cell.last_failure.as_ref().map(|last| last.second);
        if second(other) > second(self) {
            self.last_failure.clone_from(&other.last_failure);
        }
    }
}
