//! How often a task's own control groups have refused: read when a call begins and again when it was
//! refused, so that what moved meanwhile is proof.

use super::{
    ABSENT, CSET_SUBSYS, MEMORY_CGRP_ID, MEMORY_EVENTS_LOCAL, MEMORY_OOM, PIDS_CGRP_ID,
    PIDS_EVENTS_LIMIT, PIDS_EVENTS_LOCAL, PIDS_FORKFAIL, Ptr, TASK_CGROUPS, Task, element,
};

/// A task's `css_set`: its group of each controller.
#[derive(Clone, Copy)]
pub(crate) struct Groups(Ptr);

impl Task {
    /// The control groups that the task is in.
    #[inline(always)]
    pub(crate) fn groups(self) -> Option<Groups> {
        self.0.follow(TASK_CGROUPS.load()).map(Groups)
    }
}

impl Groups {
    /// How many tasks the pids controller has refused the task's own group, whichever group above
    /// was full.
    ///
    /// KERNEL: kernel/cgroup/pids.c `pids_can_fork`, `pids_event`: `events_limit` up to 6.10, then
    /// `events_local[PIDCG_FORKFAIL]`.
    #[inline(always)]
    pub(crate) fn pids_refusals(self) -> Option<u64> {
        let events = match PIDS_EVENTS_LIMIT.load() {
            ABSENT => element(PIDS_EVENTS_LOCAL.load(), PIDS_FORKFAIL.load()),
            events => events,
        };
        self.counter(PIDS_CGRP_ID.load(), events)
    }

    /// How often a charge to the task's own group of the memory controller found nothing left to
    /// reclaim.
    ///
    /// KERNEL: mm/memcontrol.c `mem_cgroup_oom` counts `MEMCG_OOM` for the group at its limit.
    #[inline(always)]
    pub(crate) fn memory_ooms(self) -> Option<u64> {
        let events = element(MEMORY_EVENTS_LOCAL.load(), MEMORY_OOM.load());
        self.counter(MEMORY_CGRP_ID.load(), events)
    }

    /// A counter of the group of controller `id`. The group's struct begins with a
    /// `cgroup_subsys_state`, which is all that the verifier knows of it.
    #[inline(always)]
    fn counter(self, id: u32, offset: u32) -> Option<u64> {
        let group = self.0.follow(element(CSET_SUBSYS.load(), id))?;
        if offset == ABSENT { None } else { group.read_by_helper(offset) }
    }
}
