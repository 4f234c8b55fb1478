//! Who fills the limit that refused an attempt, read from the kernel when the attempt is shown.
//!
//! A storm of refusals is told what was read for the first of them: reading takes no more than a tenth
//! of the time.

use fork_trace_common::{
    holder::{HolderSeen, HoldersOf},
    refusal::RefusalRecord,
};

use crate::{
    cause::holders::{told, wanted},
    event::{cause::Tasks, fork::Fork},
    host::{clock::monotonic_ns, namespaces},
    live::kernel_side::KernelSide,
};

/// What was read is told for this many times as long as reading it took.
const TOLD_FOR: u64 = 9;

/// Reads who fills a limit, and keeps it for a moment.
pub(super) struct Holders {
    /// Whether the iterator shows every task: it shows those of this process's pid namespace.
    sees_all: bool,
    /// What was read last, if the kernel tells it at all.
    last: Option<Read>,
}

/// What was read of one limit.
struct Read {
    of: HoldersOf,
    /// How many tasks there are.
    count: u64,
    told: (Vec<Tasks>, Option<u64>),
    /// Until when it is told, by `CLOCK_MONOTONIC`.
    until_ns: u64,
}

impl Holders {
    /// Nothing is read yet.
    pub(super) fn new() -> Self {
        Self { sees_all: namespaces::is_initial("pid"), last: None }
    }

    /// Adds to the cause of a failed attempt who fills the limit.
    pub(super) fn add(
        &mut self,
        fork: &mut Fork,
        refusal: &RefusalRecord,
        kernel: &mut dyn KernelSide,
    ) {
        let Some(cause) = &mut fork.cause else { return };
        let Some(of) = wanted(cause, refusal).filter(|_| self.sees_all) else { return };
        let Ok(now_ns) = monotonic_ns() else { return };
        let fresh = |last: &Read| last.of == of && now_ns < last.until_ns;
        if !self.last.as_ref().is_some_and(fresh) {
            let seen = kernel.holders(of).unwrap_or_else(|error| {
                log::info!("who fills the limit is not known: {error:#}");
                Vec::<HolderSeen>::new()
            });
            let took_ns = monotonic_ns().unwrap_or(now_ns).saturating_sub(now_ns);
            let until_ns = now_ns.saturating_add(took_ns.saturating_mul(1 + TOLD_FOR));
            self.last = Some(Read { of, count: seen.len() as u64, told: told(&seen), until_ns });
        }
        // Where most are gone by now, those that are left are not the ones that filled it.
        let most = |last: &&Read| cause.current.is_some_and(|current| last.count * 2 >= current);
        if let Some(last) = self.last.as_ref().filter(most) {
            (cause.holders, cause.holders_more) = last.told.clone();
        }
    }
}
