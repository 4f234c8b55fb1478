//! How often a task's own control groups have refused something.
//!
//! The counters are read when a call begins, and again when it was refused. If one grew in between,
//! its group is what refused the call.

use fork_trace_common::settings::ABSENT;

use super::{
    offsets::{
        CSET_SUBSYS, MEMORY_CGRP_ID, MEMORY_EVENTS_LOCAL, MEMORY_OOM, PIDS_CGRP_ID,
        PIDS_EVENTS_LIMIT, PIDS_EVENTS_LOCAL, PIDS_FORKFAIL, TASK_CGROUPS, element,
    },
    pointer::Ptr,
    task::Task,
};

/// How many groups a walk looks at, from a task's own upwards.
///
/// VERIFIER: each one more costs load time.
pub(crate) const MOST_GROUPS: u64 = 12;

/// A task's `css_set`: the group of each controller that it is in.
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
    /// How many tasks the pids controller has refused to the task's own group. It counts there,
    /// even if a group above was the one that was full.
    ///
    /// KERNEL: kernel/cgroup/pids.c `pids_can_fork`, `pids_event`: the counter is `events_limit` up
    /// to 6.10, and `events_local[PIDCG_FORKFAIL]` after that.
    #[inline(always)]
    pub(crate) fn pids_refusals(self) -> Option<u64> {
        let events = match PIDS_EVENTS_LIMIT.load() {
            ABSENT => element(PIDS_EVENTS_LOCAL.load(), PIDS_FORKFAIL.load()),
            events => events,
        };
        self.counter(PIDS_CGRP_ID.load(), events)
    }

    /// How often the task's own group of the memory controller was at its limit, and the kernel
    /// found nothing in it to reclaim.
    ///
    /// KERNEL: mm/memcontrol.c `mem_cgroup_oom` counts `MEMCG_OOM` for the group at its limit.
    #[inline(always)]
    pub(crate) fn memory_ooms(self) -> Option<u64> {
        let events = element(MEMORY_EVENTS_LOCAL.load(), MEMORY_OOM.load());
        self.counter(MEMORY_CGRP_ID.load(), events)
    }

    /// A counter of the task's group of the controller `id`. It is read by a helper, because the
    /// verifier only knows the `cgroup_subsys_state` with which the group's struct begins.
    #[inline(always)]
    fn counter(self, id: u32, offset: u32) -> Option<u64> {
        let group = self.0.follow(element(CSET_SUBSYS.load(), id))?;
        if offset == ABSENT { None } else { group.read_by_helper(offset) }
    }
}
