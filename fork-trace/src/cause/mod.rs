//! Why an attempt failed: which stage refused it, and for what reason. This is concluded from the
//! error number, from the marks that the attempt reached, and from the evidence that the kernel
//! side read when it was refused. The room is pure: it does no I/O and holds no state.
//!
//! The reasons stand in two tables, `rules` and `limits`; `explain` and docs/FAILURES.md are made
//! from the same tables.

mod case;
mod ending;
pub mod explain;
pub mod failures;
mod finding;
pub mod holders;
mod limits;
mod look;
mod memory;
mod named;
pub mod reasons;
mod rules;
pub mod slow;
pub mod waits;
mod window;

use crate::{
    assemble::fork::NO_ENTRY,
    cause::{
        finding::{Details, Finding},
        limits::{LIMITS, Limit},
        rules::{RULES, Rule},
    },
    event::{
        cause::{Cause, CauseKind, Confidence},
        fork::Fork,
        values::Name,
    },
};
use fork_trace_common::stage::Stage;

pub use crate::cause::{case::Case, window::Window};

/// One possible reason, and how well the evidence supports it.
struct Candidate {
    /// The stage in which the kernel checks for it; candidates are sorted by it.
    stage: Option<Stage>,
    strength: Strength,
    /// Whether nothing can have come before it.
    sure: bool,
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
    explain_failure(fork, case);
    agree(fork);
}

/// Lets the warning about a call without an entry say what the cause says, and as surely.
fn agree(fork: &mut Fork) {
    let Some(cause) = &fork.cause else { return };
    let likely = if cause.confidence == Confidence::Certain { "" } else { "likely " };
    let text = match cause.kind {
        CauseKind::Seccomp => format!(
            "{likely}refused by seccomp before the system call began: only the time of its return \
             is known"
        ),
        CauseKind::Tracer => format!(
            "{likely}refused by a tracer before the system call began: only the time of its \
             return is known"
        ),
        _ => "its entry was not seen: only the time of its return is known".to_owned(),
    };
    for warning in fork.warnings.iter_mut().filter(|warning| warning.code == NO_ENTRY) {
        warning.text.clone_from(&text);
    }
}

fn explain_failure(fork: &mut Fork, case: &Case<'_>) {
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
    let certain = first.strength == Strength::Yes && first.sure && !earlier;
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
        asked: None,
        read_afterwards: None,
        path: None,
        level: None,
        fd: None,
        id: None,
        held_by: None,
        uid: None,
        holders: Vec::new(),
        holders_more: None,
        confidence: Confidence::Likely,
        hint: Name::Borrowed(hint),
    }
}

/// Every row that has the error number, lies in the window and is not ruled out by the evidence, in
/// the kernel's order.
fn candidates(case: &Case<'_>) -> Vec<Candidate> {
    let errno = case.error();
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
    let details = (rule.details)(case);
    let cause = Cause { rule: Some(Name::Borrowed(rule.name)), ..with_details(of_rule, details) };
    Some(Candidate { stage: Some(rule.stage), strength, sure: true, cause })
}

fn by_limit(limit: &'static Limit, case: &Case<'_>) -> Option<Candidate> {
    let (strength, sure, details) = match (limit.look)(case) {
        Finding::No => return None,
        Finding::Fallback(details) => (Strength::Fallback, false, details),
        Finding::Maybe(details) => (Strength::Maybe, false, details),
        Finding::Probably(details) => (Strength::Yes, false, details),
        Finding::Yes(details) => (Strength::Yes, true, details),
    };
    let cause = with_details(cause(limit.kind, limit.what, limit.hint), details);
    Some(Candidate { stage: limit.stage, strength, sure, cause })
}

/// What a row says of every refusal, with what is known of this one.
fn with_details(of_row: Cause, details: Details) -> Cause {
    let Details { what, hint, .. } = details;
    Cause {
        what: what.map_or(of_row.what, Name::Owned),
        hint: hint.map_or(of_row.hint, Name::Owned),
        limit: details.limit,
        current: details.current,
        max: details.max,
        asked: details.asked,
        read_afterwards: details.read_afterwards,
        path: details.path,
        level: details.level,
        fd: details.fd,
        id: details.id,
        held_by: details.held_by,
        uid: details.uid,
        holders: Vec::new(),
        holders_more: None,
        kind: of_row.kind,
        rule: of_row.rule,
        confidence: of_row.confidence,
    }
}

#[cfg(test)]
mod tests;
