//! Why a fork failed, in words.

use fork_trace_common::stage::{Row, STAGES};

use crate::event::{
    cause::{Cause, CauseKind, Confidence},
    fork::Fork,
    units::{count, size},
};

/// A label and a text for each cause, the one that counts first.
pub(super) fn lines(fork: &Fork) -> Vec<(&'static str, String)> {
    let Some(cause) = &fork.cause else { return Vec::new() };
    let errno = fork.errno_name.as_deref().unwrap_or("failed");
    let place = fork.failed_stage.as_deref().map(|stage| format!(" in {}", function(stage)));
    let first = format!("{errno}{}: {}", place.unwrap_or_default(), words(cause, true));
    let others = fork.other_causes.iter().map(|other| ("or:", words(other, false)));
    std::iter::once(("why:", first)).chain(others).collect()
}

/// The kernel function in which a stage lies.
fn function(stage: &str) -> &str {
    let named = |row: &&Row| row.name == stage;
    let place = STAGES.iter().find(named).and_then(|row| row.at.split_once(".c "));
    place.filter(|(_, word)| !word.contains(' ')).map_or(stage, |(_, function)| function)
}

fn words(cause: &Cause, with_confidence: bool) -> String {
    let mut text = String::new();
    if with_confidence && cause.confidence == Confidence::Likely && cause.kind != CauseKind::Unknown
    {
        text.push_str("likely ");
    }
    // Of a limit its name says most.
    let named = cause.limit.as_deref().filter(|_| cause.rule.is_none());
    text.push_str(named.unwrap_or(&cause.what));
    if let Some(uid) = cause.uid {
        text.push_str(&format!(" of uid {uid}"));
    }
    if let Some(path) = &cause.path {
        text.push_str(&format!(" at {path}"));
    }
    let bytes = matches!(cause.kind, CauseKind::CgroupMemory | CauseKind::Overcommit);
    let number = if bytes { size } else { count };
    match (cause.current, cause.max) {
        (Some(current), Some(max)) => {
            text.push_str(&format!(" ({} of {})", number(current), number(max)));
        }
        (None, Some(max)) => text.push_str(&format!(" ({})", number(max))),
        _ => {}
    }
    text.push_str(&format!("; {}", cause.hint));
    text
}
