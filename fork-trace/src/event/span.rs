//! One stage of one attempt, and how well its time is known.

use fork_trace_common::stage::{Row, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::event::values::Name;

/// How well a stage's time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Precision {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bounded => "bounded",
            Self::Sampled => "sampled",
            Self::Missing => "missing",
        }
    }

    /// What stands before a time that is not exact.
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::Bounded | Self::Sampled => "~",
            Self::Exact | Self::Missing => "",
        }
    }
}

/// What marks a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Fork's own tracepoints, or those that fire inside it.
    Tracepoint,
    /// Functions, by BTF trampoline.
    Fentry,
    /// Functions, by breakpoint.
    Kprobe,
    /// Functions of a C library, by breakpoint.
    Uprobe,
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
            Self::Uprobe => "uprobe",
            Self::Derived => "derived",
            Self::Switch => "switch",
            Self::Sample => "sample",
        }
    }
}

/// What became of a stage in one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was passed. Of a failed attempt its time may still include more: see
    /// [`Span::includes_undo`].
    #[default]
    Done,
    /// Shared with the parent instead of copied, because of a clone flag.
    Shared,
    /// The attempt failed in it or in a stage within it. Without a time where this host cannot time
    /// it: its time falls into the stage before. Where no stage is known to have failed, this is
    /// the one between whose marks it must have been.
    Failed,
}

/// One stage of one attempt. Its line says nothing that the `start` line says already, and nothing twice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "Line")]
pub struct Span {
    /// The stage.
    pub name: Name,
    /// From the start of the attempt.
    pub start_ns: Option<u64>,
    /// How long.
    pub dur_ns: Option<u64>,
    /// Without the stages within it. In a line only where it differs from `dur_ns`.
    pub self_ns: Option<u64>,
    /// Of `dur_ns`: time not on a CPU; absent means none.
    pub off_cpu_ns: Option<u64>,
    /// How often its function ran, where `dur_ns` is the sum of many runs.
    pub runs: Option<u64>,
    /// What became of it. In a line absent where it is done.
    pub status: Status,
    /// How well it is known.
    pub precision: Precision,
    /// By what; `None` where it has no time.
    pub source: Option<Source>,
    /// Whether `precision` and `source` are those of the `start` line: then its own line has neither.
    pub as_covered: bool,
    /// The mark that ended it, where that is not the one in the `start` line: the attempt did not
    /// pass that one, because it shares what comes next, or failed.
    pub until: Option<Name>,
    /// `true`: the attempt failed while this stage was under way or after it, and when it began to
    /// undo what was made was not seen. `dur_ns` goes on to the end of the attempt, undoing
    /// included. Absent otherwise: undoing is a stage of its own, or there was none.
    pub includes_undo: Option<bool>,
    /// How much of `self_ns` fork-trace's own program took that ran in this stage; absent where none
    /// of those that take more than a tenth of a microsecond did.
    pub tracer_ns: Option<u64>,
    /// How many samples of the kernel stack were taken in it. With the precision `sampled`, of those
    /// in the stage that `of` names. Otherwise its own time is split by samples, and these are all that
    /// were taken in that.
    pub samples: Option<u64>,
    /// With the precision `sampled`: the stage whose own time it is a share of, or `other`. It has no
    /// own time itself, because that one has it.
    pub of: Option<Name>,
}

/// One stage of one attempt. What is absent is as the `start` line says it, or as below.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Span")]
struct Line {
    /// The stage.
    name: Name,
    /// From the start of the attempt.
    start_ns: Option<u64>,
    /// How long.
    dur_ns: Option<u64>,
    /// Without the stages within it; absent where that is the same as `dur_ns`.
    self_ns: Option<u64>,
    /// Of `dur_ns`: time not on a CPU; absent means none.
    off_cpu_ns: Option<u64>,
    /// How often its function ran, where `dur_ns` is the sum of many runs.
    runs: Option<u64>,
    /// What became of it; absent where it is done.
    #[serde(default)]
    status: Status,
    /// How well it is known, where that is not what the `start` line says.
    precision: Option<Precision>,
    /// By what, where that is not what the `start` line says.
    source: Option<Source>,
    /// The mark that ended it, where that is not the one in the `start` line.
    until: Option<Name>,
    /// `true`: `dur_ns` goes on to the end of the failed attempt, undoing included.
    includes_undo: Option<bool>,
    /// How much of its own time fork-trace's own program took that ran in it.
    tracer_ns: Option<u64>,
    /// How many samples of the kernel stack were taken in it.
    samples: Option<u64>,
    /// With the precision `sampled`: the stage whose own time it is a share of, or `other`.
    of: Option<Name>,
}

impl From<Line> for Span {
    fn from(line: Line) -> Self {
        let timed = line.dur_ns.is_some();
        let least = if timed { Precision::Bounded } else { Precision::Missing };
        Self {
            name: line.name,
            start_ns: line.start_ns,
            dur_ns: line.dur_ns,
            // A share of another stage's own time has none itself.
            self_ns: line.self_ns.or_else(|| line.dur_ns.filter(|_| line.of.is_none())),
            off_cpu_ns: line.off_cpu_ns,
            runs: line.runs,
            status: line.status,
            precision: line.precision.unwrap_or(least),
            source: line.source,
            as_covered: timed && line.precision.is_none(),
            until: line.until,
            includes_undo: line.includes_undo,
            tracer_ns: line.tracer_ns,
            samples: line.samples,
            of: line.of,
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own_ns = self.self_ns.filter(|_| self.self_ns != self.dur_ns);
        let status = Some(self.status).filter(|status| *status != Status::Done);
        let differs = self.dur_ns.is_some() && !self.as_covered;
        let mut line = serializer.serialize_struct("Span", 1)?;
        line.serialize_field("name", &Named(&self.name))?;
        field(&mut line, "start_ns", self.start_ns.as_ref())?;
        field(&mut line, "dur_ns", self.dur_ns.as_ref())?;
        field(&mut line, "self_ns", own_ns.as_ref())?;
        field(&mut line, "off_cpu_ns", self.off_cpu_ns.as_ref())?;
        field(&mut line, "runs", self.runs.as_ref())?;
        field(&mut line, "status", status.as_ref())?;
        field(&mut line, "precision", Some(&self.precision).filter(|_| differs))?;
        field(&mut line, "source", self.source.as_ref().filter(|_| differs))?;
        field(&mut line, "until", self.until.as_ref())?;
        field(&mut line, "includes_undo", self.includes_undo.as_ref())?;
        field(&mut line, "tracer_ns", self.tracer_ns.as_ref())?;
        field(&mut line, "samples", self.samples.as_ref())?;
        field(&mut line, "of", self.of.as_ref())?;
        line.end()
    }
}

/// A name as text. One that is from a table is written as that of a variant, in which nothing has to be escaped.
struct Named<'a>(&'a Name);

impl Serialize for Named<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Name::Borrowed(name) => serializer.serialize_unit_variant("Stage", 0, name),
            Name::Owned(name) => serializer.serialize_str(name),
        }
    }
}

/// Writes a value that is known.
#[inline(always)]
fn field<L: SerializeStruct, V: Serialize>(
    line: &mut L,
    name: &'static str,
    value: Option<&V>,
) -> Result<(), L::Error> {
    match value {
        Some(value) => line.serialize_field(name, value),
        None => Ok(()),
    }
}

impl Span {
    /// The stage that it is of; `None` where this version does not know it.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        Row::named(&self.name).map(|row| row.stage)
    }

    /// Whether it is a share of another stage's own time.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        matches!(self.precision, Precision::Sampled)
    }

    /// Takes over what the `start` line says of the stage, where its own line says nothing of it.
    pub const fn cover(&mut self, precision: Precision, source: Option<Source>) {
        if self.as_covered {
            self.precision = precision;
            self.source = source;
        }
    }
}

/// Finds rows of a table of stages by name, with their places. It is made for names that come in the table's
/// order: each search goes on where the last one ended.
pub(crate) fn by_name<'a, T>(
    rows: &'a [T],
    name_of: impl Fn(&'a T) -> &'a str,
) -> impl FnMut(&str) -> Option<(usize, &'a T)> {
    let mut next = 0;
    move |name| {
        let (before, after) = rows.split_at_checked(next)?;
        let mut places = (next..).zip(after).chain((0..).zip(before));
        let found = places.find(|(_, row)| name_of(row) == name)?;
        next = found.0 + 1;
        Some(found)
    }
}

/// How long a stage worked: its own time without what it was off the CPU. `None` where it was not
/// timed.
#[must_use]
pub fn worked_ns(stages: &[Span], span: &Span) -> Option<u64> {
    let own_ns = span.self_ns?;
    let Some(off_cpu_ns) = span.off_cpu_ns else { return Some(own_ns) };
    let nested = stages.iter().filter(|inner| is_next_around(stages, span, inner));
    let nested_ns: u64 = nested.filter_map(|inner| inner.off_cpu_ns).sum();
    let off_ns = off_cpu_ns.saturating_sub(nested_ns);
    Some(own_ns.saturating_sub(off_ns))
}

/// Whether `outer` is the nearest timed stage around `inner`.
fn is_next_around(stages: &[Span], outer: &Span, inner: &Span) -> bool {
    let (Some(outer), Some(inner)) = (outer.stage(), inner.stage()) else { return false };
    let timed = |candidate: &Stage| {
        let is = |span: &Span| span.dur_ns.is_some() && !span.is_sampled();
        stages.iter().any(|span| is(span) && span.stage() == Some(*candidate))
    };
    inner.around().find(timed) == Some(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Span {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_line_says_nothing_that_the_first_one_says() {
        let line = r#"{"name":"copy_fs","start_ns":5,"dur_ns":7}"#;
        let mut span = read(line);
        assert_eq!((span.self_ns, span.status), (Some(7), Status::Done));
        span.cover(Precision::Exact, Some(Source::Fentry));
        assert_eq!((span.precision, span.source), (Precision::Exact, Some(Source::Fentry)));
        assert_eq!(serde_json::to_string(&span).unwrap(), line);
    }

    #[test]
    fn a_line_says_what_is_different() {
        for line in [
            r#"{"name":"copy_mm","start_ns":5,"dur_ns":7,"self_ns":0,"status":"failed","precision":"bounded","source":"fentry","until":"sys_exit"}"#,
            r#"{"name":"copy_fs","status":"shared"}"#,
            r#"{"name":"dup_mmap","dur_ns":7,"precision":"sampled","source":"sample","samples":9,"of":"copy_mm"}"#,
        ] {
            let mut span = read(line);
            let before = span.clone();
            span.cover(Precision::Exact, Some(Source::Kprobe));
            assert_eq!(span, before, "it is said in its own line");
            assert_eq!(serde_json::to_string(&span).unwrap(), line);
        }
        assert_eq!(read(r#"{"name":"a","dur_ns":7,"of":"b"}"#).self_ns, None, "a share has none");
    }

    #[test]
    fn rows_are_found_in_any_order() {
        let rows = ["a", "b", "c"];
        let mut find = by_name(&rows, |row| row);
        let places = ["b", "b", "c", "a", "x", "c"].map(|name| find(name).map(|(place, _)| place));
        assert_eq!(places, [Some(1), Some(1), Some(2), Some(0), None, Some(2)]);
    }
}
