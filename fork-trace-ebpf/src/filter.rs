//! Is this attempt wanted? By process, by kind, by properties of the caller, by its outcome.

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid,
    },
};
use fork_trace_common::{
    counter::Counter,
    filter::{FilterKey, kind, property},
    flags::{CLONE_THREAD, CLONE_VFORK, PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER},
    record::{ForkRecord, bits},
    settings::{FOLLOW_ALONE, FOLLOW_CHILDREN, FOLLOW_SHOWN, FOLLOW_START},
    stage::Mark,
};

use crate::{
    flight::at,
    kernel::Task,
    maps::{FILTER, FOLLOW, count},
};

/// 1: only processes in `FOLLOW` and their descendants.
#[unsafe(no_mangle)]
static FOLLOW_ONLY: Global<u8> = Global::new(0);
/// Kinds that are wanted.
#[unsafe(no_mangle)]
static KINDS: Global<u32> = Global::new(kind::DEFAULT);
/// Properties for which there are wishes.
#[unsafe(no_mangle)]
static FILTERED_BY: Global<u32> = Global::new(0);
/// 1: only attempts that made no task.
#[unsafe(no_mangle)]
static FAILED_ONLY: Global<u8> = Global::new(0);
/// Only attempts that took at least so long.
#[unsafe(no_mangle)]
static MIN_DURATION_NS: Global<u64> = Global::new(0);

/// Whether the attempts of the calling task, of process `tgid`, are shown.
#[inline(always)]
pub(crate) fn wanted(task: Task, tgid: u32) -> bool {
    if FOLLOW_ONLY.load() != 0 && !matches!(follow_mode(tgid), Some(FOLLOW_SHOWN | FOLLOW_ALONE)) {
        return false;
    }
    let caller = property::PPID | property::UID | property::COMM | property::CGROUP;
    FILTERED_BY.load() & caller == 0 || caller_wanted(task)
}

/// Reads only what is asked for. What cannot be read is no wish.
///
/// VERIFIER: one property after the other, each with its own way out: from a default for an id that
/// could not be read, the compiler makes a use of a register that 5.10 knows to be unset.
#[inline(always)]
fn caller_wanted(task: Task) -> bool {
    if asked(property::PPID) {
        let Some(ppid) = task.ppid() else { return false };
        if !is_wish(property::PPID, u64::from(ppid), 0) {
            return false;
        }
    }
    if asked(property::UID) && !is_wish(property::UID, bpf_get_current_uid_gid() & 0xffff_ffff, 0) {
        return false;
    }
    if asked(property::CGROUP) {
        // SAFETY: the helper has no preconditions.
        let cgroup = unsafe { bpf_get_current_cgroup_id() };
        if !is_wish(property::CGROUP, cgroup, 0) {
            return false;
        }
    }
    if asked(property::COMM) {
        let Ok(comm) = bpf_get_current_comm() else { return false };
        let (first, second) = comm.split_at(8);
        let half = |half: &[u8]| half.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        return is_wish(property::COMM, half(first), half(second));
    }
    true
}

/// Whether there are wishes for a property.
#[inline(always)]
fn asked(property: u32) -> bool {
    FILTERED_BY.load() & property != 0
}

/// Whether a property has a value that is wished for.
#[inline(always)]
fn is_wish(property: u32, value: u64, more: u64) -> bool {
    let wish: FilterKey = [u64::from(property), value, more];
    FILTER.get_ptr(wish).is_some()
}

/// Whether an attempt with these clone flags by a user's task is of a wanted kind.
#[inline(always)]
pub(crate) fn kind_wanted(clone_flags: u64) -> bool {
    let kind = match clone_flags {
        flags if flags & CLONE_THREAD != 0 => kind::THREAD,
        flags if flags & CLONE_VFORK != 0 => kind::VFORK,
        _ => kind::PROCESS,
    };
    KINDS.load() & kind != 0
}

/// Whether a new task, made by the calling one, is of a wanted kind.
///
/// KERNEL: idle tasks have no id, kernel/fork.c `fork_idle`. kernel/umh.c starts helper programs
/// from kernel threads.
#[inline(always)]
pub(crate) fn task_wanted(tid: u32, pf: u32, clone_flags: u64) -> bool {
    let kernel = || Task::current().flags().is_some_and(|pf| pf & PF_KTHREAD != 0);
    let kind = match pf {
        _ if tid == 0 => return false,
        pf if pf & PF_KTHREAD != 0 => kind::KTHREAD,
        pf if pf & PF_IO_WORKER != 0 => kind::IO_WORKER,
        pf if pf & PF_USER_WORKER != 0 || kernel() => kind::OTHER,
        _ => return kind_wanted(clone_flags),
    };
    KINDS.load() & kind != 0
}

/// Whether attempts that make a task are shown at all.
#[inline(always)]
pub(crate) fn successes_wanted() -> bool {
    FAILED_ONLY.load() == 0
}

/// Whether a finished attempt is wanted for its outcome.
#[inline(always)]
pub(crate) fn outcome_wanted(record: &ForkRecord) -> bool {
    if !successes_wanted() && record.has(bits::CHILD) {
        return false;
    }
    if asked(property::ERRNO) && !record.has(bits::CHILD) {
        let errno = record.ret.wrapping_neg().cast_unsigned();
        if !is_wish(property::ERRNO, errno, 0) {
            return false;
        }
    }
    if MIN_DURATION_NS.load() == 0 {
        return true;
    }
    // What is not known to be shorter is shown.
    let end = if record.has(bits::VFORK_WAIT) { Mark::SchedWakeupNew } else { Mark::SysExit };
    let end_ns = at(record, end);
    !record.has(bits::ENTERED)
        || end_ns == 0
        || end_ns.wrapping_sub(record.start_ns) >= MIN_DURATION_NS.load()
}

/// Whether the first moments of the calling child are told: those of one whose making may be shown.
#[inline(always)]
pub(crate) fn start_wanted(tgid: u32) -> bool {
    let thread = bpf_get_current_pid_tgid() & 0xffff_ffff != u64::from(tgid);
    let kinds = if thread { kind::THREAD } else { !kind::THREAD };
    KINDS.load() & kinds != 0 && start_followed(tgid)
}

/// Whether a child of process `tgid` may be one that is shown.
#[inline(always)]
pub(crate) fn start_followed(tgid: u32) -> bool {
    FOLLOW_ONLY.load() == 0
        || matches!(follow_mode(tgid), Some(FOLLOW_SHOWN | FOLLOW_ALONE | FOLLOW_START))
}

/// A process was made by `parent`: it is followed if its parent is.
#[inline(always)]
pub(crate) fn born(parent: u32, child: u32) {
    if FOLLOW_ONLY.load() == 0 || parent == child {
        return;
    }
    let mode = match follow_mode(parent) {
        Some(FOLLOW_SHOWN | FOLLOW_CHILDREN) => FOLLOW_SHOWN,
        Some(FOLLOW_ALONE) => FOLLOW_START,
        _ => return,
    };
    if FOLLOW.insert(child, mode, 0).is_err() {
        count(Counter::FollowFull);
    }
}

/// The last thread of process `tgid` ends.
#[inline(always)]
pub(crate) fn died(tgid: u32) {
    if FOLLOW_ONLY.load() != 0 {
        // Most processes of the host are not in the map.
        _ = FOLLOW.remove(tgid);
    }
}

#[inline(always)]
fn follow_mode(tgid: u32) -> Option<u8> {
    // SAFETY: the value is one byte, copied at once.
    unsafe { FOLLOW.get(tgid).copied() }
}
