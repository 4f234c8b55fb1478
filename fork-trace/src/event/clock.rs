//! Turns times of `CLOCK_MONOTONIC`, which the kernel side records, into times of the realtime
//! clock.

use std::time::Duration;

use jiff::Timestamp;

use crate::event::values::Ts;

/// One moment on both clocks, from which every other moment of a trace follows.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    realtime: Timestamp,
    mono_ns: u64,
}

impl Clock {
    /// A clock from one moment that was read on both clocks, `mono_ns` on `CLOCK_MONOTONIC`.
    #[must_use]
    pub const fn new(realtime: Timestamp, mono_ns: u64) -> Self {
        Self { realtime, mono_ns }
    }

    /// The realtime clock at the moment `mono_ns` of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn at(&self, mono_ns: u64) -> Ts {
        let later = Duration::from_nanos(mono_ns.saturating_sub(self.mono_ns));
        let earlier = Duration::from_nanos(self.mono_ns.saturating_sub(mono_ns));
        let moment = self.realtime.saturating_add(later).and_then(|at| at.saturating_sub(earlier));
        Ts(moment.unwrap_or(self.realtime))
    }
}
