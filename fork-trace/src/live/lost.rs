//! Records of one sort that were lost, and until when. Nobody knows whose they were.

/// What was lost by the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    count: u64,
    /// When it was last seen that some were lost (`CLOCK_MONOTONIC`); 0: never.
    at_ns: u64,
}

impl Lost {
    /// Looks at `now_ns`: so many were lost by now.
    pub(super) const fn look(&mut self, count: u64, now_ns: u64) {
        if count != self.count {
            *self = Self { count, at_ns: now_ns };
        }
    }

    /// Whether some may be missing of what began at `began_ns`: it had begun when a loss was seen.
    #[must_use]
    pub(super) const fn may_concern(&self, began_ns: u64) -> bool {
        began_ns <= self.at_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_a_loss_was_seen_may_lack_something() {
        let mut lost = Lost::default();
        lost.look(0, 5);
        assert!(!lost.may_concern(4), "nothing was lost");
        lost.look(1, 10);
        lost.look(1, 20);
        assert!(lost.may_concern(10) && !lost.may_concern(11));
    }
}
