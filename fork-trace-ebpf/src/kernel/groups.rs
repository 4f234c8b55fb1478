//! A task's control groups: which it is in, and how often its own have refused something.
//!
//! The counters are read when a call begins, and again when it was refused. If one grew in between,
//! its group is what refused the call.

use fork_trace_common::settings::ABSENT;

use super::{
    offsets::{
        CGROUP_KN, CGROUP_ROOT, CSET_LINKS, CSET_SUBSYS, CSS_CGROUP, CSS_PARENT, KN_ID,
        LINK_CGROUP, LINK_NEXT, MEMORY_CGRP_ID, MEMORY_EVENTS_LOCAL, MEMORY_OOM, PIDS_CGRP_ID,
        PIDS_EVENTS_LIMIT, PIDS_EVENTS_LOCAL, PIDS_FORKFAIL, ROOT_HIERARCHY, TASK_CGROUPS, element,
    },
    pointer::{Ptr, field},
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

/// The hierarchies that a task is in, the old ones and the unified one alike.
///
/// KERNEL: kernel/cgroup/cgroup-internal.h: a `css_set` has a list of `cgrp_cset_link`, one for each
/// hierarchy.
pub(crate) struct Hierarchies {
    /// Where the list begins and ends.
    head: u64,
    /// The next element of the list, which lies in a link.
    next: u64,
}

/// Where a control group lies, and its own `cgroup_subsys_state`, with which it begins; 0 for none.
///
/// VERIFIER: 5.10 keeps few values apart in a loop, so this is a number and no pointer of two sorts.
#[derive(Clone, Copy)]
pub(crate) struct Group(u64);

impl Hierarchies {
    /// The number of the next hierarchy, and the task's group in it.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<(u64, Group)> {
        if self.next == self.head || LINK_NEXT.load() == ABSENT {
            return None;
        }
        let link = Ptr::at(self.next.wrapping_sub(u64::from(LINK_NEXT.load())));
        let group = link.follow(LINK_CGROUP.load())?;
        let number = field!(group.follow(CGROUP_ROOT.load())?, ROOT_HIERARCHY: u32)?;
        self.next = field!(link, LINK_NEXT: u64)?;
        Some((u64::from(number), Group(group.address as u64)))
    }
}

impl Group {
    /// No group.
    pub(crate) const NONE: Self = Self(0);

    /// Whether it is none.
    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The id of the group: that of its directory.
    #[inline(always)]
    pub(crate) fn id(self) -> Option<u64> {
        let directory = Ptr::at(self.0).follow(CSS_CGROUP.load())?.follow(CGROUP_KN.load())?;
        field!(directory, KN_ID: u64)
    }

    /// The group around it; none for the root of its hierarchy.
    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Ptr::at(self.0)
            .follow(CSS_PARENT.load())
            .map_or(Self::NONE, |parent| Self(parent.address as u64))
    }
}

impl Groups {
    /// The hierarchies that the task is in. They have to be asked of a task whose fields are read by
    /// a helper.
    #[inline(always)]
    pub(crate) fn hierarchies(self) -> Option<Hierarchies> {
        let head = self.0.address as u64 + u64::from(CSET_LINKS.load());
        Some(Hierarchies { head, next: field!(self.0, CSET_LINKS: u64)? })
    }

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
