//! Which attempts are wanted: by the calling process, by the kind of task, by properties of the
//! caller, and by the outcome. User space sets the switches and fills the maps before it attaches
//! the programs.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_comm, bpf_get_current_uid_gid},
};
use fork_trace_common::{
    counter::Counter,
    filter::{FilterKey, kind, property},
    flags::{CLONE_THREAD, CLONE_VFORK, PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER},
    record::{ForkRecord, bits},
    settings::{FOLLOW_ALONE, FOLLOW_CHILDREN, FOLLOW_SHOWN, FOLLOW_START},
};

use crate::{
    kernel::{
        groups::{Group, Groups},
        task::Task,
    },
    maps::{FILTER, FOLLOW, count},
};

/// 1 if only processes in the map `FOLLOW` and their descendants are wanted.
#[unsafe(no_mangle)]
static FOLLOW_ONLY: Global<u8> = Global::new(0);
/// The kinds that are wanted, as bits of [`kind`].
#[unsafe(no_mangle)]
static KINDS: Global<u32> = Global::new(kind::DEFAULT);
/// The properties for which there are filters, as bits of [`property`].
#[unsafe(no_mangle)]
static FILTERED_BY: Global<u32> = Global::new(0);
/// 1 if only attempts that made no task are wanted.
#[unsafe(no_mangle)]
static FAILED_ONLY: Global<u8> = Global::new(0);

/// Whether attempts of the calling task, of process `tgid`, are wanted.
#[inline(always)]
pub(crate) fn wanted(task: Task, tgid: u32) -> bool {
    if FOLLOW_ONLY.load() != 0 && !matches!(follow_mode(tgid), Some(FOLLOW_SHOWN | FOLLOW_ALONE)) {
        return false;
    }
    let caller = property::PPID | property::UID | property::COMM | property::CGROUP;
    FILTERED_BY.load() & caller == 0 || caller_wanted(task)
}

/// Whether the properties of the calling task pass every filter. Only properties that have a filter
/// are read, and one that cannot be read does not pass.
///
/// VERIFIER: the properties come one after the other, each with a return of its own. If an id that
/// could not be read got a default value instead, the compiler would use a register that 5.10 knows
/// to be unset.
#[inline(always)]
fn caller_wanted(task: Task) -> bool {
    if filtered_by(property::PPID) {
        let Some(ppid) = task.ppid() else { return false };
        if !accepted(property::PPID, u64::from(ppid), 0) {
            return false;
        }
    }
    if filtered_by(property::UID)
        && !accepted(property::UID, bpf_get_current_uid_gid() & 0xffff_ffff, 0)
    {
        return false;
    }
    if filtered_by(property::CGROUP) && caller_in_wanted_group() == 0 {
        return false;
    }
    if filtered_by(property::COMM) {
        let Ok(comm) = bpf_get_current_comm() else { return false };
        let (first, second) = comm.split_at(8);
        let half = |half: &[u8]| half.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        return accepted(property::COMM, half(first), half(second));
    }
    true
}

/// How many control groups of a caller are looked at, in all hierarchies together.
///
/// VERIFIER: each one more costs load time.
const MOST_GROUPS: u64 = 128;

/// 1 if the calling task is in a wanted control group, or below one; otherwise 0.
///
/// VERIFIER: it is a global function for the reasons that `global_functions` gives.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn caller_in_wanted_group() -> u64 {
    if !filtered_by(property::CGROUP) {
        return 0;
    }
    let groups = Task::current().by_helper().groups();
    let Some(mut hierarchies) = groups.and_then(Groups::hierarchies) else { return 0 };
    let mut hierarchy = 0;
    let mut group = Group::NONE;
    for _ in 0..MOST_GROUPS {
        if group.is_none() {
            let Some((number, own)) = hierarchies.next() else { return 0 };
            hierarchy = number;
            group = if accepted(property::CGROUP, 0, number) { own } else { Group::NONE };
            continue;
        }
        let Some(id) = group.id() else { return 0 };
        if accepted(property::CGROUP, id, hierarchy) {
            return 1;
        }
        group = group.parent();
    }
    0
}

/// Whether there is a filter for a property.
#[inline(always)]
fn filtered_by(property: u32) -> bool {
    FILTERED_BY.load() & property != 0
}

/// Whether the filter for a property accepts a value. `more` is the second half of a name, the
/// hierarchy of a control group, and 0 for every other property.
#[inline(always)]
fn accepted(property: u32, value: u64, more: u64) -> bool {
    let key: FilterKey = [u64::from(property), value, more];
    FILTER.get_ptr(key).is_some()
}

/// Whether an attempt of a user's task with these clone flags is of a wanted kind.
#[inline(always)]
pub(crate) fn kind_wanted(clone_flags: u64) -> bool {
    let kind = match clone_flags {
        flags if flags & CLONE_THREAD != 0 => kind::THREAD,
        flags if flags & CLONE_VFORK != 0 => kind::VFORK,
        _ => kind::PROCESS,
    };
    KINDS.load() & kind != 0
}

/// Whether a new task, which the calling one has made, is of a wanted kind.
///
/// KERNEL: kernel/fork.c `fork_idle`: an idle task has thread id 0. kernel/umh.c starts helper
/// programs from kernel threads.
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

/// Whether attempts that make a task are wanted at all.
#[inline(always)]
pub(crate) fn successes_wanted() -> bool {
    FAILED_ONLY.load() == 0
}

/// Whether a finished attempt is wanted for its outcome. How long it held its caller is not known
/// yet, so user space decides by that.
#[inline(always)]
pub(crate) fn outcome_wanted(record: &ForkRecord) -> bool {
    if !successes_wanted() && record.has(bits::CHILD) {
        return false;
    }
    if filtered_by(property::ERRNO) && !record.has(bits::CHILD) {
        let errno = record.ret.wrapping_neg().cast_unsigned();
        if !accepted(property::ERRNO, errno, 0) {
            return false;
        }
    }
    true
}

/// Whether the first moments of a child are sent. They are if its fork may be shown.
#[inline(always)]
pub(crate) fn start_wanted(tgid: u32, tid: u32) -> bool {
    let kinds = if tid != tgid { kind::THREAD } else { !kind::THREAD };
    KINDS.load() & kinds != 0 && start_followed(tgid)
}

/// Whether the fork of a child in process `tgid` may be shown, as far as the process decides it.
#[inline(always)]
pub(crate) fn start_followed(tgid: u32) -> bool {
    FOLLOW_ONLY.load() == 0
        || matches!(follow_mode(tgid), Some(FOLLOW_SHOWN | FOLLOW_ALONE | FOLLOW_START))
}

/// The process `parent` has made the process `child`, which is followed if its parent is.
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

/// Whether process `tgid` is the tracer itself, which starts the traced command.
#[inline(always)]
pub(crate) fn is_tracer(tgid: u32) -> bool {
    FOLLOW_ONLY.load() != 0 && follow_mode(tgid) == Some(FOLLOW_CHILDREN)
}

/// The last thread of process `tgid` ends, so it is followed no longer.
#[inline(always)]
pub(crate) fn died(tgid: u32) {
    if FOLLOW_ONLY.load() != 0 {
        // Most processes of the host are not in the map.
        _ = FOLLOW.remove(tgid);
    }
}

/// How a process is followed, as one of `settings::FOLLOW_*`; `None` if it is not.
#[inline(always)]
fn follow_mode(tgid: u32) -> Option<u8> {
    // SAFETY: the value is one byte, copied at once.
    unsafe { FOLLOW.get(tgid).copied() }
}
