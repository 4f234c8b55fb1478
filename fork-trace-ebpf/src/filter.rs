//! Is this attempt wanted? All of the host's, or only those of followed processes.

use aya_ebpf::Global;
use fork_trace_common::{
    counter::Counter,
    settings::{FOLLOW_CHILDREN, FOLLOW_SHOWN},
};

use crate::maps::{FOLLOW, count};

/// 1: only processes in `FOLLOW` and their descendants.
#[unsafe(no_mangle)]
static FOLLOW_ONLY: Global<u8> = Global::new(0);

/// Whether the attempts of process `tgid` are shown.
#[inline(always)]
pub(crate) fn wanted(tgid: u32) -> bool {
    FOLLOW_ONLY.load() == 0 || follow_mode(tgid) == Some(FOLLOW_SHOWN)
}

/// A process was made by `parent`: it is followed if its parent is.
#[inline(always)]
pub(crate) fn born(parent: u32, child: u32) {
    if FOLLOW_ONLY.load() == 0 || parent == child {
        return;
    }
    if matches!(follow_mode(parent), Some(FOLLOW_SHOWN | FOLLOW_CHILDREN))
        && FOLLOW.insert(child, FOLLOW_SHOWN, 0).is_err()
    {
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
