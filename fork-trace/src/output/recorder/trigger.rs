//! What makes a recorder write down what it has.

use crate::event::{fork::Fork, stuck::Stuck, units::count};

/// What makes a recorder write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// An attempt failed.
    Failure,
    /// An attempt failed at a limit.
    Limit,
    /// An attempt does not end.
    Stuck,
    /// There were very many attempts within a second.
    Storm,
    /// The user asked for it.
    Signal,
}

impl Trigger {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Failure, Self::Limit, Self::Stuck, Self::Storm, Self::Signal];

    /// Its name in options, names of files and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Limit => "limit",
            Self::Stuck => "stuck",
            Self::Storm => "storm",
            Self::Signal => "signal",
        }
    }
}

/// Something that happened, because of which the recorder writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) trigger: Trigger,
    /// What it was, as part of a sentence.
    pub(super) what: String,
    /// The attempt that it was about.
    pub(super) fork_id: Option<String>,
}

impl Reason {
    pub(super) fn signal() -> Self {
        Self { trigger: Trigger::Signal, what: "SIGUSR1 came".to_owned(), fork_id: None }
    }
}

/// Looks at what comes for a reason to write.
#[derive(Debug)]
pub(super) struct Watch {
    on: Vec<Trigger>,
    /// More attempts than this within a second are a storm.
    storm: u64,
    /// When the second under way began, `CLOCK_MONOTONIC`.
    began_ns: u64,
    /// Attempts in it.
    attempts: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Watch {
    pub(super) const fn new(on: Vec<Trigger>, storm: u64) -> Self {
        Self { on, storm, began_ns: 0, attempts: 0 }
    }

    /// Takes an attempt; returns the reason that it is.
    pub(super) fn fork(&mut self, fork: &Fork) -> Option<Reason> {
        if fork.mono_ns.saturating_sub(self.began_ns) >= SECOND_NS {
            (self.began_ns, self.attempts) = (fork.mono_ns, 0);
        }
        self.attempts += 1;
        let limit = fork.cause.as_ref().and_then(|cause| cause.limit.as_ref());
        let parent = &fork.parent;
        let (trigger, what) = if fork.is_failure() && limit.is_some() && self.is_on(Trigger::Limit)
        {
            (
                Trigger::Limit,
                format!("{} ({}) met a limit: {}", parent.comm, parent.pid, failed(fork)),
            )
        } else if fork.is_failure() && self.is_on(Trigger::Failure) {
            (Trigger::Failure, format!("{} ({}) failed: {}", parent.comm, parent.pid, failed(fork)))
        } else if self.attempts == self.storm + 1 && self.is_on(Trigger::Storm) {
            let storm = count(self.storm);
            (Trigger::Storm, format!("there were more than {storm} attempts within a second"))
        } else {
            return None;
        };
        Some(Reason { trigger, what, fork_id: Some(fork.id.clone()) })
    }

    /// Takes word of an attempt that does not end; returns the reason that it is.
    pub(super) fn stuck(&self, stuck: &Stuck) -> Option<Reason> {
        let Stuck { parent, stage, reason, fork_id, .. } = stuck;
        let place = stage.as_ref().map_or_else(String::new, |stage| format!(" in {stage}"));
        let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let what = format!("{} ({}) stands still{place}{why}", parent.comm, parent.pid);
        let reason = Reason { trigger: Trigger::Stuck, what, fork_id: fork_id.clone() };
        self.is_on(Trigger::Stuck).then_some(reason)
    }

    fn is_on(&self, trigger: Trigger) -> bool {
        self.on.contains(&trigger)
    }
}

/// The error, and what is known of its cause.
fn failed(fork: &Fork) -> String {
    let failure = fork.failure();
    match &fork.errno_name {
        Some(errno) if *errno != failure => format!("{errno}, {failure}"),
        _ => failure.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, tests::fork};

    const REFUSED: &str = r#","errno":11,"errno_name":"EAGAIN","cause":{"kind":"cgroup-pids","what":"x",
        "limit":"pids.max","current":9,"max":9,"confidence":"certain","hint":"y"}"#;

    fn reasons(on: &[Trigger]) -> Vec<Option<String>> {
        let mut watch = Watch::new(on.to_vec(), 100);
        let attempts = [
            ("1-1", r#","child":{"pid":2,"tid":2}"#),
            ("1-2", REFUSED),
            ("1-3", r#","errno":22,"errno_name":"EINVAL""#),
            ("1-4", r#","errno":38,"errno_name":"ENOSYS","fell_back_to":"1-5""#),
        ];
        let told = attempts.map(|(id, fields)| watch.fork(&fork(id, fields)));
        told.map(|reason| reason.map(|it| format!("{}: {}", it.trigger.name(), it.what))).to_vec()
    }

    #[test]
    fn attempts_that_failed_are_reasons_as_far_as_they_are_wanted() {
        let limit = Some("limit: a (1) met a limit: EAGAIN, cgroup-pids".to_owned());
        let invalid = Some("failure: a (1) failed: EINVAL".to_owned());
        let refused = Some("failure: a (1) failed: EAGAIN, cgroup-pids".to_owned());
        assert_eq!(reasons(&Trigger::ALL), [None, limit.clone(), invalid.clone(), None]);
        assert_eq!(reasons(&[Trigger::Limit]), [None, limit, None, None]);
        assert_eq!(reasons(&[Trigger::Failure]), [None, refused, invalid, None]);
        assert_eq!(reasons(&[]), [None, None, None, None]);
    }

    #[test]
    fn a_storm_is_more_than_so_many_within_a_second() {
        let mut watch = Watch::new(vec![Trigger::Storm], 100);
        let mut told = |from_ns: u64, step_ns: u64| {
            let attempts = (0..1_000_u64).filter(|place| {
                let mut fork = fork("1-1", r#","child":{"pid":2,"tid":2}"#);
                fork.mono_ns = from_ns + place * step_ns;
                watch.fork(&fork).is_some()
            });
            attempts.count()
        };
        assert_eq!(told(0, 10_000_000), 0, "100 a second");
        assert_eq!(told(100 * SECOND_NS, 5_000_000), 5, "200 a second, for five seconds");
    }

    #[test]
    fn a_stuck_attempt_is_a_reason_with_its_place() {
        let line = r#"{"type":"stuck","fork_id":"1-9","mono_ns":5,"for_ns":9,"state":"blocked",
            "stage":"copy_mm","reason":"mmap_lock","parent":{"pid":7,"tid":7,"comm":"b"}}"#;
        let Event::Stuck(stuck) = serde_json::from_str(line).unwrap() else { panic!() };
        let reason = Watch::new(vec![Trigger::Stuck], 1).stuck(&stuck).unwrap();
        assert_eq!(reason.what, "b (7) stands still in copy_mm: mmap_lock");
        assert_eq!(reason.fork_id.as_deref(), Some("1-9"));
        assert_eq!(Watch::new(vec![Trigger::Storm], 1).stuck(&stuck), None);
    }
}
