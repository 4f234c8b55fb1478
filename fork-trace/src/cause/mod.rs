//! Why an attempt failed: which stage refused it, and for what reason. This is concluded from the
//! error number, from the marks that the attempt reached, and from the evidence that the kernel
//! side read when it was refused. The room is pure: it does no I/O and holds no state.
//!
//! The reasons stand in two tables, `rules` and `limits`; `explain` and docs/FAILURES.md are made
//! from the same tables.

mod case;
pub mod explain;
mod limits;
mod look;
mod rules;
mod window;

use fork_trace_common::stage::Stage;
use nix::errno::Errno;

use crate::{
    cause::{
        limits::{LIMITS, Limit},
        look::{Details, Finding},
        rules::{RULES, Rule},
    },
    event::{
        cause::{Cause, CauseKind, Confidence},
        fork::Fork,
        values::Name,
    },
};

pub use crate::cause::{case::Case, window::Window};

/// One possible reason, and how well the evidence supports it.
struct Candidate {
    /// The stage in which the kernel checks for it; candidates are sorted by it.
    stage: Option<Stage>,
    strength: Strength,
    cause: Cause,
}

/// How well the evidence supports a candidate, the weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// Only the error number speaks for it.
    Fallback,
    /// It is possible.
    Maybe,
    /// The evidence shows it.
    Yes,
}

/// Adds to `fork` the stage that refused it, the cause, and the other causes that are possible.
pub fn add(fork: &mut Fork, case: &Case<'_>) {
    let mut candidates = candidates(case);
    let strongest = candidates.iter().map(|candidate| candidate.strength).max();
    let place = candidates.iter().position(|candidate| Some(candidate.strength) == strongest);
    let Some(place) = place else {
        fork.failed_stage = case.window.only().map(name);
        fork.cause = Some(unknown());
        return;
    };
    let earlier = candidates.iter().take(place).any(|other| other.strength == Strength::Maybe);
    let first = candidates.remove(place);
    let certain = first.strength == Strength::Yes && !earlier;
    fork.failed_stage = first.stage.or(case.window.only()).map(name);
    fork.cause = Some(with_confidence(first.cause, certain));
    // The kernel checks nothing more once a rule has refused, so no other cause is possible then.
    let decided = certain && fork.cause.as_ref().is_some_and(|cause| cause.rule.is_some());
    let others = candidates.into_iter().filter(|other| other.strength != Strength::Fallback);
    let others = others.filter(|other| !decided && (!certain || other.strength == Strength::Yes));
    fork.other_causes = others.map(|other| with_confidence(other.cause, false)).collect();
}

fn with_confidence(cause: Cause, certain: bool) -> Cause {
    let confidence = if certain { Confidence::Certain } else { Confidence::Likely };
    Cause { confidence, ..cause }
}

fn name(stage: Stage) -> Name {
    Name::Borrowed(stage.row().name)
}

/// The cause where no row of the tables fits.
fn unknown() -> Cause {
    cause(
        CauseKind::Unknown,
        "none of the known reasons",
        "look at dmesg and at /proc/sys/kernel; `fork-trace explain` lists what is known",
    )
}

/// A cause without figures, whose confidence is decided later, among all candidates.
const fn cause(kind: CauseKind, what: &'static str, hint: &'static str) -> Cause {
    Cause {
        kind,
        rule: None,
        what: Name::Borrowed(what),
        limit: None,
        current: None,
        max: None,
        path: None,
        uid: None,
        confidence: Confidence::Likely,
        hint: Name::Borrowed(hint),
    }
}

/// Every row that has the error number, lies in the window and is not ruled out by the evidence, in
/// the kernel's order.
fn candidates(case: &Case<'_>) -> Vec<Candidate> {
    let errno = i32::try_from(case.errno).map_or(Errno::UnknownErrno, Errno::from_raw);
    let in_window = |stage: Option<Stage>| stage.is_none_or(|stage| admits(case, stage));
    let rules = RULES
        .iter()
        .filter(|rule| rule.errno == errno && in_window(Some(rule.stage)))
        .filter_map(|rule| by_rule(rule, case));
    let limits = LIMITS
        .iter()
        .filter(|limit| limit.errno.is_none_or(|of| of == errno) && in_window(limit.stage))
        .filter_map(|limit| by_limit(limit, case));
    let mut all: Vec<_> = rules.chain(limits).collect();
    // The sort is stable, so rules of one stage keep the order of the table.
    all.sort_by_key(|candidate| order(case, candidate.stage));
    all
}

/// The place of a stage in this kernel's order; a candidate without a stage comes last.
fn order(case: &Case<'_>, stage: Option<Stage>) -> u8 {
    match stage {
        // KERNEL: kernel/fork.c `copy_process`: up to 5.14 the limit is checked before
        // `copy_creds`.
        Some(Stage::RlimitNproc) if case.features.early_nproc => Stage::CopyExecState as u8,
        Some(stage) => stage as u8,
        None => u8::MAX,
    }
}

fn admits(case: &Case<'_>, stage: Stage) -> bool {
    let early = stage == Stage::RlimitNproc && case.features.early_nproc;
    case.window.admits(if early { Stage::CopyExecState } else { stage })
}

fn by_rule(rule: &'static Rule, case: &Case<'_>) -> Option<Candidate> {
    let strength = match rule.holds(case) {
        Some(false) => return None,
        Some(true) => Strength::Yes,
        None => Strength::Maybe,
    };
    let of_rule = cause(rule.kind, rule.what, rule.hint);
    let cause = Cause { rule: Some(Name::Borrowed(rule.name)), ..of_rule };
    Some(Candidate { stage: Some(rule.stage), strength, cause })
}

fn by_limit(limit: &'static Limit, case: &Case<'_>) -> Option<Candidate> {
    let (strength, details) = match (limit.look)(case) {
        Finding::No => return None,
        Finding::Fallback(details) => (Strength::Fallback, details),
        Finding::Maybe(details) => (Strength::Maybe, details),
        Finding::Yes(details) => (Strength::Yes, details),
    };
    let Details { limit: name, current, max, path, uid, hint } = details;
    let of_limit = cause(limit.kind, limit.what, limit.hint);
    let hint = hint.map_or_else(|| of_limit.hint.clone(), Name::Owned);
    let cause = Cause { limit: name, current, max, path, uid, hint, ..of_limit };
    Some(Candidate { stage: limit.stage, strength, cause })
}

#[cfg(test)]
mod tests;
