//! One stage of one attempt, and how well its time is known.

use fork_trace_common::stage::{STAGES, Stage};
use serde::{Deserialize, Serialize};

use crate::event::values::Name;

/// How well a stage's time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// From its own entry to its own return.
    Exact,
    /// Between two named marks, in which other things fall too.
    Bounded,
    /// In proportion to samples of the kernel stack: see [`Span::samples`].
    Sampled,
    /// Not at all.
    Missing,
}

/// What marks a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Fork's own tracepoints, or those that fire inside it.
    Tracepoint,
    /// Functions, by BTF trampoline.
    Fentry,
    /// Functions, by breakpoint.
    Kprobe,
    /// Follows from the call's flags.
    Derived,
    /// The kernel stack when the task left its CPU.
    Switch,
    /// The kernel stack each time that a timer came.
    Sample,
}

impl Source {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Derived => "derived",
            Self::Switch => "switch",
            Self::Sample => "sample",
        }
    }
}

/// What became of a stage in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was passed. Of a failed attempt its time may still include more: see
    /// [`Span::includes_undo`].
    Done,
    /// Shared with the parent instead of copied, because of a clone flag.
    Shared,
    /// The attempt failed in it or in a stage within it. Without a time where this host cannot time
    /// it: its time falls into the stage before. Where no stage is known to have failed, this is
    /// the one between whose marks it must have been.
    Failed,
    /// Normally seen on this host, but a mark is absent in this attempt: its time falls into the
    /// stage before.
    Missing,
}

/// One stage of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The stage.
    pub name: Name,
    /// From the start of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// How long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dur_ns: Option<u64>,
    /// Without the stages within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_ns: Option<u64>,
    /// Of `dur_ns`: time not on a CPU; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_cpu_ns: Option<u64>,
    /// How often its function ran, where `dur_ns` is the sum of many runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// What became of it.
    pub status: Status,
    /// How well it is known.
    pub precision: Precision,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The mark that ended it, where that is not the one in the `start` line: the attempt did not
    /// pass that one, because it shares what comes next, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Name>,
    /// `true`: the attempt failed while this stage was under way or after it, and when it began to
    /// undo what was made was not seen. `dur_ns` goes on to the end of the attempt, undoing
    /// included. Absent otherwise: undoing is a stage of its own, or there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub includes_undo: Option<bool>,
    /// How much of `self_ns` fork-trace's own program took that ran in this stage; absent where none
    /// of those that take more than a tenth of a microsecond did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracer_ns: Option<u64>,
    /// How many samples of the kernel stack were taken in it. With the precision `sampled`, of those
    /// in the stage that `of` names. Otherwise its own time is split by samples, and these are all that
    /// were taken in that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// With the precision `sampled`: the stage whose own time it is a share of, or `other`. It has no
    /// own time itself, because that one has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Name>,
}

impl Span {
    /// Whether it is a share of another stage's own time.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        matches!(self.precision, Precision::Sampled)
    }
}

/// How long a stage worked: its own time without what it was off the CPU. `None` where it was not
/// timed.
#[must_use]
pub fn worked_ns(stages: &[Span], span: &Span) -> Option<u64> {
    let own_ns = span.self_ns?;
    let nested = stages.iter().filter(|inner| is_next_around(stages, span, inner));
    let nested_ns: u64 = nested.filter_map(|inner| inner.off_cpu_ns).sum();
    let off_ns = span.off_cpu_ns.unwrap_or_default().saturating_sub(nested_ns);
    Some(own_ns.saturating_sub(off_ns))
}

/// Whether `outer` is the nearest timed stage around `inner`.
fn is_next_around(stages: &[Span], outer: &Span, inner: &Span) -> bool {
    let (Some(outer), Some(inner)) = (stage(outer), stage(inner)) else { return false };
    let timed = |candidate: &Stage| {
        let is = |span: &Span| span.dur_ns.is_some() && !span.is_sampled();
        stages.iter().any(|span| is(span) && stage(span) == Some(*candidate))
    };
    inner.around().find(timed) == Some(outer)
}

fn stage(span: &Span) -> Option<Stage> {
    STAGES.iter().find(|row| row.name == span.name).map(|row| row.stage)
}
