//! Where a task stood still inside a fork: the bytes of a [`WaitsRecord`].
//!
//! The kernel side writes down each time the task leaves its CPU before it is back in user space.
//! All times are `CLOCK_MONOTONIC` nanoseconds. Every byte is zeroed before it is filled.

use crate::stage::Mark;

/// How many waits of an attempt are kept with their stacks: the longest.
pub const KEPT: u32 = 8;
/// The places for waits: one for each that is kept, and one for the wait under way.
pub const PLACES: u32 = KEPT + 1;
/// How many addresses of a kernel stack are kept.
pub const FRAMES: usize = 32;
/// How many bytes they have.
pub const STACK_BYTES: u32 = 256;
/// How many marks an attempt may pass.
pub const MARKS: u32 = Mark::SysExit as u32 + 1;

/// Which part of a fork the task was in when it left its CPU; `phase` of [`WaitsRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// The caller, in the attempt itself: its waits are part of the attempt's total.
    Call = 1,
    /// The caller of a vfork, after its child was woken and before its call returned.
    Held = 2,
    /// The caller, after its call passed `sys_exit`, and before it ran in user space.
    Return = 3,
    /// The child, before it first ran in user space.
    Child = 4,
}

/// What is known of a wait; `bits` of [`Wait`].
pub mod bits {
    /// The task stayed runnable: the kernel gave its CPU to another one.
    pub const RUNNABLE: u32 = 1;
    /// When the task left, its group had used up its CPU quota.
    pub const THROTTLED: u32 = 1 << 1;
    /// `throttled_ns` was read.
    pub const THROTTLED_NS: u32 = 1 << 2;
    /// `owner` had the caller's `mmap_lock` for reading: it was the last to take it, others may have
    /// had it too.
    pub const OWNER_READS: u32 = 1 << 3;
}

/// One time off the CPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Wait {
    /// When the task left its CPU.
    pub left_ns: u64,
    /// When it was given a CPU again; 0: not yet.
    pub back_ns: u64,
    /// By how much the time grew meanwhile for which the CPU quotas of the task's groups held
    /// tasks back, with [`bits::THROTTLED_NS`]: on all CPUs together.
    pub throttled_ns: u64,
    /// The task's state when it left (`task_struct.__state`).
    pub state: u32,
    /// See [`bits`].
    pub bits: u32,
    /// The thread that had the caller's `mmap_lock` when the task left; 0: none, or not read.
    pub owner: u32,
    /// The CPU that the task left.
    pub cpu: u32,
    /// The last mark of the attempt before, by [`Mark`].
    pub mark: u32,
    /// How many addresses of `stack` were read; 0: the stack could not be read.
    pub frames: u32,
    /// The kernel stack when the task left: return addresses, the innermost first.
    pub stack: [u64; FRAMES],
}

impl Wait {
    /// How long it lasted.
    #[must_use]
    pub const fn dur_ns(&self) -> u64 {
        self.back_ns.saturating_sub(self.left_ns)
    }

    /// Whether the task was runnable and not held back by a quota when it left.
    #[must_use]
    #[inline(always)]
    pub const fn was_preempted(&self) -> bool {
        self.bits & (bits::RUNNABLE | bits::THROTTLED) == bits::RUNNABLE
    }

    /// Whether a quota held the task back when it left.
    #[must_use]
    #[inline(always)]
    pub const fn was_held_back(&self) -> bool {
        self.bits & bits::THROTTLED != 0
    }
}

/// The waits of one task in one part of a fork. Sent without the places that were never used.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct WaitsRecord {
    /// [`RecordKind::Waits`](crate::record::RecordKind::Waits).
    pub kind: u32,
    /// See [`Phase`].
    pub phase: u32,
    /// The task.
    pub tid: u32,
    /// How many places were used.
    pub used: u32,
    /// The place for the next wait, or for the one under way; it holds none that is over.
    pub current: u32,
    /// How many waits are over.
    pub count: u32,
    /// [`Phase::Call`] and [`Phase::Held`]: `start_ns` of the attempt. [`Phase::Child`]: the
    /// child's `start_time`. [`Phase::Return`]: `start_ns` too, or 0: the attempt is the task's last
    /// one.
    pub start_ns: u64,
    /// The task is off its CPU since this moment; 0: it is not.
    pub left_ns: u64,
    /// How often the task had left a CPU when it last did so (`nvcsw` and `nivcsw` of
    /// `task_struct`): with another number the task has run since.
    pub switches: u64,
    /// How many waits are missing, because the task was not seen to come back.
    pub missed: u64,
    /// The time of all waits that are over.
    pub off_ns: u64,
    /// Of it: the time of those in which the task was runnable and not held back by a quota when it
    /// left.
    pub preempted_ns: u64,
    /// Of it: the time of those in which a quota held the task back when it left.
    pub quota_ns: u64,
    /// The time of those waits that were not kept, by the last mark before each.
    pub other_ns: [u64; Mark::IN_RECORD],
    /// The waits.
    pub waits: [Wait; PLACES as usize],
}

impl WaitsRecord {
    /// Bytes before `waits`.
    pub const HEAD: usize = size_of::<Self>() - PLACES as usize * size_of::<Wait>();

    /// A record with every byte zero but the kind.
    #[must_use]
    pub const fn zeroed() -> Self {
        const NONE: Wait = Wait {
            left_ns: 0,
            back_ns: 0,
            throttled_ns: 0,
            state: 0,
            bits: 0,
            owner: 0,
            cpu: 0,
            mark: 0,
            frames: 0,
            stack: [0; FRAMES],
        };
        Self {
            kind: crate::record::RecordKind::Waits as u32,
            phase: 0,
            tid: 0,
            used: 0,
            current: 0,
            count: 0,
            start_ns: 0,
            left_ns: 0,
            switches: 0,
            missed: 0,
            off_ns: 0,
            preempted_ns: 0,
            quota_ns: 0,
            other_ns: [0; Mark::IN_RECORD],
            waits: [NONE; PLACES as usize],
        }
    }

    /// The waits that are over and were kept, in no order.
    pub fn kept(&self) -> impl Iterator<Item = &Wait> {
        let used = self.waits.iter().take(self.used as usize).enumerate();
        used.filter(|(place, _)| *place != self.current as usize).map(|(_, wait)| wait)
    }

    /// Takes out the waits that were kept and began at `at_ns` or later; `None`: there are none.
    pub fn split_off(&mut self, at_ns: u64) -> Option<Self> {
        if self.kept().all(|wait| wait.left_ns < at_ns) {
            return None;
        }
        let all = *self;
        let mut later = Self::zeroed();
        (later.phase, later.tid, later.start_ns) = (self.phase, self.tid, self.start_ns);
        self.used = 0;
        for wait in all.kept() {
            let part = if wait.left_ns < at_ns { &mut *self } else { &mut later };
            if let Some(place) = part.waits.get_mut(part.used as usize) {
                *place = *wait;
                part.used += 1;
            }
        }
        later.current = later.used;
        for wait in later.kept() {
            let dur_ns = wait.dur_ns();
            self.count = self.count.saturating_sub(1);
            self.off_ns = self.off_ns.saturating_sub(dur_ns);
            if wait.was_preempted() {
                self.preempted_ns = self.preempted_ns.saturating_sub(dur_ns);
            } else if wait.was_held_back() {
                self.quota_ns = self.quota_ns.saturating_sub(dur_ns);
            }
        }
        self.current = self.used;
        Some(later)
    }
}

// No padding: a byte that no field names would leave the kernel unset.
const _: () = assert!(size_of::<Wait>() == 48 + 8 * FRAMES);
const _: () = assert!(STACK_BYTES as usize == 8 * FRAMES);
const _: () = assert!(WaitsRecord::HEAD == 80 + 8 * Mark::IN_RECORD);
const _: () = assert!(align_of::<WaitsRecord>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_waits_are_taken_out() {
        let mut record = WaitsRecord::zeroed();
        (record.used, record.current, record.count) = (3, 1, 2);
        for (place, left_ns, bits) in [(0, 10, 0), (2, 30, bits::RUNNABLE)] {
            let wait = &mut record.waits[place];
            (wait.left_ns, wait.back_ns, wait.bits) = (left_ns, left_ns + 5, bits);
        }
        (record.off_ns, record.preempted_ns) = (10, 5);
        assert!(record.split_off(31).is_none());
        let later = record.split_off(30).unwrap();
        let begins = |record: &WaitsRecord| record.kept().map(|wait| wait.left_ns).sum::<u64>();
        assert_eq!((begins(&record), begins(&later)), (10, 30));
        assert_eq!((record.count, record.off_ns, record.preempted_ns), (1, 5, 0));
    }
}
