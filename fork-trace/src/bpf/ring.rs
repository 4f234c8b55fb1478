//! Waits for the ring and empties it.
//!
//! The kernel side wakes nobody until much is unread, because a wake-up would be paid inside the
//! traced fork; the tick of the caller's loop does the rest.

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// The ring as it is mapped; nothing waits for it yet.
pub struct UnpolledRing(RingBuf<MapData>);

impl UnpolledRing {
    /// Takes the map.
    pub(super) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }
}

/// The reading end of the ring.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Registers the ring with the current runtime.
    ///
    /// # Errors
    /// The runtime cannot poll it.
    pub fn new(ring: UnpolledRing) -> Result<Self> {
        // SAFETY: the ring owns its descriptor and returns the same one for its whole life.
        let ring = unsafe { AsyncFd::register_with_interest(ring.0, Interest::READABLE) };
        ring.map(Self).context("poll the ring")
    }

    /// Returns when the kernel side has called.
    ///
    /// # Errors
    /// Polling failed.
    pub async fn called(&mut self) -> Result<()> {
        // Readiness is per edge: it is cleared before the caller drains, so an edge that comes
        // meanwhile is not lost.
        self.0.readable_mut().await.context("wait for the ring")?.clear_ready();
        Ok(())
    }

    /// Hands over up to `most` entries; returns whether there may be more.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> bool {
        for _ in 0..most {
            match self.0.get_mut().next() {
                Some(entry) => each(&entry),
                None => return false,
            }
        }
        true
    }
}
