//! The ring buffer through which every record goes to user space: how records are sent, and when
//! user space is woken. A record that does not fit is lost, and whoever sent it counts the loss.
//!
//! When records come faster than user space takes them, what is worth least is lost first: samples and
//! callers' stacks in a ring that is half full, the stages of successful attempts and the starts of their
//! children in one that is three quarters full. The last sixteenth is kept for attempts that fail.

use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use fork_trace_common::{
    follow_up::ExecRecord, program::ProgramRecord, record::ForkRecord, sample::SampleRecord,
    stack::StackRecord, wait::WaitsRecord,
};

use crate::maps::RING;

/// A flag for sending: user space is not woken.
///
/// A default wake-up costs some 16 us inside the traced fork, and user space looks at the ring on
/// its own every few milliseconds.
const BPF_RB_NO_WAKEUP: u64 = 1;
/// A flag for sending: user space is woken.
const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// A question to the ring: how many bytes are still unread?
const BPF_RB_AVAIL_DATA: u64 = 0;
/// A question to the ring: how many bytes does it have room for?
const BPF_RB_RING_SIZE: u64 = 1;
/// With this many unread bytes user space is woken, because otherwise the ring could fill up.
const WAKE_ABOVE: u64 = 256 << 10;

/// Sends an attempt, or the evidence of a refusal; returns whether it fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send<T>(record: &T) -> bool {
    RING.output::<T>(record, wake_up()).is_ok()
}

/// Sends what is known beside an attempt; returns whether there was room for it.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_beside<T>(record: &T) -> bool {
    !is_nearly_full() && send(record)
}

/// Sends a record that user space has to act on at once; returns whether it fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_now<T>(record: &T) -> bool {
    RING.output::<T>(record, BPF_RB_FORCE_WAKEUP).is_ok()
}

/// Sends a record that another one follows at once, so that user space need not be woken for it;
/// returns whether it fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_first<T>(record: &T) -> bool {
    RING.output::<T>(record, BPF_RB_NO_WAKEUP).is_ok()
}

/// Sends the first `size` bytes of a task's waits; returns whether they fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_waits(record: &WaitsRecord, size: u64) -> bool {
    send_part(record, size, wake_up())
}

/// Whether the ring has room to spare for what is of less use than an attempt: it is less than half
/// full.
#[inline(always)]
pub(crate) fn has_room_to_spare() -> bool {
    RING.query(BPF_RB_AVAIL_DATA) < RING.query(BPF_RB_RING_SIZE) / 2
}

/// Whether the ring is so full that attempts are told in brief: three quarters of it are unread.
#[inline(always)]
pub(crate) fn is_crowded() -> bool {
    RING.query(BPF_RB_AVAIL_DATA) > RING.query(BPF_RB_RING_SIZE) / 4 * 3
}

/// Whether what room the ring has is kept for attempts that fail: fifteen sixteenths of it are unread.
#[inline(always)]
fn is_nearly_full() -> bool {
    RING.query(BPF_RB_AVAIL_DATA) > RING.query(BPF_RB_RING_SIZE) / 16 * 15
}

/// Sends an attempt in brief; returns whether it fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_brief(record: &ForkRecord) -> bool {
    send_part(record, ForkRecord::BRIEF as u64, wake_up())
}

/// Sends the first `size` bytes of a sample; returns whether they fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_sample(record: &SampleRecord, size: u64) -> bool {
    send_part(record, size, wake_up())
}

/// Sends the first `size` bytes of a caller's stack; returns whether they fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_stack(record: &StackRecord, size: u64) -> bool {
    send_part(record, size, wake_up())
}

/// Sends the first `size` bytes of an exec; returns whether they fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_exec(record: &ExecRecord, size: u64) -> bool {
    send_part(record, size, wake_up())
}

/// Sends the first `size` bytes of a program's description, which the record of the attempt follows at
/// once; returns whether they fitted into the ring.
#[inline(always)]
#[must_use = "a record that does not fit is counted"]
pub(crate) fn send_program(record: &ProgramRecord, size: u64) -> bool {
    send_part(record, size, BPF_RB_NO_WAKEUP)
}

/// Sends the first `size` bytes of a record; returns whether there was room for them.
#[inline(always)]
fn send_part<T>(record: &T, size: u64, flags: u64) -> bool {
    if is_nearly_full() {
        return false;
    }
    // SAFETY: the callers ask for no more bytes than the record has, and the verifier checks it.
    let sent = unsafe {
        let bytes = core::ptr::from_ref(record).cast_mut().cast();
        bpf_ringbuf_output(core::ptr::addr_of!(RING).cast_mut().cast(), bytes, size, flags)
    };
    sent >= 0
}

/// The flag with which a record is sent now.
#[inline(always)]
fn wake_up() -> u64 {
    if RING.query(BPF_RB_AVAIL_DATA) >= WAKE_ABOVE { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}
