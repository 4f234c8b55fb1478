//! The `stage` line: one stage of one attempt. A stream has these lines instead of `fork` lines where it was
//! asked for.
//!
//! The kernel side gives one record for each attempt, so the lines of an attempt stand together, in the
//! kernel's order, and come when its `fork` line would have come.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    caller::Task,
    cause::Cause,
    fork::{Fork, OTHER},
    span::{Precision, Span, Status},
    values::{Kind, Name, Ts},
};

/// One stage of one attempt. Each attempt has at least one line: one of which no stage is known, and one
/// that was refused where no stage is known to have failed, has a line of the name [`OTHER`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StageLine {
    /// Id of the attempt.
    pub fork_id: String,
    /// When the stage began; of a stage without `start_ns`, when the attempt did.
    pub ts: Ts,
    /// The same moment, `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// The task that called.
    pub parent: Task,
    /// Thread id of the child; absent when the attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_tid: Option<u32>,
    /// What the attempt makes; absent when the flags could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The stage, as it stands in the `stages` of a `fork` line.
    #[serde(flatten)]
    pub span: Span,
    /// Error number of the attempt; only in the line of the stage that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    /// Its name, in the same line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_name: Option<Name>,
    /// Why the attempt failed, in the same line; absent where nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The attempt that the C library made instead of this one, in the same line: so this is no failure of its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fell_back_to: Option<String>,
}

/// The lines of an attempt, in the kernel's order.
pub fn lines(fork: &Fork) -> impl Iterator<Item = StageLine> + '_ {
    let refused = refused_at(fork);
    let extra = refused.is_none() && (fork.stages.is_empty() || !fork.succeeded());
    let stages = fork.stages.iter().enumerate();
    let stages = stages.map(move |(place, span)| line(fork, span.clone(), refused == Some(place)));
    stages.chain(extra.then(|| line(fork, rest(fork), !fork.succeeded())))
}

/// The place of the stage that refused an attempt: the innermost of those that failed, where none is named.
fn refused_at(fork: &Fork) -> Option<usize> {
    if fork.succeeded() {
        return None;
    }
    let named = |span: &Span| span.of.is_none() && Some(&span.name) == fork.failed_stage.as_ref();
    let failed = |span: &Span| span.status == Status::Failed;
    fork.stages.iter().position(named).or_else(|| fork.stages.iter().rposition(failed))
}

/// What stands for the time in no stage.
fn rest(fork: &Fork) -> Span {
    let dur_ns = fork.other_ns;
    Span {
        name: Name::Borrowed(OTHER),
        start_ns: None,
        dur_ns,
        self_ns: dur_ns,
        off_cpu_ns: None,
        runs: None,
        status: if fork.succeeded() { Status::Done } else { Status::Failed },
        precision: if dur_ns.is_some() { Precision::Bounded } else { Precision::Missing },
        source: None,
        as_covered: dur_ns.is_some(),
        until: None,
        includes_undo: None,
        tracer_ns: None,
        samples: None,
        of: None,
    }
}

fn line(fork: &Fork, span: Span, refused: bool) -> StageLine {
    let start_ns = span.start_ns.unwrap_or_default();
    let later = i64::try_from(start_ns).ok().map(SignedDuration::from_nanos);
    let ts = later.and_then(|later| fork.ts.0.checked_add(later).ok());
    let parent = &fork.parent;
    StageLine {
        fork_id: fork.id.clone(),
        ts: ts.map_or(fork.ts, Ts),
        mono_ns: fork.mono_ns.saturating_add(start_ns),
        parent: Task { pid: parent.pid, tid: parent.tid, comm: parent.comm.clone() },
        child_tid: fork.child.as_ref().map(|child| child.tid),
        kind: fork.kind,
        span,
        errno: fork.errno.filter(|_| refused),
        errno_name: fork.errno_name.clone().filter(|_| refused),
        cause: fork.cause.clone().filter(|_| refused),
        fell_back_to: fork.fell_back_to.clone().filter(|_| refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(rest: &str) -> Fork {
        let parent = r#""parent":{"pid":7,"tid":8,"ppid":1,"comm":"sh","uid":0}"#;
        let json = format!(
            r#"{{"id":"8-100","ts":"2026-01-01T00:00:00Z","mono_ns":100,"kind":"process",{parent},{rest}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn each_stage_has_its_own_moment_and_a_line_reads_back_as_it_is() {
        let fork = fork(
            r#""child":{"pid":9,"tid":9},"stages":[{"name":"copy_mm","start_ns":5,"dur_ns":7,
            "self_ns":1,"off_cpu_ns":2},{"name":"copy_fs","status":"shared"}],"other_ns":3"#,
        );
        let lines: Vec<_> = lines(&fork).collect();
        let [mm, fs] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(
            (mm.mono_ns, mm.ts.to_string().as_str()),
            (105, "2026-01-01T00:00:00.000000005Z")
        );
        assert_eq!((fs.mono_ns, fs.child_tid, fs.span.status), (100, Some(9), Status::Shared));
        let text = serde_json::to_string(mm).unwrap();
        let want = r#"{"fork_id":"8-100","ts":"2026-01-01T00:00:00.000000005Z","mono_ns":105,"parent":{"pid":7,"tid":8,"comm":"sh"},"child_tid":9,"kind":"process","name":"copy_mm","start_ns":5,"dur_ns":7,"self_ns":1,"off_cpu_ns":2}"#;
        assert_eq!(text, want);
        assert_eq!(serde_json::from_str::<StageLine>(&text).unwrap(), *mm);
    }

    #[test]
    fn a_refused_attempt_says_why_once() {
        let failed = r#""errno":11,"errno_name":"EAGAIN","total_ns":9,"other_ns":4"#;
        let told = |rest: &str| -> Vec<(String, Option<u32>)> {
            let fork = fork(&format!("{failed}{rest}"));
            lines(&fork).map(|line| (line.span.name.into_owned(), line.errno)).collect()
        };
        let stages = r#","stages":[{"name":"copy_process","dur_ns":5,"status":"failed"},
            {"name":"copy_creds","status":"failed"},{"name":"bad_fork_cleanup","dur_ns":1}]"#;
        let at = |name: &str| (name.to_owned(), Some(11));
        let not_at = |name: &str| (name.to_owned(), None);
        let innermost = [not_at("copy_process"), at("copy_creds"), not_at("bad_fork_cleanup")];
        assert_eq!(told(stages), innermost);
        let named = format!(r#"{stages},"failed_stage":"copy_process""#);
        assert_eq!(told(&named)[..2], [at("copy_process"), not_at("copy_creds")]);
        // Refused before it began, or nobody knows where.
        assert_eq!(told(""), [at(OTHER)]);
        let done = r#","stages":[{"name":"sys_enter","start_ns":0,"dur_ns":5}]"#;
        assert_eq!(told(done), [not_at("sys_enter"), at(OTHER)]);
    }

    #[test]
    fn an_attempt_without_stages_has_a_line_and_a_moment_beyond_every_clock_is_no_moment() {
        let bare = fork(r#""child":{"pid":9,"tid":9},"total_ns":6,"other_ns":6"#);
        let lines_of_it: Vec<_> = lines(&bare).collect();
        assert_eq!(lines_of_it[0].span.dur_ns, Some(6));
        let text = serde_json::to_string(&lines_of_it[0]).unwrap();
        assert_eq!(serde_json::from_str::<StageLine>(&text).unwrap(), lines_of_it[0]);
        let far =
            r#""child":{"pid":9,"tid":9},"stages":[{"name":"x","start_ns":18446744073709551615}]"#;
        let far = lines(&fork(far)).next().unwrap();
        assert_eq!((far.mono_ns, far.ts), (u64::MAX, bare.ts));
    }
}
