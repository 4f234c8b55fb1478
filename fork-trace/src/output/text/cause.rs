//! Why a fork failed, in words.

use fork_trace_common::stage::Row;

use crate::{
    event::{
        cause::{Cause, CauseKind, Confidence, Tasks, ZOMBIE},
        fork::{Fork, OTHER},
        stage::StageLine,
        units::{count, size},
        values::Kind,
    },
    output::text::follow_up::quoted,
};

/// A label and a text for each cause, the one that counts first.
pub(in crate::output) fn lines(fork: &Fork) -> Vec<(&'static str, String)> {
    let after = fork
        .fallback
        .as_ref()
        .map(|id| ("note:", format!("made instead of {id}, which was refused")));
    let Some(cause) = &fork.cause else { return after.into_iter().collect() };
    let user = fork.parent.user.as_deref().map(|name| (fork.parent.uid, name));
    let first = first(cause, fork.errno_name.as_deref(), fork.failed_stage.as_deref(), user);
    let others = fork.other_causes.iter().map(|other| ("or:", words(other, user, false)));
    first
        .into_iter()
        .chain(others)
        .chain(instead(fork.fell_back_to.as_deref()))
        .chain(after)
        .collect()
}

/// The same of the stage that refused an attempt; other stages have no cause.
pub(super) fn lines_of_stage(line: &StageLine) -> Vec<(&'static str, String)> {
    let Some(cause) = &line.cause else { return Vec::new() };
    let stage = Some(line.span.name.as_ref()).filter(|stage| *stage != OTHER);
    let first = first(cause, line.errno_name.as_deref(), stage, None);
    first.into_iter().chain(instead(line.fell_back_to.as_deref())).collect()
}

/// The cause that counts, and who fills its limit.
fn first(
    cause: &Cause,
    errno: Option<&str>,
    stage: Option<&str>,
    user: Option<(u32, &str)>,
) -> Vec<(&'static str, String)> {
    let errno = errno.unwrap_or("failed");
    let place = stage.map(|stage| format!(" in {}", function(stage)));
    let why = format!("{errno}{}: {}", place.unwrap_or_default(), words(cause, user, true));
    let holders = holders(cause).map(|words| ("held by:", words));
    std::iter::once(("why:", why)).chain(holders).collect()
}

/// The attempt that was made instead.
fn instead(id: Option<&str>) -> Option<(&'static str, String)> {
    id.map(|id| ("note:", format!("no failure: {id} was made instead")))
}

/// The kernel function in which a stage lies.
fn function(stage: &str) -> &str {
    let place = Row::named(stage).and_then(|row| row.at.split_once(".c "));
    place.filter(|(_, word)| !word.contains(' ')).map_or(stage, |(_, function)| function)
}

/// What is known of a cause; `user` is the name of a user by id.
fn words(cause: &Cause, user: Option<(u32, &str)>, with_confidence: bool) -> String {
    let mut text = String::new();
    if with_confidence && cause.confidence == Confidence::Likely && cause.kind != CauseKind::Unknown
    {
        text.push_str("likely ");
    }
    // Of a limit its name says most, but for a promise of memory.
    let named = cause.limit.as_deref();
    let worded =
        cause.rule.is_some() || matches!(cause.kind, CauseKind::Overcommit | CauseKind::OomKill);
    text.push_str(named.filter(|_| !worded).unwrap_or(&cause.what));
    if let Some(id) = cause.id {
        text.push_str(&format!(": {id}"));
    }
    if let Some(uid) = cause.uid {
        let name = user.filter(|(of, _)| *of == uid).map(|(_, name)| name);
        text.push_str(&name.map_or_else(|| format!(" of uid {uid}"), |name| format!(" of {name}")));
    }
    if let Some(path) = &cause.path {
        text.push_str(&format!(" at {path}"));
    }
    if let Some(level) = cause.level {
        text.push_str(&format!(", level {level}"));
    }
    if let Some(fd) = cause.fd.filter(|_| cause.path.is_some()) {
        text.push_str(&format!(", descriptor {fd}"));
    }
    text.push_str(&figures(cause));
    text.push_str(&format!("; {}", cause.hint));
    text
}

/// Where the counter stood, how far it may go, and what was asked for.
fn figures(cause: &Cause) -> String {
    let number = if cause.kind.is_in_bytes() { size } else { count };
    let stood = match (cause.current, cause.max) {
        (Some(current), Some(max)) => Some(format!("{} of {}", number(current), number(max))),
        (None, Some(max)) if cause.asked.is_some() => Some(format!("there is {}", number(max))),
        (None, Some(max)) => Some(number(max)),
        (_, None) => None,
    };
    let asked = cause.asked.map(|asked| format!("{} asked for", number(asked)));
    let afterwards = cause.read_afterwards.filter(|_| stood.is_some());
    let afterwards = afterwards.map(|_| "read afterwards".to_owned());
    // Where there is no counter, what was asked for is the figure.
    let figures = if cause.current.is_some() { [stood, asked] } else { [asked, stood] };
    let all: Vec<_> = figures.into_iter().chain([afterwards]).flatten().collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

/// Who fills the limit, in words.
fn holders(cause: &Cause) -> Option<String> {
    let mut words: Vec<_> = cause.holders.iter().map(tasks).collect();
    words.extend(cause.holders_more.map(|more| format!("{} others", count(more))));
    (!words.is_empty()).then(|| words.join("; "))
}

fn tasks(tasks: &Tasks) -> String {
    let Tasks { comm, state, count: number, .. } = tasks;
    let comm = quoted(comm);
    let parent = tasks.parent.as_ref();
    let parent = parent.map(|parent| format!("{} ({})", quoted(&parent.comm), parent.pid));
    let several = *number > 1;
    let number = count(*number);
    if tasks.kind == Some(Kind::IoWorker) {
        let workers = if several { "workers" } else { "worker" };
        let of = parent.map_or_else(String::new, |parent| format!(" of {parent}"));
        return format!("{number} io_uring {workers}{of}, {state}");
    }
    let parent = parent.unwrap_or_else(|| "several processes".to_owned());
    if state == ZOMBIE {
        let (zombies, children) =
            if several { ("zombies", "children") } else { ("zombie", "child") };
        return format!(
            "{number} {zombies} named {comm}, {children} of {parent}, which has not waited for {}",
            if several { "them" } else { "it" }
        );
    }
    let pid = tasks.pid.map_or_else(String::new, |pid| format!(" ({pid})"));
    let children = tasks.parent.as_ref().filter(|_| tasks.pid.is_none());
    let children = children.map_or_else(String::new, |_| format!(", children of {parent}"));
    format!("{number} {comm}{pid}, {state}{children}")
}
