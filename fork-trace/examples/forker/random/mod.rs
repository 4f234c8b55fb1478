//! Random sets of `clone3` arguments, and what the kernel ought to say to each: a second, separate
//! writing down of its rules, for a tracer to be compared with.
//!
//! The same seed gives the same sets. No set asks for anything that outlives it.

mod field;
mod numbers;
mod set;
mod verdict;

use std::ffi::c_int;

use self::{
    numbers::Random,
    set::{Places, Set},
    verdict::{Host, verdict},
};
use crate::{
    attempt::{After, attempt, helper},
    call::{Call, Outcome},
    sys::{self, fork},
};

/// The largest signal.
const LAST_SIGNAL: c_int = 64;

/// Makes `count` attempts; the journal has each with what the kernel ought to answer.
pub(crate) fn run(seed: u64, count: usize) -> Outcome {
    // They are made in a child of its own, so that siblings become forker's children and are waited
    // for.
    helper(move || {
        // Some children send this signal at their end; it must not end this process.
        // SAFETY: a signal that is ignored runs nothing.
        let _old = unsafe { sys::handle(LAST_SIGNAL, libc::SIG_IGN, 0) }?;
        let host = Host::read();
        let stack: &'static [u128] = Vec::leak(vec![0_u128; 4096]);
        let places =
            Box::leak(Box::new(Places { pidfd: -1, parent_tid: 0, child_tid: 0, set_tid: [1, 1] }));
        let mut random = Random(seed);
        for _ in 0..count {
            if sys::stop_signal().is_some() {
                break;
            }
            places.set_tid = [random.of(&[1, 1, 1, 0, -1, 2_000_000_000]), 1];
            let set = Set::draw(&mut random, places, stack);
            one(&set, places, &host);
        }
        Ok(())
    })
}

fn one(set: &Set, places: &mut Places, host: &Host) {
    let truth = verdict(set, places, host);
    let (rule, errno) = truth.unwrap_or(("", 0));
    let kind = match rule {
        "" => "",
        _ if rule.starts_with("set-tid-t") && rule != "set-tid-too-many" => "set-tid",
        "set-tid-out-of-range" | "set-tid-first-not-1" => "set-tid",
        "into-cgroup-bad-fd" => "cgroup-into",
        _ => "invalid-flags",
    };
    let call = Call::words(set.word(field::FLAGS), set.word(field::EXIT_SIGNAL));
    let call = call.fails(errno).because(kind, rule);
    places.pidfd = -1;
    // SAFETY: every address in the set is one of `places`, of the leaked stack, or one that no
    // program has; the child touches neither stack nor memory.
    let after = attempt(&call, || unsafe { fork::clone3_raw(&set.words, set.size) });
    if let After::Parent(tid) = after {
        sys::reap(tid);
        sys::close(places.pidfd);
    }
}
