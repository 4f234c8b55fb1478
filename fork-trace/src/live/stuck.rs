//! Attempts that do not end, told while they last: after a second, after ten, after a hundred, and so
//! on. Attempts that began before the trace are found once, by what `/proc` shows.

use std::collections::HashMap;

use anyhow::Result;
use fork_trace_common::{
    callee::{ENTRIES, stage_of},
    follow_up::Born,
    record::ForkRecord,
    stage::Stage,
    wait::{WaitsRecord, bits},
};

use crate::{
    assemble::{
        fork::{comm, id},
        times::Times,
    },
    bpf::tracer::Tracer,
    cause,
    event::{
        caller::Task,
        clock::Clock,
        filters::Filters,
        fork::id_of,
        stuck::Stuck,
        values::Name,
        wait::{Keeper, WaitState},
    },
    host::{
        process::{
            forking::{self, Forking},
            initial_task_name, task_name,
        },
        stacks::Stacks,
    },
    plan::Plan,
};

/// An attempt that has lasted for so long is told of for the first time.
const FIRST_NS: u64 = 1_000_000_000;
/// How much longer it lasts until it is told of again.
const FACTOR: u64 = 10;
/// How many attempts are told of at once.
const MOST: usize = 1024;

/// Who it is, and since when: a thread and the beginning of its attempt; 0 where that was not seen.
type Key = (u32, u64);

/// What was told so far.
#[derive(Default)]
pub struct StuckAttempts {
    /// For how long an attempt has to last until it is told of again.
    due: HashMap<Key, u64>,
    /// Tasks that stood still inside a fork before the trace began, and have not run since.
    older: Vec<Forking>,
    /// When the trace began (`CLOCK_MONOTONIC`).
    pub since_ns: u64,
}

impl StuckAttempts {
    /// For a trace that began at `since_ns` (`CLOCK_MONOTONIC`), after `older` were seen.
    #[must_use]
    pub fn new(older: Vec<Forking>, since_ns: u64) -> Self {
        Self { older, since_ns, ..Self::default() }
    }

    /// What is to be told of at `now_ns`.
    ///
    /// # Errors
    /// The kernel side's maps cannot be read.
    pub fn look(
        &mut self,
        tracer: &Tracer,
        plan: &Plan,
        stacks: &Stacks,
        clock: Clock,
        now_ns: u64,
    ) -> Result<Vec<Stuck>> {
        let before_ns = now_ns.saturating_sub(FIRST_NS);
        let attempts = tracer.attempts_since(before_ns)?;
        let vforks = tracer.vforks_since(before_ns)?;
        let mut found = Vec::new();
        let mut seen: Vec<Key> = Vec::new();
        for (record, off) in attempts {
            let key = (record.parent.tid, record.start_ns);
            seen.push(key);
            if let Some(for_ns) = self.is_due(key, now_ns - record.start_ns) {
                let stuck = attempt(&record, off.as_deref(), plan, stacks, now_ns);
                found.push(Stuck { for_ns, ..stuck });
            }
        }
        for (caller, born, off) in vforks {
            let key = (born.parent_tid, born.began_ns);
            seen.push(key);
            if let Some(for_ns) = self.is_due(key, now_ns - born.began_ns) {
                let stuck = vfork(caller, &born, off.as_deref(), stacks, now_ns);
                found.push(Stuck { for_ns, ..stuck });
            }
        }
        found.extend(self.older(&mut seen, now_ns));
        self.due.retain(|key, _| seen.contains(key));
        for stuck in &mut found {
            stuck.ts = Some(clock.at(now_ns));
        }
        Ok(found)
    }

    /// How many attempts had lasted for so long that they are told of, by the last look.
    #[must_use]
    pub fn standing(&self) -> usize {
        self.due.len()
    }

    /// For how long an attempt has lasted, if it is to be told of again.
    fn is_due(&mut self, key: Key, for_ns: u64) -> Option<u64> {
        if self.due.len() >= MOST && !self.due.contains_key(&key) {
            return None;
        }
        let due_ns = self.due.entry(key).or_insert(FIRST_NS);
        if for_ns < *due_ns {
            return None;
        }
        while *due_ns <= for_ns {
            *due_ns = due_ns.saturating_mul(FACTOR);
        }
        Some(for_ns)
    }

    /// Attempts that began before the trace and have not ended.
    fn older(&mut self, seen: &mut Vec<Key>, now_ns: u64) -> Vec<Stuck> {
        let mut older = std::mem::take(&mut self.older);
        older.retain(Forking::stands_still);
        let mut found = Vec::new();
        for one in &older {
            let key = (one.tid, 0);
            seen.push(key);
            if let Some(for_ns) = self.is_due(key, now_ns.saturating_sub(self.since_ns)) {
                found.push(standing(one, for_ns, now_ns));
            }
        }
        self.older = older;
        found
    }
}

/// Tasks that stand still inside a fork, as far as `filters` tell by their processes whether they
/// are wanted. This takes rights that a trace gives up, and has to come before anything is attached:
/// of an attempt that begins later the trace itself knows.
#[must_use]
pub fn older(filters: &Filters) -> Vec<Forking> {
    let others = Filters { pids: Vec::new(), ..filters.clone() };
    if others != Filters::default() {
        return Vec::new();
    }
    // Without the rights to see them, none is told of.
    let mut all = forking::all().unwrap_or_default();
    all.retain(|one| filters.pids.is_empty() || filters.pids.contains(&one.pid));
    all
}

/// A task that stands still inside a fork, as `/proc` shows it.
#[must_use]
pub fn standing(one: &Forking, for_ns: u64, now_ns: u64) -> Stuck {
    // KERNEL: fs/proc/array.c `task_state_array`.
    let bit = match one.letter {
        't' => 0x8,
        'T' => 0x4,
        _ => 0x2,
    };
    // The stack of `/proc` leaves out functions that only wait. Where `kernel_clone` itself waits, it
    // waits for a vfork's child.
    let waits = one.names.first().is_some_and(|name| ENTRIES.contains(&name.as_str()));
    let wait = Stage::WaitForVforkDone.row().name.to_owned();
    let names: Vec<_> = waits.then_some(wait).into_iter().chain(one.names.clone()).collect();
    let (state, reason, stack) = cause::waits::stuck(false, false, bit, &names);
    let told = stage_of(names.iter().map(String::as_str));
    let stage = if one.returns { Some(Stage::SysExit) } else { told };
    let tracer = one.tracer.filter(|_| state == WaitState::Stopped);
    let by = tracer.map(|pid| keeper(pid, task_name(pid)));
    Stuck {
        fork_id: None,
        ts: None,
        mono_ns: now_ns,
        parent: Task { pid: one.pid, tid: one.tid, comm: one.comm.clone() },
        since_ns: None,
        for_ns,
        stage: stage.map(|stage| Name::Borrowed(stage.row().name)),
        state,
        reason: Some(reason),
        by,
        stack,
    }
}

/// The process that keeps a task, with the name of it.
fn keeper(pid: u32, comm: Option<String>) -> Keeper {
    Keeper { pid: Some(pid), comm, ..Keeper::default() }
}

fn attempt(
    record: &ForkRecord,
    off: Option<&WaitsRecord>,
    plan: &Plan,
    stacks: &Stacks,
    now_ns: u64,
) -> Stuck {
    let comm = comm(record);
    let off = off.filter(|off| off.start_ns == record.start_ns);
    let parent = Task { pid: record.parent.tgid, tid: record.parent.tid, comm };
    let stuck = Stuck {
        fork_id: Some(id(record)),
        since_ns: Some(record.start_ns),
        ..off_cpu(parent, off, stacks, now_ns)
    };
    let tracer = Some(record.tracer).filter(|pid| *pid != 0 && stuck.state == WaitState::Stopped);
    let by = tracer.map(|pid| keeper(pid, initial_task_name(pid)));
    let stage = stuck.stage.or_else(|| by_marks(record, plan));
    Stuck { by, stage, ..stuck }
}

/// The innermost stage that an attempt has begun and not ended, as far as its marks tell.
fn by_marks(record: &ForkRecord, plan: &Plan) -> Option<Name> {
    let times = Times::new(record, None);
    let under_way = plan
        .timed
        .iter()
        .filter(|timed| times.at(timed.opens).is_some() && times.at(timed.closes).is_none());
    // Of those that follow each other without a mark between, the last one that began.
    let stage = under_way.max_by_key(|timed| (times.at(timed.opens), timed.stage.row().depth()))?;
    Some(Name::Borrowed(stage.stage.row().name))
}

fn vfork(
    caller: u64,
    born: &Born,
    off: Option<&WaitsRecord>,
    stacks: &Stacks,
    now_ns: u64,
) -> Stuck {
    let pid = u32::try_from(caller >> 32).unwrap_or_default();
    let comm = initial_task_name(born.parent_tid).unwrap_or_default();
    let parent = Task { pid, tid: born.parent_tid, comm };
    let stuck = off_cpu(parent, off, stacks, now_ns);
    let child = Some(born.child.tgid).filter(|_| stuck.state == WaitState::Blocked);
    let by = child.map(|pid| keeper(pid, initial_task_name(pid)));
    Stuck {
        fork_id: Some(id_of(born.parent_tid, born.began_ns)),
        since_ns: Some(born.began_ns),
        by,
        ..stuck
    }
}

/// Where a task stands by its time off the CPU.
fn off_cpu(parent: Task, off: Option<&WaitsRecord>, stacks: &Stacks, now_ns: u64) -> Stuck {
    let mut stuck = Stuck {
        fork_id: None,
        ts: None,
        mono_ns: now_ns,
        parent,
        since_ns: None,
        for_ns: 0,
        stage: None,
        state: WaitState::Running,
        reason: None,
        by: None,
        stack: Vec::new(),
    };
    let wait =
        off.filter(|off| off.left_ns != 0).and_then(|off| off.waits.get(off.current as usize));
    let Some(wait) = wait else { return stuck };
    let frames = wait.stack.get(..wait.frames as usize).unwrap_or_default();
    let names = stacks.names(frames).unwrap_or_default();
    let runnable = wait.bits & bits::RUNNABLE != 0;
    let throttled = wait.bits & bits::THROTTLED != 0;
    let (state, reason, stack) = cause::waits::stuck(runnable, throttled, wait.state, &names);
    let stage = stage_of(names.iter().map(String::as_str));
    stuck.stage = stage.map(|stage| Name::Borrowed(stage.row().name));
    (stuck.state, stuck.reason, stuck.stack) = (state, Some(reason), stack);
    stuck
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_told_of_after_1_10_and_100_seconds() {
        const SECOND: u64 = 1_000_000_000;
        let mut stuck = StuckAttempts::default();
        let told: Vec<_> = (0..250)
            .filter(|second| stuck.is_due((1, 5), second * SECOND + SECOND / 2).is_some())
            .collect();
        assert_eq!(told, [1, 10, 100]);
        assert!(stuck.is_due((1, 6), 30 * SECOND).is_some(), "another attempt");
        assert!(stuck.is_due((1, 6), 99 * SECOND).is_none());
    }

    #[test]
    fn how_many_are_told_of_is_bounded() {
        let mut stuck = StuckAttempts::default();
        let told =
            (0..2 * MOST as u64).filter(|start| stuck.is_due((1, *start), FIRST_NS).is_some());
        assert_eq!(told.count(), MOST);
    }

    #[test]
    fn what_proc_shows_is_told() {
        let names = ["percpu_rwsem_wait", "cgroup_can_fork", "copy_process", "kernel_clone"];
        let one = Forking {
            pid: 7,
            tid: 8,
            comm: "a".to_owned(),
            letter: 'D',
            switches: 1,
            names: names.map(str::to_owned).to_vec(),
            tracer: None,
            returns: false,
        };
        let stuck = standing(&one, 5, 9);
        assert_eq!(stuck.stage.as_deref(), Some("cgroup_can_fork"));
        assert_eq!(stuck.reason.as_deref(), Some("cgroup_threadgroup_rwsem"));
        let stopped = Forking { letter: 't', tracer: Some(3), returns: true, ..one };
        let stuck = standing(&stopped, 5, 9);
        assert_eq!(stuck.reason.as_deref(), Some("ptrace-stop"));
        assert_eq!(stuck.by.and_then(|by| by.pid), Some(3));
        assert_eq!(stuck.stage.as_deref(), Some("sys_exit"));
    }
}
