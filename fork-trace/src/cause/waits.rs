//! Why a fork stood still: the reason of each of its waits. Pure: what has to be looked up, the caller
//! does.

use fork_trace_common::{
    record::ForkRecord,
    stage::{Mark, STAGES, Stage},
    wait::{Phase, bits},
};

use crate::{
    assemble::waits::Seen,
    cause::reasons::{LOCKING, REASONS, Reason, Sign, UNKNOWN},
    event::{
        fork::Fork,
        values::Name,
        wait::{Keeper, Wait, WaitState},
    },
};

/// How many functions of a stack are told.
const FRAMES: usize = 16;

/// Waits of a fork that are told: the longest.
const TOLD: usize = 8;

/// Functions of the scheduler, with which every stack begins.
const SCHEDULER: [&str; 9] = [
    "__schedule",
    "__traceiter_sched_switch",
    "schedule",
    "schedule_timeout",
    "schedule_idle",
    "schedule_preempt_disabled",
    "preempt_schedule_irq",
    "__bpf_trace_sched_switch",
    "schedule_rtlock",
];

/// Functions with which a stack of a system call ends: nothing of them belongs to the fork.
const ENTRY: [&str; 9] = [
    // x86-64
    "do_syscall_64",
    "x64_sys_call",
    "entry_SYSCALL_64_after_hwframe",
    "do_int80_emulation",
    "do_fast_syscall_32",
    "ret_from_fork_asm",
    // arm64
    "invoke_syscall",
    "el0_svc",
    "el0_svc_compat",
];

/// What is looked up of the host a moment later.
pub trait Lookup {
    /// The name of a thread.
    fn comm(&mut self, tid: u32) -> Option<String>;
    /// The control group of a process under a controller.
    fn group(&mut self, pid: u32, controller: &str) -> Option<String>;
}

/// Fills in the waits of `fork` with their reasons.
pub fn add(fork: &mut Fork, record: &ForkRecord, seen: &[Seen], host: &mut dyn Lookup) {
    let woken_ns = record.mark_ns(Mark::SchedWakeupNew);
    let child = seen.iter().filter(|one| one.phase == Phase::Child);
    let child: Vec<_> = child.map(|one| wait(fork, record, one, woken_ns, host)).collect();
    let own = seen.iter().filter(|one| one.phase != Phase::Child);
    let mut own: Vec<_> = own.map(|one| wait(fork, record, one, fork.mono_ns, host)).collect();
    longest(&mut own);
    fork.waits = own;
    if let Some(start) = &mut fork.child_start {
        start.waits = child;
        longest(&mut start.waits);
    }
}

/// Leaves the longest, in the order in which they came.
fn longest(waits: &mut Vec<Wait>) {
    if waits.len() > TOLD {
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.dur_ns));
        waits.truncate(TOLD);
        waits.sort_by_key(|wait| wait.at_ns);
    }
}

fn wait(
    fork: &Fork,
    record: &ForkRecord,
    seen: &Seen,
    began_ns: u64,
    host: &mut dyn Lookup,
) -> Wait {
    let reason = reason(seen);
    let names: Vec<_> = seen.names.iter().map(String::as_str).collect();
    let lock = reason.lock.map(Name::Borrowed);
    let lock = lock.or_else(|| {
        let taker = taker(&names).filter(|_| reason.name == "lock")?;
        Some(Name::Owned(taker.to_owned()))
    });
    let mut by = keeper(fork, record, seen, reason, host);
    if let Some(tid) = by.as_ref().and_then(|by| by.tid.or(by.pid))
        && let Some(by) = &mut by
    {
        by.comm = host.comm(tid);
    }
    let at_ns = seen.wait.left_ns.saturating_sub(began_ns);
    let by_marks = || around(fork, at_ns, at_ns + seen.wait.dur_ns());
    let told = seen.stage.filter(|stage| !matches!(stage, Stage::CopyProcess | Stage::KernelClone));
    let stage = told.map(|stage| Name::Borrowed(stage.row().name)).or_else(by_marks);
    let stage = stage.or_else(|| seen.stage.map(|stage| Name::Borrowed(stage.row().name)));
    let stack = if reason.state == WaitState::Runnable { Vec::new() } else { stack(&names) };
    Wait {
        at_ns,
        dur_ns: seen.wait.dur_ns(),
        stage,
        state: reason.state,
        reason: Name::Borrowed(reason.name),
        lock,
        by,
        stack,
    }
}

/// The reason of a wait: the first row of the table that fits.
#[must_use]
pub fn reason(seen: &Seen) -> &'static Reason {
    let names: Vec<_> = seen.names.iter().map(String::as_str).collect();
    let runnable = seen.wait.bits & bits::RUNNABLE != 0;
    of(runnable, throttled(seen), seen.wait.state, &names)
}

/// The reason of a task that stands still: whether it is runnable, and whether held back by a quota;
/// its state, as the kernel numbers it; the functions on its stack.
#[must_use]
pub fn of(runnable: bool, throttled: bool, state: u32, names: &[&str]) -> &'static Reason {
    let on_stack = |functions: &[&str]| names.iter().any(|name| functions.contains(name));
    let fits = |sign: &Sign| match *sign {
        Sign::Throttled => throttled,
        Sign::Runnable => runnable,
        Sign::State(bits) => state & bits != 0,
        Sign::OnStack(functions) => on_stack(functions),
        Sign::Innermost(functions) => {
            let scheduler = names.iter().rposition(|name| SCHEDULER.contains(name));
            let innermost = names.get(scheduler.map_or(0, |place| place + 1));
            innermost.is_some_and(|name| functions.contains(name))
        }
        Sign::Taker(functions) => taker(names).is_some_and(|taker| functions.contains(&taker)),
        Sign::Both(first, second) => on_stack(first) && on_stack(second),
    };
    let same = |reason: &&Reason| runnable == (reason.state == WaitState::Runnable);
    let found = REASONS.iter().filter(same).find(|reason| reason.signs.iter().any(fits));
    found.unwrap_or(&UNKNOWN)
}

/// What is told of a task that stands still just now: its state as the kernel numbers it, and the
/// functions on its stack.
#[must_use]
pub fn stuck(
    runnable: bool,
    throttled: bool,
    state: u32,
    names: &[String],
) -> (WaitState, Name, Vec<Name>) {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let reason = of(runnable, throttled, state, &names);
    (reason.state, Name::Borrowed(reason.name), stack(&names))
}

/// Whether a runnable task was held back by a CPU quota: its group was held back when it left, or was
/// while the task was away, for most of the time.
fn throttled(seen: &Seen) -> bool {
    let wait = &seen.wait;
    let read = wait.bits & bits::THROTTLED_NS != 0;
    let most = read && wait.throttled_ns >= seen.wait.dur_ns() / 2 && wait.throttled_ns > 0;
    wait.bits & bits::RUNNABLE != 0 && (wait.bits & bits::THROTTLED != 0 || most)
}

/// Who kept the task.
fn keeper(
    fork: &Fork,
    record: &ForkRecord,
    seen: &Seen,
    reason: &Reason,
    host: &mut dyn Lookup,
) -> Option<Keeper> {
    let wait = &seen.wait;
    let child = seen.phase == Phase::Child;
    let pid = if child { record.child.tgid } else { record.parent.tgid };
    match reason.name {
        "preempted" => Some(Keeper { cpu: Some(wait.cpu), ..Keeper::default() }),
        "cpu-quota" | "freezer" => {
            // KERNEL: kernel/freezer.c: version 1 freezes a task there, version 2 in its signal handling, without
            // a controller.
            let is_first = seen.names.iter().any(|name| name == "__refrigerator");
            let controller = match reason.name {
                "cpu-quota" => "cpu",
                _ if is_first => "freezer",
                _ => "",
            };
            let cgroup = host.group(pid, controller)?;
            Some(Keeper { cgroup: Some(cgroup), ..Keeper::default() })
        }
        "ptrace-stop" => {
            let tracer = fork.parent.ptrace.as_ref()?.tracer_pid;
            Some(Keeper { pid: Some(tracer), ..Keeper::default() })
        }
        "vfork" => Some(Keeper { pid: Some(record.child.tgid), ..Keeper::default() })
            .filter(|by| by.pid != Some(0)),
        "mmap_lock" => {
            let reads = (wait.bits & bits::OWNER_READS != 0).then_some(true);
            let tid = Some(wait.owner).filter(|tid| ![0, record.parent.tid].contains(tid));
            let by = Keeper { tid, reads, ..Keeper::default() };
            Some(by).filter(|by| by.tid.is_some() || by.reads.is_some())
        }
        _ => None,
    }
}

/// The function that takes the lock.
fn taker<'a>(names: &[&'a str]) -> Option<&'a str> {
    let last = names.iter().rposition(|name| LOCKING.contains(name))?;
    names.get(last + 1).copied()
}

/// The functions of a stack that say something.
fn stack(names: &[&str]) -> Vec<Name> {
    let scheduler = names.iter().rposition(|name| SCHEDULER.contains(name));
    let names = names.iter().skip(scheduler.map_or(0, |place| place + 1));
    let names = names.take_while(|name| !ENTRY.contains(name)).take(FRAMES);
    names.map(|name| Name::Owned((*name).to_owned())).collect()
}

/// The innermost timed stage around a time.
fn around(fork: &Fork, from_ns: u64, to_ns: u64) -> Option<Name> {
    let lasts = fork.stages.iter().filter(|span| {
        let ends = span.start_ns.zip(span.dur_ns).map(|(start_ns, dur_ns)| start_ns + dur_ns);
        let begins = span.start_ns.is_some_and(|start_ns| start_ns <= from_ns);
        span.runs.is_none() && begins && ends.is_some_and(|ends| ends >= to_ns)
    });
    let depth = |name: &str| {
        let rows = STAGES.iter();
        rows.filter(|row| row.name == name).map(|row| row.depth()).next_back().unwrap_or_default()
    };
    lasts.max_by_key(|span| depth(&span.name)).map(|span| span.name.clone())
}

/// The names of all reasons.
pub fn names() -> impl Iterator<Item = &'static str> {
    REASONS.iter().chain([&UNKNOWN]).map(|reason| reason.name)
}

/// The reason of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Reason> {
    REASONS.iter().chain([&UNKNOWN]).find(|reason| reason.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_has_its_reason() {
        let blocked = |names: &[&str]| of(false, false, 2, names).name;
        assert_eq!(
            blocked(&["percpu_rwsem_wait", "__percpu_down_read", "cgroup_can_fork"]),
            "cgroup_threadgroup_rwsem"
        );
        assert_eq!(blocked(&["percpu_rwsem_wait", "uprobe_start_dup_mmap"]), "dup_mmap_sem");
        assert_eq!(
            blocked(&["rwsem_down_write_slowpath", "down_write_killable", "dup_mmap"]),
            "mmap_lock"
        );
        assert_eq!(blocked(&["rwsem_down_write_slowpath", "down_write", "anon_vma_fork"]), "lock");
        assert_eq!(blocked(&["userfaultfd_event_wait_completion", "dup_mmap"]), "userfaultfd");
        assert_eq!(blocked(&["wait_for_completion_state", "kernel_clone"]), "vfork");
        assert_eq!(blocked(&["io_schedule", "shrink_node", "try_to_free_pages"]), "reclaim");
        assert_eq!(blocked(&["io_schedule", "do_swap_page"]), "page-io");
        assert_eq!(blocked(&["do_freezer_trap", "get_signal"]), "freezer");
        assert_eq!(blocked(&["__schedule", "schedule", "get_signal", "ret_from_fork"]), "freezer");
        assert_eq!(blocked(&["schedule", "do_something", "get_signal"]), "unknown");
        assert_eq!(blocked(&["schedule", "something_new"]), "unknown");
        assert_eq!(blocked(&[]), "unknown");
        assert_eq!(of(false, false, 8, &["ptrace_stop"]).name, "ptrace-stop");
        assert_eq!(of(false, false, 4, &[]).name, "signal-stop");
        assert_eq!(of(false, false, 0x8000, &[]).name, "freezer");
        // What a runnable task was about to wait for says nothing.
        assert_eq!(of(true, false, 0, &["ptrace_stop"]).name, "preempted");
        assert_eq!(of(true, true, 0, &["dup_mmap"]).name, "cpu-quota");
    }

    #[test]
    fn every_reason_is_found_by_its_one_name() {
        for (place, reason) in REASONS.iter().enumerate() {
            assert!(named(reason.name).is_some_and(|found| found.cure == reason.cure));
            let later = REASONS.iter().skip(place + 1);
            assert!(later.chain([&UNKNOWN]).all(|other| other.name != reason.name));
            assert!(!reason.signs.is_empty() && reason.text.len() < 60, "{}", reason.name);
        }
        assert!(named("no-such-reason").is_none());
    }

    #[test]
    fn a_lock_is_named_by_who_takes_it() {
        let names =
            ["schedule", "__mutex_lock", "mutex_lock", "copy_oom_score_adj", "copy_process"];
        assert_eq!(taker(&names), Some("copy_oom_score_adj"));
        assert_eq!(taker(&["schedule"]), None);
    }

    #[test]
    fn a_stack_is_told_without_the_scheduler_and_the_entry() {
        let names =
            ["__schedule", "schedule", "dup_mmap", "copy_process", "do_syscall_64", "entry"];
        assert_eq!(stack(&names), ["dup_mmap", "copy_process"]);
    }
}
