//! The attempts that held their callers longest.

use fork_trace_common::stage::Stage;

use crate::event::{caller::Task, fork::Fork, summary::SlowAttempt, values::Name};

/// How many are kept.
const MOST: usize = 10;

/// The longest so far, the longest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slowest(Vec<SlowAttempt>);

impl Slowest {
    /// Takes an attempt that was over when it was shown.
    pub(crate) fn add(&mut self, fork: &Fork) {
        if let Some(ns) = fork.took_ns().filter(|ns| self.wants(*ns)) {
            self.insert(attempt(fork, ns));
        }
    }

    /// Takes one that was shown while its caller was held: it has held it for `ns`.
    pub(crate) fn add_held(&mut self, held: HeldAttempt, ns: u64) {
        if !self.wants(ns) {
            return;
        }
        let HeldAttempt { mut attempt, total_ns } = held;
        attempt.held_ns = ns;
        let waited_ns = ns.saturating_sub(total_ns);
        if attempt.slow.is_none() && attempt.stage_ns.is_none_or(|stage_ns| stage_ns < waited_ns) {
            attempt.stage = Some(Name::Borrowed(Stage::WaitForVforkDone.row().name));
            attempt.stage_ns = Some(waited_ns);
        }
        self.insert(attempt);
    }

    /// Takes those of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for attempt in &other.0 {
            if self.wants(attempt.held_ns) {
                self.insert(attempt.clone());
            }
        }
    }

    /// As the summary has them.
    pub(crate) fn summary(&self) -> Vec<SlowAttempt> {
        self.0.clone()
    }

    fn wants(&self, ns: u64) -> bool {
        self.0.len() < MOST || self.0.last().is_some_and(|last| last.held_ns < ns)
    }

    fn insert(&mut self, attempt: SlowAttempt) {
        let place = self.0.partition_point(|other| other.held_ns >= attempt.held_ns);
        self.0.insert(place, attempt);
        self.0.truncate(MOST);
    }
}

/// An attempt whose caller was held when it was shown.
#[derive(Clone, Debug)]
pub(crate) struct HeldAttempt {
    attempt: SlowAttempt,
    /// How long it took without the wait.
    total_ns: u64,
}

impl HeldAttempt {
    /// `None` where nobody saw how long the call took.
    pub(crate) fn new(fork: &Fork) -> Option<Self> {
        let total_ns = fork.total_ns?;
        Some(Self { attempt: attempt(fork, total_ns), total_ns })
    }
}

fn attempt(fork: &Fork, held_ns: u64) -> SlowAttempt {
    let parent = &fork.parent;
    // What kept the caller on its way out of the call is in no stage.
    let return_ns = fork.return_ns.unwrap_or_default();
    let stage = fork.slowest_with_wait().filter(|(_, ns)| fork.slow.is_none() && *ns >= return_ns);
    SlowAttempt {
        fork_id: fork.id.clone(),
        parent: Task { pid: parent.pid, tid: parent.tid, comm: parent.comm.clone() },
        kind: fork.kind,
        held_ns,
        errno_name: fork.errno_name.clone().filter(|_| !fork.succeeded()),
        slow: fork.slow.clone(),
        stage: stage.map(|(name, _)| Name::Owned(name.to_owned())),
        stage_ns: stage.map(|(_, ns)| ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tally::tests::{fork, span};

    const PARENT: &str = r#""parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0}"#;

    fn vfork(held: &str) -> Fork {
        let child = r#""child":{"pid":2,"tid":2}"#;
        let stages = format!(r#""stages":[{}]"#, span("copy_process", 70));
        fork(&format!(
            r#"{PARENT},"kind":"vfork","syscall":"vfork","total_ns":90{held},{child},{stages}"#
        ))
    }

    #[test]
    fn ten_are_kept_the_longest_first() {
        let mut slowest = Slowest::default();
        for ns in [5, 90, 7, 1, 2, 3, 4, 6, 8, 9, 10, 11, 3] {
            slowest.add(&fork(&format!(r#"{PARENT},"total_ns":{ns},"held_ns":{ns}"#)));
        }
        let held: Vec<_> = slowest.summary().iter().map(|attempt| attempt.held_ns).collect();
        assert_eq!(held, [90, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
        assert_eq!(slowest.summary()[0].stage, None, "nothing is known of its stages");
    }

    #[test]
    fn no_stage_is_named_where_the_way_out_of_the_call_took_longer() {
        let stages = format!(r#""stages":[{}]"#, span("copy_process", 70));
        for (return_ns, named) in [(69, true), (71, false)] {
            let mut slowest = Slowest::default();
            slowest.add(&fork(&format!(
                r#"{PARENT},"total_ns":90,"held_ns":200,"return_ns":{return_ns},{stages}"#
            )));
            assert_eq!(slowest.summary()[0].stage.is_some(), named, "{return_ns}");
        }
    }

    #[test]
    fn a_vforks_wait_is_what_took_the_time_where_it_did() {
        let mut slowest = Slowest::default();
        let held = HeldAttempt::new(&vfork("")).unwrap();
        slowest.add_held(held.clone(), 1_000);
        slowest.add_held(held, 120);
        slowest.add(&vfork(r#","held_ns":500"#));
        let found = slowest.summary();
        let found: Vec<_> = found
            .iter()
            .map(|attempt| (attempt.held_ns, attempt.stage.as_deref().unwrap(), attempt.stage_ns))
            .collect();
        let want = [
            (1_000, "wait_for_vfork_done", Some(910)),
            (500, "wait_for_vfork_done", Some(410)),
            (120, "copy_process", Some(70)),
        ];
        assert_eq!(found, want);
    }
}
