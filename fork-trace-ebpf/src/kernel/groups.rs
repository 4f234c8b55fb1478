//! How often a task's own control groups have refused: read when a call begins and again when it was
//! refused, so that what moved meanwhile is proof.

use super::{
    ABSENT, CSET_SUBSYS, MEMORY_CGRP_ID, MEMORY_EVENTS_LOCAL, MEMORY_OOM, PIDS_CGRP_ID,
    PIDS_EVENTS_LIMIT, PIDS_EVENTS_LOCAL, PIDS_FORKFAIL, Ptr, TASK_CGROUPS, Task,
};

/// Size of a pointer, and of an event counter.
const WORD: u32 = 8;

impl Task {
    /// How many tasks the pids controller has refused the task's own group, whichever group above
    /// was full.
    ///
    /// KERNEL: kernel/cgroup/pids.c `pids_can_fork`, `pids_event`: `events_limit` up to 6.10, then
    /// `events_local[PIDCG_FORKFAIL]`.
    #[inline(always)]
    pub(crate) fn pids_refusals(self) -> Option<u64> {
        let group = self.group(PIDS_CGRP_ID.load())?;
        if PIDS_EVENTS_LIMIT.load() != ABSENT {
            return group.read_by_helper(PIDS_EVENTS_LIMIT.load());
        }
        group.read_by_helper(element(PIDS_EVENTS_LOCAL.load(), PIDS_FORKFAIL.load())?)
    }

    /// How often a charge to the task's own group of the memory controller found nothing left to
    /// reclaim.
    ///
    /// KERNEL: mm/memcontrol.c `mem_cgroup_oom` counts `MEMCG_OOM` for the group at its limit.
    #[inline(always)]
    pub(crate) fn memory_ooms(self) -> Option<u64> {
        let group = self.group(MEMORY_CGRP_ID.load())?;
        group.read_by_helper(element(MEMORY_EVENTS_LOCAL.load(), MEMORY_OOM.load())?)
    }

    /// The task's group of controller `id`. Its struct begins with a `cgroup_subsys_state`, which
    /// is all that the verifier knows of it.
    #[inline(always)]
    fn group(self, id: u32) -> Option<Ptr> {
        let groups = self.0.follow(TASK_CGROUPS.load())?;
        groups.follow(element(CSET_SUBSYS.load(), id)?)
    }
}

/// The offset of an element of an array of words; `None` where this kernel lacks either.
#[inline(always)]
fn element(array: u32, index: u32) -> Option<u32> {
    if array == ABSENT || index == ABSENT { None } else { Some(array + index * WORD) }
}
