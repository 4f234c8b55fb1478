//! The ring buffer through which every record goes to user space: how records are sent, when user
//! space is woken, and how a record is counted that did not fit.

use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use fork_trace_common::{counter::Counter, follow_up::ExecRecord, wait::WaitsRecord};

use crate::maps::{RING, count};

/// A flag for sending: user space is not woken.
///
/// A default wake-up costs some 16 us inside the traced fork, and user space looks at the ring on
/// its own every few milliseconds.
const BPF_RB_NO_WAKEUP: u64 = 1;
/// A flag for sending: user space is woken.
const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// A question to the ring: how many bytes are still unread?
const BPF_RB_AVAIL_DATA: u64 = 0;
/// With this many unread bytes user space is woken, because otherwise the ring could fill up.
const WAKE_ABOVE: u64 = 256 << 10;

/// Sends a record. If the ring is full, the record is lost, and counted by `lost`.
#[inline(always)]
pub(crate) fn send<T>(record: &T, lost: Counter) {
    if !try_send(record) {
        count(lost);
    }
}

/// Sends a record; returns whether it fitted into the ring.
#[inline(always)]
pub(crate) fn try_send<T>(record: &T) -> bool {
    RING.output::<T>(record, wake_up()).is_ok()
}

/// Sends a record that another one follows at once, so that user space need not be woken for it. If
/// the ring is full, the record is lost, and counted by `lost`.
#[inline(always)]
pub(crate) fn send_first<T>(record: &T, lost: Counter) {
    if RING.output::<T>(record, BPF_RB_NO_WAKEUP).is_err() {
        count(lost);
    }
}

/// Sends the first `size` bytes of a task's waits. If the ring is full, they are lost, and counted.
#[inline(always)]
pub(crate) fn send_waits(record: &mut WaitsRecord, size: u64) {
    // SAFETY: the callers ask for no more bytes than the record has; the verifier checks it.
    let sent = unsafe {
        let bytes = core::ptr::from_mut(record).cast();
        bpf_ringbuf_output(core::ptr::addr_of!(RING).cast_mut().cast(), bytes, size, wake_up())
    };
    if sent < 0 {
        count(Counter::RingFullOffCpu);
    }
}

/// Sends the first `size` bytes of an exec. If the ring is full, they are lost, and counted by
/// `lost`.
#[inline(always)]
pub(crate) fn send_exec(record: &mut ExecRecord, size: u64, lost: Counter) {
    // SAFETY: the callers ask for no more bytes than the record has; the verifier checks it.
    let sent = unsafe {
        let bytes = core::ptr::from_mut(record).cast();
        bpf_ringbuf_output(core::ptr::addr_of!(RING).cast_mut().cast(), bytes, size, wake_up())
    };
    if sent < 0 {
        count(lost);
    }
}

/// The flag with which a record is sent now.
#[inline(always)]
fn wake_up() -> u64 {
    if RING.query(BPF_RB_AVAIL_DATA) >= WAKE_ABOVE { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}
