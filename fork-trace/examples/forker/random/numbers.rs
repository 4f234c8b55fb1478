//! Random numbers that are the same for the same seed.

use crate::sys;

/// The generator splitmix64, from its state.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// The next word.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of `choices`.
    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = usize::try_from(self.next() % choices.len() as u64).unwrap_or(0);
        choices
            .get(place)
            .or(choices.first())
            .copied()
            .unwrap_or_else(|| sys::exit_now(libc::EINVAL))
    }

    /// Whether one of so many times has come.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}
