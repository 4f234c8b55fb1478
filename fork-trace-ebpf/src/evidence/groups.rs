//! The control groups that the child would be in: how much their limits leave, their path, and how
//! often they have refused something.

use aya_ebpf::{cty::c_void, helpers::bpf_probe_read_kernel_str_bytes};
use fork_trace_common::{
    flags::CLONE_INTO_CGROUP,
    refusal::{Counted, RefusalRecord, arg, known},
    settings::ABSENT,
};

use super::{
    reads::{Address, Reads},
    section::{AttemptInfo, Section, section, set_directory},
};
use crate::{
    global_functions::global_functions,
    kernel::{
        errno::{EAGAIN, EINTR, ENOMEM},
        groups::MOST_GROUPS,
        offsets::{
            CGROUP_KN, CGROUP_SUBSYS, CSET_SUBSYS, CSS_CGROUP, CSS_PARENT, FDT_FD, FDT_MAX_FDS,
            FILE_INODE, FILES_FDT, INODE_PRIVATE, KN_ID, KN_NAME, KN_PARENT, KN_PARENT_RCU,
            KN_PRIV, MEMORY_CGRP_ID, MEMORY_MAX, MEMORY_USAGE, PIDS_CGRP_ID, PIDS_COUNTER,
            PIDS_LIMIT, TASK_CGROUPS, TASK_FILES,
        },
        task::Task,
    },
};

global_functions! {
    /// The control groups of the child.
    pub(super) fn evidence_groups() {
        let Some(Section { record, reads, task, info }) = &mut section() else { return 0 };
        groups(record, reads, *task, info);
    }

    /// The path of the control group that may have refused.
    pub(super) fn evidence_group_path() {
        let Some(Section { record, reads, info, .. }) = &mut section() else { return 0 };
        path(record, reads, info.directory);
    }

    /// How often the caller's own groups have refused something, if the child would be in them.
    pub(super) fn evidence_refusal_counters() {
        let Some(Section { record, .. }) = &mut section() else { return 0 };
        if record.args[arg::FLAGS] & CLONE_INTO_CGROUP == 0 {
            refusal_counters(record);
        }
    }
}

/// Fills in the control groups that the child would be in: the caller's, or the one that it names.
/// Leaves the directory of the one that may have refused in the scratch memory.
#[inline(always)]
fn groups(record: &mut RefusalRecord, reads: &mut Reads, task: Address, info: &AttemptInfo) {
    reads.start_over();
    let named = record.args[arg::FLAGS] & CLONE_INTO_CGROUP != 0;
    let (holder, offset) = if named {
        (named_group(reads, task, record.args[arg::CGROUP]), CGROUP_SUBSYS.load())
    } else {
        (reads.pointer(task, TASK_CGROUPS.load()), CSET_SUBSYS.load())
    };
    if !reads.succeeded() {
        return;
    }
    record.bits |= if named { known::INTO } else { 0 };
    let group = Address(reads.element(holder, offset, PIDS_CGRP_ID.load()));
    let memory_group = Address(reads.element(holder, offset, MEMORY_CGRP_ID.load()));
    pids(record, reads, group);
    memory(record, reads, memory_group);
    reads.start_over();
    let directory = match info.ret.wrapping_neg() {
        ENOMEM | EINTR => directory_above(reads, memory_group, record.memory.place),
        EAGAIN => directory_above(reads, group, record.pids.place),
        _ if named => reads.pointer(holder, CGROUP_KN.load()),
        _ => Address(0),
    };
    set_directory(directory);
}

/// Fills in how often the caller's own groups have refused something.
#[inline(always)]
fn refusal_counters(record: &mut RefusalRecord) {
    let Some(groups) = Task::current().by_helper().groups() else { return };
    if let Some(refusals) = groups.pids_refusals() {
        record.pids_refusals = refusals;
        record.bits |= known::PIDS_REFUSALS;
    }
    if let Some(ooms) = groups.memory_ooms() {
        record.memory_ooms = ooms;
        record.bits |= known::MEMORY_OOMS;
    }
}

/// The control group behind the file descriptor `fd`. If there is none, the reads fail.
#[inline(always)]
fn named_group(reads: &mut Reads, task: Address, fd: u64) -> Address {
    let files = reads.pointer(task, TASK_FILES.load());
    let table = reads.pointer(files, FILES_FDT.load());
    let open = u64::from(reads.int(table, FDT_MAX_FDS.load()));
    let slots = reads.pointer(table, FDT_FD.load());
    // The caller has chosen the number. Beyond the table, it would stand for an address of the
    // caller's choice.
    if fd >= open {
        reads.fail();
        return Address(0);
    }
    let file = reads.pointer(Address(slots.0.wrapping_add(fd.wrapping_mul(8))), 0);
    let inode = reads.pointer(file, FILE_INODE.load());
    let node = reads.pointer(inode, INODE_PRIVATE.load());
    let group = reads.pointer(node, KN_PRIV.load());
    // In another file system, what lies there does not point back.
    if reads.pointer(group, CGROUP_KN.load()) != node {
        reads.fail();
    }
    group
}

/// Fills in the first group of the pids controller that is full, otherwise the one that has the
/// fewest left.
///
/// KERNEL: kernel/cgroup/pids.c `pids_try_charge` goes from the group upwards, and the root has no
/// limit. A `struct pids_cgroup` begins with its `cgroup_subsys_state`.
#[inline(always)]
fn pids(record: &mut RefusalRecord, reads: &mut Reads, own: Address) {
    reads.start_over();
    let mut css = own;
    for place in 0..MOST_GROUPS {
        let parent = reads.pointer(css, CSS_PARENT.load());
        let current = reads.long(css, PIDS_COUNTER.load());
        let max = reads.long(css, PIDS_LIMIT.load());
        let owner = id(reads, css);
        if !reads.succeeded() {
            return;
        }
        if parent.0 == 0 {
            record.bits |= known::PIDS_WALKED;
            return;
        }
        let counted = Counted { current, max, owner, place };
        if place == 0 || counted.left() < record.pids.left() {
            record.pids = counted;
            record.bits |= known::PIDS;
        }
        if current >= max {
            record.bits |= known::PIDS_WALKED;
            return;
        }
        css = parent;
    }
}

/// Fills in the group of the memory controller that has the least left.
///
/// KERNEL: include/linux/memcontrol.h: a `struct mem_cgroup` begins with its `cgroup_subsys_state`.
#[inline(always)]
fn memory(record: &mut RefusalRecord, reads: &mut Reads, own: Address) {
    reads.start_over();
    let mut css = own;
    for place in 0..MOST_GROUPS {
        let parent = reads.pointer(css, CSS_PARENT.load());
        let current = reads.long(css, MEMORY_USAGE.load());
        let max = reads.long(css, MEMORY_MAX.load());
        let owner = id(reads, css);
        if !reads.succeeded() || parent.0 == 0 {
            return;
        }
        let counted = Counted { current, max, owner, place };
        if place == 0 || counted.left() < record.memory.left() {
            record.memory = counted;
            record.bits |= known::MEMORY;
        }
        css = parent;
    }
}

/// The directory of a group, a `kernfs_node`.
#[inline(always)]
fn node(reads: &mut Reads, css: Address) -> Address {
    let group = reads.pointer(css, CSS_CGROUP.load());
    reads.pointer(group, CGROUP_KN.load())
}

/// The id of a group: that of its directory.
#[inline(always)]
fn id(reads: &mut Reads, css: Address) -> u64 {
    let node = node(reads, css);
    reads.long(node, KN_ID.load())
}

/// The directory of the group that lies `place` steps above `own`.
#[inline(always)]
fn directory_above(reads: &mut Reads, own: Address, place: u64) -> Address {
    let mut css = own;
    for above in 0..MOST_GROUPS {
        if above == place {
            break;
        }
        css = reads.pointer(css, CSS_PARENT.load());
    }
    node(reads, css)
}

/// Fills in the path of a group's directory, as the names in it.
#[inline(always)]
fn path(record: &mut RefusalRecord, reads: &mut Reads, directory: Address) {
    reads.start_over();
    let mut node = directory;
    let parent = if KN_PARENT.load() == ABSENT { KN_PARENT_RCU.load() } else { KN_PARENT.load() };
    for slot in &mut record.names {
        let above = reads.pointer(node, parent);
        if !reads.succeeded() {
            return;
        }
        // Only the root has no parent, and it has no name either.
        if above.0 == 0 {
            record.bits |= known::GROUP_PATH;
            return;
        }
        let name = reads.pointer(node, KN_NAME.load()).0 as *const c_void;
        // SAFETY: the helper checks the address and fails on a bad one.
        let read = unsafe { bpf_probe_read_kernel_str_bytes(name.cast(), slot) };
        if read.is_err() {
            return;
        }
        node = above;
    }
    if reads.pointer(node, parent).0 == 0 && reads.succeeded() {
        record.bits |= known::GROUP_PATH;
    }
}
