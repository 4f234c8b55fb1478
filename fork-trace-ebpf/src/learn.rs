//! Learning: what happens inside forks of the learning process, in order.
//!
//! Before it traces, user space makes one fork, one vfork and one thread of its own. Meanwhile the
//! programs of the inner tracepoints write down here what they see, and take no marks. When
//! learning is off, the verifier removes all of this.

use aya_ebpf::{Global, helpers::bpf_get_current_pid_tgid};
use fork_trace_common::call_site::ObservationKind;

use crate::maps::{OBSERVED, OBSERVED_COUNT};

/// The process id of the learning process; 0 if learning is off.
#[unsafe(no_mangle)]
static LEARN_TGID: Global<u32> = Global::new(0);

/// Whether programs write down observations and take no marks.
#[inline(always)]
pub(crate) fn on() -> bool {
    LEARN_TGID.load() != 0
}

/// Writes down one observation, if the calling process is the learning one.
#[inline(always)]
pub(crate) fn observe(kind: ObservationKind, value: u64) {
    if bpf_get_current_pid_tgid() >> 32 != u64::from(LEARN_TGID.load()) {
        return;
    }
    let Some(count) = OBSERVED_COUNT.get_ptr_mut(0) else { return };
    // SAFETY: the learning process makes one fork at a time, from one thread.
    let place = unsafe { *count };
    // SAFETY: as above.
    unsafe { *count = place.wrapping_add(1) };
    if let Some(observation) = OBSERVED.get_ptr_mut(place) {
        // SAFETY: as above.
        unsafe { *observation = [kind as u64, value] };
    }
}
