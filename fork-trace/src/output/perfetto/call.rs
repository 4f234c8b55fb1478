//! One attempt: what its caller's track shows of it, and its child's.

use std::io::{self, Write};

use fork_trace_common::stage::Stage;
use serde_json::Value;

use crate::{
    event::{
        fork::{Child, Fork},
        values::{Call, Kind},
    },
    output::perfetto::{
        Perfetto, Task, json,
        proto::{Type, event},
        slices::{Slice, hold},
        tracks::number,
    },
};

/// The category of a call's own slice.
const CALL: &str = "fork";

/// The same of an attempt that failed.
const FAILED: &str = "failed";

impl<W: Write> Perfetto<W> {
    /// Shows an attempt.
    pub(super) fn call(&mut self, fork: &Fork) -> io::Result<()> {
        let parent = &fork.parent;
        let track = self.task(&Task {
            comm: Some(&parent.comm),
            start_ns: parent.start_ns,
            exe: parent.exe.as_deref(),
            argv: parent.argv.as_deref().unwrap_or_default(),
            ..Task::of(parent.pid, parent.tid)
        })?;
        let mut notes = json(fork)?;
        let child_notes = take(&mut notes, "child_start");
        let arrow = number(("arrow", &fork.id));
        let category = if fork.errno.is_some() { FAILED } else { CALL };
        match fork.total_ns {
            Some(total_ns) => {
                let slices = caller(fork, total_ns, category, notes);
                let is_call = |slice: &Slice| slice.category == category;
                self.slices(track, slices, |slice| is_call(slice).then_some((event::FLOW, arrow)))?;
            }
            // Its entry was not seen.
            None => self.at(fork.mono_ns, Type::Instant, track, |one| {
                one.text(event::CATEGORY, category);
                one.text(event::NAME, &name(fork));
                one.fixed(event::FLOW, arrow);
                one.annotations(&notes);
            })?,
        }
        let ended_ns = fork.mono_ns.saturating_add(fork.total_ns.unwrap_or_default());
        let failure = fork.errno.is_some() && fork.fell_back_to.is_none();
        let seconds = self.seconds.add(ended_ns, u64::from(fork.succeeded()), u64::from(failure));
        self.rates(seconds)?;
        if fork.kind == Some(Kind::Vfork)
            && fork.succeeded()
            && fork.held_ns.is_none()
            && fork.total_ns.is_some()
            && let Some(thread) = self.threads.get(parent.tid)
        {
            thread.held = Some((fork.mono_ns, ended_ns));
        }
        match &fork.child {
            Some(child) => self.first_steps(fork, child, child_notes, arrow),
            None => Ok(()),
        }
    }

    /// Shows what a child did first.
    fn first_steps(
        &mut self,
        fork: &Fork,
        child: &Child,
        notes: Value,
        arrow: u64,
    ) -> io::Result<()> {
        let track = self.born(fork, child)?;
        let woken = fork.woken_ns().map(|woken_ns| fork.mono_ns.saturating_add(woken_ns));
        let (Some(start), Some(woken_ns)) = (&fork.child_start, woken) else { return Ok(()) };
        let since = |ns: u64| woken_ns.saturating_add(ns);
        let mut notes = notes;
        let waits = take(&mut notes, "waits");
        let on_cpu_ns = start.queued_ns.map(since);
        let row = Stage::RetFromFork.row();
        let mut slices: Vec<_> = waits
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|wait| waited(woken_ns, wait.clone()).ok())
            .collect();
        if let Some(on_cpu_ns) = on_cpu_ns {
            slices.push(Slice {
                begin_ns: woken_ns,
                end_ns: on_cpu_ns,
                name: "queued".to_owned(),
                category: "child",
                notes: Value::Null,
            });
        }
        let begin_ns = on_cpu_ns.unwrap_or(woken_ns);
        let in_user_ns = start.to_user_ns.map(since).filter(|in_user_ns| *in_user_ns >= begin_ns);
        // Without its first moment on a CPU, the two are one.
        let name = if on_cpu_ns.is_some() { row.name } else { "in user space" };
        if let Some(end_ns) = in_user_ns {
            let name = name.to_owned();
            slices.push(Slice { begin_ns, end_ns, name, category: FIRST, notes });
            let is_first = |slice: &Slice| slice.category == FIRST;
            return self.slices(track, slices, |slice| {
                is_first(slice).then_some((event::LAST_FLOW, arrow))
            });
        }
        self.slices(track, slices, |_| None)?;
        if on_cpu_ns.is_none() {
            return Ok(());
        }
        self.at(begin_ns, Type::Instant, track, |one| {
            one.text(event::CATEGORY, FIRST);
            one.text(event::NAME, "first run");
            one.fixed(event::LAST_FLOW, arrow);
            one.annotations(&notes);
        })
    }
}

/// The category of a child's first moments on a CPU, to which the arrow leads.
const FIRST: &str = "first run";

/// What a call is called.
fn name(fork: &Fork) -> String {
    let kind = fork.kind.map_or("task", Kind::name);
    let call = fork.syscall.map_or(kind, Call::name);
    let errno = fork.errno_name.as_deref().map(|errno| format!(" {errno}"));
    format!("{call}{}", errno.unwrap_or_default())
}

/// The slices of an attempt: the call, its stages and waits, and what kept its caller afterwards.
fn caller(fork: &Fork, total_ns: u64, category: &'static str, mut notes: Value) -> Vec<Slice> {
    let since = |ns: u64| fork.mono_ns.saturating_add(ns);
    let (mut slices, mut untimed) = (Vec::new(), Vec::new());
    for stage in array(take(&mut notes, "stages")) {
        match piece(fork.mono_ns, "start_ns", stage) {
            Ok((begin_ns, end_ns, mut notes)) => {
                let name = take(&mut notes, "name");
                let name = name.as_str().unwrap_or_default().to_owned();
                slices.push(Slice { begin_ns, end_ns, name, category: "stage", notes });
            }
            // Shared, sampled, or not timed here.
            Err(stage) => untimed.push(stage),
        }
    }
    for wait in array(take(&mut notes, "waits")) {
        slices.extend(waited(fork.mono_ns, wait).ok());
    }
    if let (false, Some(fields)) = (untimed.is_empty(), notes.as_object_mut()) {
        fields.insert("stages".to_owned(), Value::Array(untimed));
    }
    let ended_ns = since(total_ns);
    let back_ns = fork.held_ns.map_or(ended_ns, since).max(ended_ns);
    let returned_ns = back_ns.saturating_sub(fork.return_ns.unwrap_or_default()).max(ended_ns);
    let vfork = fork.kind == Some(Kind::Vfork) && fork.succeeded();
    let returned_ns = if vfork { returned_ns } else { ended_ns };
    if returned_ns > ended_ns {
        slices.push(hold(ended_ns, returned_ns, Value::Null));
    }
    if back_ns > returned_ns {
        slices.push(Slice {
            begin_ns: returned_ns,
            end_ns: back_ns,
            name: "return to user space".to_owned(),
            category: "return",
            notes: Value::Null,
        });
    }
    let call =
        Slice { begin_ns: fork.mono_ns, end_ns: ended_ns, name: name(fork), category, notes };
    // It comes first of those that begin and end with it.
    slices.insert(0, call);
    slices
}

/// A wait as a slice; `began_ns` is when its times begin.
fn waited(began_ns: u64, wait: Value) -> Result<Slice, Value> {
    let (begin_ns, end_ns, notes) = piece(began_ns, "at_ns", wait)?;
    let reason = notes.get("reason").and_then(Value::as_str).unwrap_or_default();
    let name = format!("wait:{reason}");
    Ok(Slice { begin_ns, end_ns, name, category: "wait", notes })
}

/// When a part of an attempt begins and ends, and what else is known of it; the part itself where it has no
/// place in time.
fn piece(began_ns: u64, begin: &str, mut part: Value) -> Result<(u64, u64, Value), Value> {
    let ns = |name: &str| part.get(name).and_then(Value::as_u64);
    let (Some(start_ns), Some(dur_ns)) = (ns(begin), ns("dur_ns")) else { return Err(part) };
    take(&mut part, begin);
    take(&mut part, "dur_ns");
    let begin_ns = began_ns.saturating_add(start_ns);
    Ok((begin_ns, begin_ns.saturating_add(dur_ns), part))
}

/// Takes a field out of an object; null where there is none.
fn take(value: &mut Value, name: &str) -> Value {
    value.as_object_mut().and_then(|fields| fields.remove(name)).unwrap_or_default()
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
