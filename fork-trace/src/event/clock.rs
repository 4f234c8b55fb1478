//! How `CLOCK_MONOTONIC` and the realtime clock relate while a trace lasts.

use jiff::Timestamp;
use std::time::Duration;

use crate::event::values::Ts;

/// How `CLOCK_MONOTONIC` and the realtime clock relate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    realtime: Timestamp,
    mono_ns: u64,
}

impl Clock {
    /// From one moment read on both clocks.
    #[must_use]
    pub const fn new(realtime: Timestamp, mono_ns: u64) -> Self {
        Self { realtime, mono_ns }
    }

    /// The realtime clock at `mono_ns`.
    #[must_use]
    pub fn at(&self, mono_ns: u64) -> Ts {
        let later = Duration::from_nanos(mono_ns.saturating_sub(self.mono_ns));
        let earlier = Duration::from_nanos(self.mono_ns.saturating_sub(mono_ns));
        let moment = self.realtime.saturating_add(later).and_then(|at| at.saturating_sub(earlier));
        Ts(moment.unwrap_or(self.realtime))
    }
}
