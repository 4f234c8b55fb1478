//! What is known of the host's forks: folded from the events, in bounded memory.
//!
//! Attempts are kept apart by their caller's name, program, control group and user together, so that they can be
//! put into groups by any of these at any time.

use std::{sync::Arc, time::Instant};

use foldhash::HashMap;

use crate::{
    event::{
        Event,
        caller::Parent,
        cause::Cause,
        fill::Fill,
        follow_up::VforkDone,
        fork::Fork,
        notice::{Loss, Warning},
        start::Start,
        stuck::Stuck,
        tally::slowest::HeldAttempt,
        values::{Kind, Name},
    },
    output::top::{
        cell::{Cell, Key},
        counts::{Counts, OTHER, Recent, SECONDS},
    },
};

/// Programs that are kept apart. When there are more, the half that forked less becomes one.
const MOST: usize = 1024;

/// Attempts that are remembered at once because their callers are still held.
const MOST_HELD: usize = 4096;

/// Limits at which attempts failed, and stuck attempts, that are told of at once.
const MOST_TOLD: usize = 32;

/// A limit at which an attempt failed is told of for so many seconds.
const LIMIT_SECONDS: u64 = 60;

/// The reason of the wait of a vfork's caller.
const VFORK: &str = "vfork";

/// An attempt whose caller is still held.
#[derive(Clone, Debug)]
struct Held {
    key: Key,
    waits: Vec<(Name, u64)>,
    attempt: Option<HeldAttempt>,
}

/// Over which time rates are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The last seconds that have ended by this one, counted from the start.
    Last(u64),
    /// A whole recording, and how long that is, where it is known.
    Whole(Option<u64>),
}

impl Span {
    /// Its length; `None` while there is none.
    pub(super) fn ns(self) -> Option<u64> {
        match self {
            Self::Last(second) => {
                Some(second.min(SECONDS) * 1_000_000_000).filter(|length| *length > 0)
            }
            Self::Whole(ns) => ns.filter(|ns| *ns > 0),
        }
    }

    /// What was counted in it.
    pub(super) fn counts(self, recent: &Recent, all: &Counts) -> Counts {
        match self {
            Self::Last(second) => recent.sum(second),
            Self::Whole(_) => all.clone(),
        }
    }
}

/// What is known of the host's forks.
#[derive(Clone, Debug)]
pub struct Model {
    began: Instant,
    /// It is told as a whole: a recording, and how long that is.
    whole: Option<Option<u64>>,
    /// It grows with each event.
    pub(super) version: u64,
    pub(super) start: Option<Box<Start>>,
    cells: HashMap<Arc<str>, Vec<Cell>>,
    len: usize,
    /// Those that forked less when there were too many.
    other: Option<Box<Cell>>,
    pub(super) all: Counts,
    pub(super) recent: Recent,
    /// Attempts that are not counted because they were lost.
    pub(super) lost: u64,
    held: HashMap<String, Held>,
    /// Attempts whose time is not known because too many callers were held at once.
    pub(super) unfollowed: u64,
    limits: Vec<(u64, Fill)>,
    pub(super) stuck: Vec<Stuck>,
    /// The last warning, and its second.
    warning: Option<(u64, Warning)>,
}

impl Model {
    /// Nothing yet, of a trace that begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            whole: None,
            version: 0,
            start: None,
            cells: HashMap::default(),
            len: 0,
            other: None,
            all: Counts::default(),
            recent: Recent::default(),
            lost: 0,
            held: HashMap::default(),
            unfollowed: 0,
            limits: Vec::new(),
            stuck: Vec::new(),
            warning: None,
        }
    }

    /// The same of a recording, which is told as a whole.
    #[must_use]
    pub fn whole(now: Instant) -> Self {
        Self { whole: Some(None), ..Self::new(now) }
    }

    /// How long the recording is.
    pub fn lasts(&mut self, ns: Option<u64>) {
        if self.whole.is_some() {
            self.whole = Some(ns);
            self.version += 1;
        }
    }

    /// Over which time rates are told at `now`.
    pub(super) fn span(&self, now: Instant) -> Span {
        self.whole.map_or_else(|| Span::Last(self.second(now)), Span::Whole)
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }

    /// Everything that is kept apart.
    pub(super) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.values().flatten()
    }

    /// Those that are not kept apart.
    pub(super) fn other(&self) -> Option<&Cell> {
        self.other.as_deref()
    }

    /// Counts an attempt, which is told of at `now`.
    pub fn fork(&mut self, fork: &Fork, now: Instant) {
        let second = self.second(now);
        self.version += 1;
        self.all.fork(fork);
        self.recent.at(second).fork(fork);
        self.forget_stuck(&fork.id);
        if let Some(cause) = &fork.cause {
            self.limit(cause, second);
        }
        let (took, waits) = (fork.took_ns(), fork.waits_ns());
        let is_held = took.is_none() && fork.succeeded() && fork.kind == Some(Kind::Vfork);
        let has_room = self.held.len() < MOST_HELD;
        let cell = self.cell_of(&fork.parent);
        cell.fork(fork, second);
        let key = (is_held && has_room).then(|| cell.key.clone());
        if let Some(ns) = took {
            cell.held(ns, &waits, second);
            self.all.held(ns, &waits);
            self.recent.at(second).held(ns, &waits);
        } else if let Some(key) = key {
            self.held.insert(fork.id.clone(), Held { key, waits, attempt: HeldAttempt::new(fork) });
        } else if is_held {
            self.unfollowed += 1;
        }
    }

    /// Takes what is no attempt, at `now`.
    pub fn event(&mut self, event: &Event, now: Instant) {
        self.version += 1;
        match event {
            Event::Start(start) => {
                self.start = Some(start.clone());
                if self.whole.is_none() {
                    self.began = now;
                }
            }
            Event::VforkDone(done) => self.vfork_done(done, now),
            Event::Stuck(stuck) => self.stuck(stuck),
            Event::Loss(Loss { records, .. }) => self.lost = self.lost.saturating_add(*records),
            Event::Warning(warning) => self.warning = Some((self.second(now), warning.clone())),
            // What becomes of a child is not told, and each attempt has come by itself.
            Event::Fork(_)
            | Event::Stage(_)
            | Event::Exec(_)
            | Event::Exit(_)
            | Event::Summary(_) => {}
        }
    }

    /// The caller of a vfork is back.
    fn vfork_done(&mut self, done: &VforkDone, now: Instant) {
        self.forget_stuck(&done.fork_id);
        let Some(Held { key, mut waits, attempt }) = self.held.remove(&done.fork_id) else {
            return;
        };
        let Some(ns) = done.held_ns else { return };
        let second = self.second(now);
        waits.push((Name::Borrowed(VFORK), done.wait_ns));
        self.all.held(ns, &waits);
        self.recent.at(second).held(ns, &waits);
        let same = self.cells.get_mut(&key.comm);
        let same = same.and_then(|cells| cells.iter_mut().find(|cell| cell.key == key));
        // It is one of the others by now.
        if let Some(cell) = same.or(self.other.as_deref_mut()) {
            cell.held(ns, &waits, second);
            if let Some(attempt) = attempt {
                cell.slowest.add_held(attempt, ns);
            }
        }
    }

    fn stuck(&mut self, stuck: &Stuck) {
        let same = |other: &Stuck| {
            (other.parent.tid, other.since_ns) == (stuck.parent.tid, stuck.since_ns)
        };
        self.stuck.retain(|other| !same(other));
        if self.stuck.len() == MOST_TOLD {
            self.stuck.remove(0);
        }
        self.stuck.push(stuck.clone());
    }

    fn forget_stuck(&mut self, id: &str) {
        if !self.stuck.is_empty() {
            self.stuck.retain(|stuck| stuck.fork_id.as_deref() != Some(id));
        }
    }

    /// Remembers a limit at which an attempt failed.
    fn limit(&mut self, cause: &Cause, second: u64) {
        let Cause { limit: Some(limit), current: Some(current), max: Some(max), path, .. } = cause
        else {
            return;
        };
        if *max == 0 {
            return;
        }
        let fill = Fill {
            limit: limit.clone(),
            path: path.clone(),
            current: *current,
            max: *max,
            is_bytes: cause.kind.is_in_bytes(),
        };
        self.limits.retain(|(_, other)| (&other.limit, &other.path) != (&fill.limit, &fill.path));
        if self.limits.len() == MOST_TOLD {
            self.limits.remove(0);
        }
        self.limits.push((second, fill));
    }

    /// The limits at which attempts failed within a minute before `now`; of a recording all.
    pub(super) fn limits(&self, now: Instant) -> impl Iterator<Item = &Fill> {
        let second = self.second(now);
        let is_told =
            move |at: u64| self.whole.is_some() || second.saturating_sub(at) < LIMIT_SECONDS;
        self.limits.iter().filter(move |(at, _)| is_told(*at)).map(|(_, fill)| fill)
    }

    /// The last warning, if it came no more than so many seconds before `now`; none of a recording.
    pub(super) fn warning(&self, now: Instant, seconds: u64) -> Option<&Warning> {
        let (at, warning) = self.warning.as_ref().filter(|_| self.whole.is_none())?;
        (self.second(now).saturating_sub(*at) < seconds).then_some(warning)
    }

    /// The control groups of those who forked in the last seconds.
    pub(super) fn groups(&self) -> Vec<Arc<str>> {
        let second = self.second(Instant::now());
        let forked = self.cells().filter(|cell| cell.recent.sum(second).forks > 0);
        let mut groups: Vec<_> = forked.filter_map(|cell| cell.key.cgroup.clone()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// What the trace began with, and when that was seen.
    pub(super) fn begun(&self) -> Option<(Box<Start>, Instant)> {
        Some((self.start.clone()?, self.began))
    }

    fn cell_of(&mut self, parent: &Parent) -> &mut Cell {
        let known = |cells: &HashMap<Arc<str>, Vec<Cell>>| {
            let cells = cells.get(parent.comm.as_str())?;
            cells.iter().position(|cell| cell.key.is_of(parent))
        };
        if known(&self.cells).is_none() {
            if self.len >= MOST {
                self.make_room();
            }
            let key = Key {
                comm: parent.comm.as_str().into(),
                exe: parent.exe.clone(),
                cgroup: parent.cgroup.clone(),
                uid: parent.uid,
            };
            let cell = Cell::new(key.clone(), Some(parent), self.other.is_some());
            self.cells.entry(key.comm).or_default().push(cell);
            self.len += 1;
        }
        let place = known(&self.cells);
        let cells = self.cells.get_mut(parent.comm.as_str());
        match cells.zip(place).and_then(|(cells, place)| cells.get_mut(place)) {
            Some(cell) => cell,
            // It was made just now.
            None => self.other.get_or_insert_with(others),
        }
    }

    /// Makes one of the half that forked less.
    fn make_room(&mut self) {
        let mut all: Vec<Cell> = self.cells.drain().flat_map(|(_, cells)| cells).collect();
        all.sort_by(|a, b| b.all.forks.cmp(&a.all.forks).then_with(|| a.key.comm.cmp(&b.key.comm)));
        let other = self.other.get_or_insert_with(others);
        for cell in all.drain(MOST / 2..) {
            other.merge(&cell);
        }
        self.len = all.len();
        for cell in all {
            self.cells.entry(Arc::clone(&cell.key.comm)).or_default().push(cell);
        }
    }
}

fn others() -> Box<Cell> {
    let key = Key { comm: OTHER.into(), exe: None, cgroup: None, uid: 0 };
    Box::new(Cell::new(key, None, false))
}
