//! Whether the caller's ids are mapped in its user namespace.

use fork_trace_common::refusal::{RefusalRecord, known};

use super::{
    reads::{Address, Reads},
    section::{Section, section},
};
use crate::{
    global_functions::global_functions,
    kernel::errno::EPERM,
    kernel::offsets::{
        CRED_EGID, CRED_EUID, CRED_USER_NS, ID_MAP_COUNT, ID_MAP_EXTENTS, TASK_CRED,
        USER_NS_GID_MAP, USER_NS_UID_MAP, inside,
    },
};

/// KERNEL: `include/linux/user_namespace.h` `UID_GID_MAP_MAX_BASE_EXTENTS`: a map with more extents
/// has them elsewhere.
const MOST_EXTENTS: u32 = 5;
/// KERNEL: `struct uid_gid_extent`: `first`, `lower_first` and `count`, of 32 bits each.
const EXTENT_BYTES: u32 = 12;
const LOWER_FIRST: u32 = 4;
const COUNT: u32 = 8;

global_functions! {
    /// Whether the caller's ids are mapped in its user namespace.
    pub(super) fn evidence_ids() {
        let Some(Section { record, reads, task, info }) = &mut section() else { return 0 };
        if info.ret == -EPERM {
            ids(record, reads, *task);
        }
    }
}

/// Fills in which of the caller's effective ids have no mapping.
///
/// KERNEL: `kernel/user_namespace.c` `create_user_ns` needs both in the namespace around the new one,
/// which is the caller's.
#[inline(always)]
fn ids(record: &mut RefusalRecord, reads: &mut Reads, task: Address) {
    reads.start_over();
    let cred = reads.pointer(task, TASK_CRED.load());
    let ns = reads.pointer(cred, CRED_USER_NS.load());
    let uid = reads.int(cred, CRED_EUID.load());
    let gid = reads.int(cred, CRED_EGID.load());
    let uid_mapped = mapped(reads, ns, USER_NS_UID_MAP.load(), uid);
    let gid_mapped = mapped(reads, ns, USER_NS_GID_MAP.load(), gid);
    if !reads.succeeded() {
        return;
    }
    record.bits |= known::IDS;
    if !uid_mapped {
        record.bits |= known::UID_UNMAPPED;
    }
    if !gid_mapped {
        record.bits |= known::GID_UNMAPPED;
    }
}

/// Whether an extent of a map has `id`. If the map has more extents than can be read, the reads fail.
///
/// VERIFIER: every branch leaves the loop or goes on, so that the ways through it add up rather than
/// multiply.
#[inline(always)]
fn mapped(reads: &mut Reads, ns: Address, map: u32, id: u32) -> bool {
    let extents = reads.int(ns, inside(map, ID_MAP_COUNT.load()));
    if extents > MOST_EXTENTS {
        reads.fail();
        return false;
    }
    for place in 0..MOST_EXTENTS {
        if place >= extents {
            return false;
        }
        let extent = inside(map, inside(ID_MAP_EXTENTS.load(), place * EXTENT_BYTES));
        let first = reads.int(ns, inside(extent, LOWER_FIRST));
        let count = reads.int(ns, inside(extent, COUNT));
        if id.wrapping_sub(first) < count {
            return true;
        }
    }
    false
}
