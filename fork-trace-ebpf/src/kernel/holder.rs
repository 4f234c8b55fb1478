//! Which limits a task counts against, and what is told of it.

use fork_trace_common::holder::{COMM_BYTES, HolderSeen, HoldersKind, HoldersOf};

use super::{
    groups::MOST_GROUPS,
    namespace::MOST_NESTED,
    offsets::{
        CGROUP_KN, CRED_UCOUNTS, CRED_UID, CSET_SUBSYS, CSS_CGROUP, CSS_PARENT, KN_ID,
        PIDS_CGRP_ID, TASK_CGROUPS, TASK_COMM, TASK_EXIT_STATE, TASK_GROUP_LEADER, TASK_REAL_CRED,
        TASK_REAL_PARENT, UCOUNTS_NS, UCOUNTS_UID, USER_NS_INUM, USER_NS_UCOUNTS, element,
    },
    pointer::{Ptr, field},
    task::Task,
};

impl Task {
    /// Whether the task counts against the limit.
    #[inline(always)]
    pub(crate) fn counts_for(self, of: &HoldersOf) -> bool {
        const USER: u32 = HoldersKind::User as u32;
        const PID_NAMESPACE: u32 = HoldersKind::PidNamespace as u32;
        const GROUP: u32 = HoldersKind::Group as u32;
        match of.kind {
            USER => self.is_of_user(of.uid, of.inum).is_some(),
            PID_NAMESPACE => self.pid_namespace_at(of.level) == Some(of.inum),
            GROUP => self.is_in_group(of.group).is_some(),
            _ => true,
        }
    }

    /// `Some` where the task counts for the user in the user namespace `inum`.
    ///
    /// KERNEL: kernel/ucount.c `inc_rlimit_ucounts`: a task counts for its own user in its own user
    /// namespace, for the maker of that one in the one around it, and so on. Up to 5.13 it counts for its
    /// own user alone (`user_struct`).
    #[inline(always)]
    fn is_of_user(self, uid: u32, inum: u32) -> Option<()> {
        let cred = self.0.follow(TASK_REAL_CRED.load())?;
        if inum == 0 {
            return (field!(cred, CRED_UID: u32)? == uid).then_some(());
        }
        let mut ucounts = cred.follow(CRED_UCOUNTS.load())?;
        for _ in 0..MOST_NESTED {
            let ns = ucounts.follow(UCOUNTS_NS.load())?;
            if field!(ucounts, UCOUNTS_UID: u32)? == uid && field!(ns, USER_NS_INUM: u32)? == inum {
                return Some(());
            }
            ucounts = ns.follow(USER_NS_UCOUNTS.load())?;
        }
        None
    }

    /// `Some` where the task is in the group of the pids controller with this kernfs id, or below it. That
    /// holds for a zombie too, though `/proc` may show another group of it.
    ///
    /// KERNEL: kernel/cgroup/pids.c `pids_release` takes a task out of the count when it is waited for.
    #[inline(always)]
    fn is_in_group(self, id: u64) -> Option<()> {
        let set = self.0.follow(TASK_CGROUPS.load())?;
        let mut css = set.follow(element(CSET_SUBSYS.load(), PIDS_CGRP_ID.load()))?;
        for _ in 0..MOST_GROUPS {
            let node = css.follow(CSS_CGROUP.load())?.follow(CGROUP_KN.load())?;
            if field!(node, KN_ID: u64)? == id {
                return Some(());
            }
            css = css.follow(CSS_PARENT.load())?;
        }
        None
    }

    /// What is told of the task.
    #[inline(always)]
    pub(crate) fn holder(self) -> Option<HolderSeen> {
        let leader = self.0.follow(TASK_GROUP_LEADER.load())?;
        let parent = self.0.follow(TASK_REAL_PARENT.load())?;
        Some(HolderSeen {
            tgid: self.tgid()?,
            tid: self.tid()?,
            ppid: self.ppid()?,
            flags: self.flags()?,
            state: self.state(),
            exit_state: field!(self.0, TASK_EXIT_STATE: u32)?,
            comm: comm(self.0)?,
            process_comm: comm(leader)?,
            parent_comm: comm(parent)?,
        })
    }
}

#[inline(always)]
fn comm(task: Ptr) -> Option<[u8; COMM_BYTES]> {
    task.read(TASK_COMM.load())
}
