//! Log records: an attempt that failed, was slow, or is stuck, with the attributes of OpenTelemetry's semantic
//! conventions as far as there are any.

use jiff::Timestamp;

use crate::{
    event::{
        caller::Parent,
        cause::Cause,
        follow_up::VforkDone,
        fork::Fork,
        stuck::Stuck,
        units::duration,
        values::{Call, Kind, Ts},
    },
    output::{
        attributes::{self, scope, text, unix_ns},
        protobuf::Message,
    },
};

/// Fields of a request, down to its records: each of these messages has the next.
mod request {
    pub(super) const RESOURCE_LOGS: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_LOGS: u32 = 2;
    pub(super) const SCOPE: u32 = 1;
    pub(super) const LOG_RECORDS: u32 = 2;
}

/// Fields of a record.
mod record {
    pub(super) const TIME: u32 = 1;
    pub(super) const SEVERITY: u32 = 2;
    pub(super) const SEVERITY_TEXT: u32 = 3;
    pub(super) const BODY: u32 = 5;
    pub(super) const ATTRIBUTES: u32 = 6;
    pub(super) const OBSERVED: u32 = 11;
    pub(super) const EVENT_NAME: u32 = 12;
}

/// How grave it is: the number and the name.
type Severity = (u32, &'static str);
const WARN: Severity = (13, "WARN");
const ERROR: Severity = (17, "ERROR");

fn int(to: &mut Message, key: &str, value: u64) {
    attributes::int(to, record::ATTRIBUTES, key, value);
}

/// A request with these records.
pub(super) fn request<'a>(
    resource: &Message,
    records: impl Iterator<Item = &'a Message>,
) -> Vec<u8> {
    let mut out = Message::default();
    out.message(request::RESOURCE_LOGS, |out| {
        out.message(request::RESOURCE, |out| out.append(resource));
        out.message(request::SCOPE_LOGS, |out| {
            out.message(request::SCOPE, scope);
            for record in records {
                out.message(request::LOG_RECORDS, |out| out.append(record));
            }
        });
    });
    out.bytes().to_vec()
}

/// A record of the moment `ts`, if that is known, with the attributes that were made for it.
fn record(
    name: &str,
    (number, severity): Severity,
    ts: Option<Ts>,
    body: &str,
    attributes: &Message,
) -> Message {
    let mut to = Message::default();
    if let Some(Ts(at)) = ts {
        to.fixed(record::TIME, unix_ns(at));
    }
    to.fixed(record::OBSERVED, unix_ns(Timestamp::now()));
    to.number(record::SEVERITY, number);
    to.raw_text(record::SEVERITY_TEXT, severity);
    to.message(record::BODY, |to| to.raw_text(attributes::STRING, body));
    to.append(attributes);
    to.raw_text(record::EVENT_NAME, name);
    to
}

/// Who called, and what.
pub(super) fn of_fork(fork: &Fork) -> Message {
    let mut to = Message::default();
    let Parent { pid, tid, ppid, comm, exe, uid, user, cgroup, container, .. } = &fork.parent;
    int(&mut to, "process.pid", (*pid).into());
    int(&mut to, "process.parent_pid", (*ppid).into());
    int(&mut to, "thread.id", (*tid).into());
    int(&mut to, "process.user.id", (*uid).into());
    let name = exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    let kind = fork.kind.map(Kind::name);
    for (key, value) in [
        ("thread.name", Some(comm.as_str())),
        ("process.executable.path", exe.as_deref()),
        ("process.executable.name", name),
        ("process.user.name", user.as_deref()),
        ("process.linux.cgroup", cgroup.as_deref()),
        ("container.id", container.as_ref().map(|container| container.id.as_str())),
        ("fork_trace.fork_id", Some(&fork.id)),
        ("fork_trace.kind", kind),
        ("fork_trace.syscall", fork.syscall.map(Call::name)),
    ] {
        value.iter().for_each(|value| text(&mut to, record::ATTRIBUTES, key, value));
    }
    to
}

/// An attempt that failed.
pub(super) fn failed(fork: &Fork, mut to: Message) -> Message {
    let errno = match (&fork.errno_name, fork.errno) {
        (Some(name), _) => name.to_string(),
        (None, Some(number)) => format!("errno {number}"),
        // The conventions have this for what is not known.
        (None, None) => "_OTHER".to_owned(),
    };
    text(&mut to, record::ATTRIBUTES, "error.type", &errno);
    let stage = fork.failed_stage.as_deref();
    stage.iter().for_each(|stage| text(&mut to, record::ATTRIBUTES, "fork_trace.stage", stage));
    let mut body = format!("{} ({}) failed: {errno}", fork.parent.comm, fork.parent.pid);
    if let Some(Cause { kind, rule, what, limit, current, max, path, .. }) = &fork.cause {
        for (key, value) in [
            ("fork_trace.cause", Some(kind.name())),
            ("fork_trace.rule", rule.as_deref()),
            ("fork_trace.limit", limit.as_deref()),
            ("fork_trace.limit.path", path.as_deref()),
        ] {
            value.iter().for_each(|value| text(&mut to, record::ATTRIBUTES, key, value));
        }
        for (key, value) in [("fork_trace.limit.current", current), ("fork_trace.limit.max", max)] {
            value.iter().for_each(|value| int(&mut to, key, *value));
        }
        body = format!("{body}: {what}");
    }
    record("fork_trace.failed", ERROR, Some(fork.ts), &body, &to)
}

/// An attempt that held its caller for long.
pub(super) fn slow(fork: &Fork, held_ns: u64, mut to: Message) -> Message {
    int(&mut to, "fork_trace.held_ns", held_ns);
    fork.total_ns.iter().for_each(|ns| int(&mut to, "fork_trace.total_ns", *ns));
    let held = duration(held_ns);
    let mut body = format!("{} ({}) was held for {held}", fork.parent.comm, fork.parent.pid);
    if let Some(slow) = &fork.slow {
        text(&mut to, record::ATTRIBUTES, "fork_trace.slow", &slow.kind);
        body = format!("{body}: {}", slow.text);
    }
    record("fork_trace.slow", WARN, Some(fork.ts), &body, &to)
}

/// A vfork whose caller is back after long; `to` has what its attempt told.
pub(super) fn slow_vfork(done: &VforkDone, held_ns: u64, mut to: Message) -> Message {
    int(&mut to, "fork_trace.held_ns", held_ns);
    let body = format!("a vfork held its caller for {}", duration(held_ns));
    record("fork_trace.slow", WARN, Some(done.ts), &body, &to)
}

/// An attempt that does not end.
pub(super) fn stuck(stuck: &Stuck) -> Message {
    let mut to = Message::default();
    let Stuck { parent, fork_id, for_ns, stage, reason, by, .. } = stuck;
    int(&mut to, "process.pid", parent.pid.into());
    int(&mut to, "thread.id", parent.tid.into());
    int(&mut to, "fork_trace.for_ns", *for_ns);
    let keeper = by.as_ref().and_then(|by| by.pid);
    keeper.iter().for_each(|pid| int(&mut to, "fork_trace.keeper.pid", (*pid).into()));
    for (key, value) in [
        ("thread.name", Some(parent.comm.as_str())),
        ("fork_trace.fork_id", fork_id.as_deref()),
        ("fork_trace.stage", stage.as_deref()),
        ("fork_trace.reason", reason.as_deref()),
    ] {
        value.iter().for_each(|value| text(&mut to, record::ATTRIBUTES, key, value));
    }
    let body = format!(
        "{} ({}) has been inside a fork for {}",
        parent.comm,
        parent.pid,
        duration(*for_ns)
    );
    record("fork_trace.stuck", ERROR, stuck.ts, &body, &to)
}
