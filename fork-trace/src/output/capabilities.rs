//! The capabilities of the threads that write, serve and draw.

use caps::{CapSet, Capability};

/// Gives up all capabilities of the calling thread, which has its own, but those of `kept` that it has.
///
/// Should that fail, the thread goes on with what it has: the log says so, for `thread`.
pub(super) fn keep(kept: &[Capability], thread: &str) {
    let given_up = caps::read(None, CapSet::Permitted).and_then(|mut permitted| {
        permitted.retain(|capability| kept.contains(capability));
        // What is effective has to be permitted, and is therefore given up first.
        caps::set(None, CapSet::Effective, &permitted)?;
        caps::set(None, CapSet::Permitted, &permitted)
    });
    if let Err(error) = given_up {
        log::info!("give up the capabilities of the thread {thread}: {error}");
    }
}
