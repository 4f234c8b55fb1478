//! Learning: what happens inside the learning process's own forks, in order.
//!
//! The programs of `inner` write it down here instead of taking marks, while userspace makes one
//! fork, one vfork and one thread. With learning off the verifier removes all of it.

use aya_ebpf::{Global, helpers::bpf_get_current_pid_tgid};
use fork_trace_common::call_site::ObservationKind;

use crate::maps::{OBSERVED, OBSERVED_COUNT};

/// The learning process; 0: no learning.
#[unsafe(no_mangle)]
static LEARN_TGID: Global<u32> = Global::new(0);

/// Whether programs write lessons instead of marks.
#[inline(always)]
pub(crate) fn on() -> bool {
    LEARN_TGID.load() != 0
}

/// Writes one event of the learning process down.
#[inline(always)]
pub(crate) fn lesson(kind: ObservationKind, value: u64) {
    if bpf_get_current_pid_tgid() >> 32 != u64::from(LEARN_TGID.load()) {
        return;
    }
    let Some(count) = OBSERVED_COUNT.get_ptr_mut(0) else { return };
    // SAFETY: the learning process makes one fork at a time, from one thread.
    let place = unsafe { *count };
    // SAFETY: as above.
    unsafe { *count = place.wrapping_add(1) };
    if let Some(lesson) = OBSERVED.get_ptr_mut(place) {
        // SAFETY: as above.
        unsafe { *lesson = [kind as u64, value] };
    }
}
