//! The limits of the caller's namespaces: how many of each kind there may be, and how many ids its
//! pid namespaces have left.

use fork_trace_common::refusal::{
    Counted, NAMESPACE_ORDER, NAMESPACES, RefusalRecord, UserNamespace, arg, known,
};

use super::{
    reads::{Address, Reads},
    section::{Section, section},
};
use crate::{
    global_functions::global_functions,
    kernel::errno::ENOSPC,
    kernel::namespace::MOST_NESTED,
    kernel::offsets::{
        CRED_UCOUNTS, NSPROXY_CHILD_TIME_NS, NSPROXY_PID_NS, NSPROXY_TIME_NS, PID_LEVEL,
        PID_NS_ALLOCATED, PID_NS_INUM, PID_NS_LEVEL, PID_NS_PARENT, PID_NS_PID_MAX, PID_NUMBERS,
        TASK_CRED, TASK_NSPROXY, TASK_THREAD_PID, UCOUNTS_NS, UCOUNTS_UCOUNT, UCOUNTS_UID, UPID_NS,
        UPID_SIZE, USER_NS_INUM, USER_NS_LEVEL, USER_NS_UCOUNT_MAX, USER_NS_UCOUNTS,
    },
};

global_functions! {
    /// The limits of the caller's namespaces.
    pub(super) fn evidence_namespaces() {
        let Some(Section { record, reads, task, info }) = &mut section() else { return 0 };
        if info.ret == -ENOSPC {
            let cred = reads.pointer(*task, TASK_CRED.load());
            namespaces(record, reads, cred);
        }
        pid_namespaces(record, reads, *task);
    }
}

/// Fills in the first limit that is full, among those of the kinds of namespaces that were asked
/// for.
///
/// KERNEL: kernel/ucount.c `inc_ucount` counts in each user namespace from the caller's outwards.
#[inline(always)]
fn namespaces(record: &mut RefusalRecord, reads: &mut Reads, cred: Address) {
    reads.start_over();
    let own = reads.pointer(cred, CRED_UCOUNTS.load());
    if !reads.succeeded() {
        return;
    }
    record.bits |= known::NAMESPACES;
    for kind in &NAMESPACE_ORDER {
        let kind = *kind;
        let flag = NAMESPACES.get(kind as usize).map_or(0, |(flag, _)| *flag);
        if record.args[arg::FLAGS] & flag != 0 && full_namespace(record, reads, own, kind) {
            record.bits |= known::NAMESPACE_FULL;
            return;
        }
    }
}

/// Whether a limit of namespaces of this kind is full. If so, it is filled in.
#[inline(always)]
fn full_namespace(record: &mut RefusalRecord, reads: &mut Reads, own: Address, kind: u32) -> bool {
    reads.start_over();
    let mut ucounts = own;
    for place in 0..MOST_NESTED {
        let ns = reads.pointer(ucounts, UCOUNTS_NS.load());
        let current = reads.element(ucounts, UCOUNTS_UCOUNT.load(), kind);
        let max = reads.element(ns, USER_NS_UCOUNT_MAX.load(), kind);
        let owner = u64::from(reads.int(ucounts, UCOUNTS_UID.load()));
        let inum = reads.int(ns, USER_NS_INUM.load());
        let level = reads.int(ns, USER_NS_LEVEL.load());
        ucounts = reads.pointer(ns, USER_NS_UCOUNTS.load());
        if !reads.succeeded() {
            return false;
        }
        if current >= max {
            let place = u64::from(kind) << 32 | place;
            record.namespaces = Counted { current, max, owner, place };
            record.namespaces_ns = UserNamespace { inum, level };
            return true;
        }
        if ucounts.0 == 0 {
            return false;
        }
    }
    false
}

/// Fills in the pid namespace of the caller's children, and which one of it and those around it has
/// the fewest ids left.
#[inline(always)]
fn pid_namespaces(record: &mut RefusalRecord, reads: &mut Reads, task: Address) {
    /// KERNEL: `include/linux/pid_namespace.h` `PIDNS_ADDING`: processes may still be added.
    const ADDING: u32 = 1 << 31;
    reads.start_over();
    let nsproxy = reads.pointer(task, TASK_NSPROXY.load());
    let children = reads.pointer(nsproxy, NSPROXY_PID_NS.load());
    // The caller's own pid namespace.
    let pid = reads.pointer(task, TASK_THREAD_PID.load());
    record.pid_level = reads.int(pid, PID_LEVEL.load());
    let number = PID_NUMBERS.load().wrapping_add(record.pid_level.wrapping_mul(UPID_SIZE.load()));
    let active = reads.pointer(pid, number.wrapping_add(UPID_NS.load()));
    record.children_level = reads.int(children, PID_NS_LEVEL.load());
    record.children_allocated = reads.int(children, PID_NS_ALLOCATED.load());
    record.children_inum = reads.int(children, PID_NS_INUM.load());
    if reads.succeeded() {
        record.bits |= known::PID_NS;
        if active != children {
            record.bits |= known::OTHER_PID_NS;
        }
    }
    reads.start_over();
    let own_time = reads.pointer(nsproxy, NSPROXY_TIME_NS.load());
    let time = reads.pointer(nsproxy, NSPROXY_CHILD_TIME_NS.load());
    if reads.succeeded() && own_time != time {
        record.bits |= known::OTHER_TIME_NS;
    }
    reads.start_over();
    let mut ns = children;
    for place in 0..MOST_NESTED {
        let allocated = reads.int(ns, PID_NS_ALLOCATED.load());
        let max = u64::from(reads.int(ns, PID_NS_PID_MAX.load()));
        let owner = u64::from(reads.int(ns, PID_NS_INUM.load()));
        ns = reads.pointer(ns, PID_NS_PARENT.load());
        if !reads.succeeded() {
            return;
        }
        let counted = Counted { current: u64::from(allocated & !ADDING), max, owner, place };
        if place == 0 || counted.left() < record.pid_ns.left() {
            record.pid_ns = counted;
            record.bits |= known::PID_MAX;
        }
        if ns.0 == 0 {
            return;
        }
    }
}
