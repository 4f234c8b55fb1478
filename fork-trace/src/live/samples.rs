//! What the chain knows of samples: which were lost, and how their stacks are named.

use fork_trace_common::counter::Counter;

use crate::{
    assemble::{
        joined::Joined,
        samples::{self, Seen},
        times::began_ns,
    },
    event::fork::Fork,
    host::stacks::Stacks,
    live::{kernel_side::KernelSide, lost::Lost},
};

/// What is known of samples.
#[derive(Default)]
pub struct Samples {
    /// Those that were lost.
    lost: Lost,
}

/// The samples of one attempt.
pub struct OfAttempt {
    seen: Vec<Seen>,
    began_ns: u64,
    period_ns: u64,
}

impl Samples {
    /// Looks whether samples were lost. Nobody knows whose they were.
    pub fn look_for_lost(&mut self, kernel: &dyn KernelSide, now_ns: u64) {
        self.lost.look(kernel.counter(Counter::SamplesLost).unwrap_or_default(), now_ns);
    }

    /// The samples of an attempt with the stages on their stacks, where `period_ns` lies between two
    /// that are taken. Of an attempt of which some may be lost there are none: the rest would tell
    /// more of one part of it than of another.
    #[must_use]
    pub fn seen(&self, joined: &Joined, period_ns: u64, stacks: &Stacks) -> OfAttempt {
        let began_ns = began_ns(&joined.record);
        let sampled = &joined.samples;
        let seen = match self.lost.may_concern(began_ns) {
            true => Vec::new(),
            false => samples::seen(sampled, &mut |stack| stacks.names(stack)),
        };
        OfAttempt { seen, began_ns, period_ns: period_ns.saturating_mul(sampled.stride) }
    }
}

impl OfAttempt {
    /// Splits the own times of the attempt's stages.
    pub fn add(&self, fork: &mut Fork) {
        samples::add(fork, self.began_ns, self.period_ns, &self.seen);
    }
}
