//! Whether the call failed because its caller is being ended.

use fork_trace_common::{flags::CLONE_VM, refusal::known, stage::Stage};
use nix::sys::signal::Signal;

use crate::cause::{
    case::Case,
    finding::{Details, Finding},
    memory::{cgroup_memory, overcommit, short_group},
};

/// KERNEL: include/linux/sched/signal.h: the whole process ends.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// What is said where a group's limit is behind the kill.
const OUT_OF_GROUP_MEMORY: &str =
    "the out-of-memory killer ends the caller: a control group has no memory left";

/// Only a caller that is being killed gets `EINTR`.
///
/// KERNEL: kernel/fork.c `copy_process`.
pub(super) fn interrupted(case: &Case<'_>) -> Finding {
    match case.killed() {
        _ if case.oom_victim() == Some(true) => Finding::No,
        Some(true) => Finding::Yes(details(case)),
        _ => Finding::Maybe(Details::default()),
    }
}

/// A copy of the address space is given up for a fatal signal, and the error becomes `ENOMEM`.
///
/// KERNEL: kernel/fork.c `dup_mmap` looks for a fatal signal before each mapping and while it waits for
/// the lock; `dup_mm` turns any error into `NULL`, and `copy_mm` that into `ENOMEM`.
pub(super) fn killed_while_copying(case: &Case<'_>) -> Finding {
    let copies = case.any(CLONE_VM) != Some(true);
    if !copies || matches!(killed(case), Finding::No) {
        return Finding::No;
    }
    let nothing_else = matches!(overcommit(case), Finding::No)
        && matches!(cgroup_memory(case), Finding::No)
        && !case.window.admits(Stage::DupTaskStruct)
        && !case.window.admits(Stage::AllocPid);
    if nothing_else { Finding::Yes(details(case)) } else { Finding::Maybe(details(case)) }
}

/// Elsewhere a dying caller is refused memory that it would have to wait for.
///
/// KERNEL: mm/memcontrol.c `try_charge_memcg` and `mm/page_alloc.c` `__alloc_pages_slowpath`.
pub(super) fn killed(case: &Case<'_>) -> Finding {
    // Of a kill for want of memory another row tells.
    let other = case.killed() == Some(true) && case.oom_victim() != Some(true);
    if other { Finding::Maybe(details(case)) } else { Finding::No }
}

/// The out-of-memory killer has chosen the caller, for a group or for the whole host.
///
/// KERNEL: `mm/oom_kill.c` `mark_oom_victim`.
pub(super) fn oom_kill(case: &Case<'_>) -> Finding {
    if case.oom_victim() != Some(true) {
        return Finding::No;
    }
    let of_group = |details| Details { what: Some(OUT_OF_GROUP_MEMORY.to_owned()), ..details };
    match short_group(case) {
        Finding::Yes(details) => Finding::Yes(of_group(details)),
        Finding::Maybe(details) | Finding::Probably(details) => Finding::Maybe(of_group(details)),
        // No group is short of memory: the host was.
        Finding::No | Finding::Fallback(_) => Finding::Yes(Details::default()),
    }
}

/// What ends the caller.
fn details(case: &Case<'_>) -> Details {
    let Some(refusal) = case.with(known::ENDING) else { return Details::default() };
    let ends = case
        .with(known::SIGNAL)
        .is_some_and(|refusal| refusal.signal_flags & SIGNAL_GROUP_EXIT != 0);
    // As `wait` has it: the low 7 bits are the signal, none for an exit.
    let signal = i32::try_from(refusal.group_exit_code & 0x7f).unwrap_or_default();
    let what = match Signal::try_from(signal) {
        Ok(signal) if ends => format!("{signal} ends the caller, which does not see the error"),
        _ if ends => "another thread ends the caller's process (exit_group)".to_owned(),
        _ if refusal.has(known::THREAD_TAKES_OVER) => {
            "another thread of the process runs another program, which ends the caller".to_owned()
        }
        _ => return Details::default(),
    };
    Details { what: Some(what), ..Details::default() }
}
