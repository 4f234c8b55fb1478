//! What the chain knows of samples: which were lost, and how their stacks are named.

use fork_trace_common::counter::Counter;

use crate::{
    assemble::{
        join::Joined,
        samples::{self, Seen},
        times::began_ns,
    },
    bpf::tracer::Tracer,
    event::fork::Fork,
    host::stacks::Stacks,
};

/// What is known of samples.
#[derive(Default)]
pub struct Samples {
    /// How many were lost by the last look.
    lost: u64,
    /// When it was last seen that some were lost; 0: never.
    lost_ns: u64,
}

/// The samples of one attempt.
pub struct OfAttempt {
    seen: Vec<Seen>,
    began_ns: u64,
    period_ns: u64,
}

impl Samples {
    /// Looks whether samples were lost. Nobody knows whose they were.
    pub fn look_for_lost(&mut self, tracer: &Tracer, now_ns: u64) {
        let lost = tracer.counter(Counter::SamplesLost).unwrap_or_default();
        if lost != self.lost {
            self.lost = lost;
            self.lost_ns = now_ns;
        }
    }

    /// The samples of an attempt with the stages on their stacks, where `period_ns` lies between two
    /// that are taken. Of an attempt of which some may be lost there are none: the rest would tell
    /// more of one part of it than of another.
    #[must_use]
    pub fn seen(&self, joined: &Joined, period_ns: u64, stacks: &mut Stacks) -> OfAttempt {
        let began_ns = began_ns(&joined.record);
        let sampled = &joined.samples;
        let seen = match began_ns <= self.lost_ns {
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
