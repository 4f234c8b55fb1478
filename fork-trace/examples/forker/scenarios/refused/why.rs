//! An attempt that ought to be refused, and why.

use crate::{
    attempt::attempt,
    call::Call,
    sys::{
        Errno,
        clone_args::{Clone3Size, CloneArgs},
        fork,
    },
};

/// "nobody", who may make no namespace.
pub(super) const NOBODY: libc::uid_t = 65_534;

/// The errno, the kind of cause, and the rule that is broken; the rule is empty where there is
/// none.
#[derive(Clone, Copy)]
pub(super) struct Refusal(pub(super) Errno, pub(super) &'static str, pub(super) &'static str);

impl Refusal {
    /// Arguments that contradict each other or this kernel.
    pub(super) const fn invalid(rule: &'static str) -> Self {
        Self(libc::EINVAL, "invalid-flags", rule)
    }

    /// The same call, with what it ought to be refused for.
    pub(super) const fn of(self, call: Call) -> Call {
        let Self(errno, cause, rule) = self;
        call.fails(errno).because(cause, rule)
    }
}

/// Makes a clone that ought to be refused.
pub(super) fn clone_refused(flags: u64, why: Refusal) {
    attempt(&why.of(Call::clone(flags)), || fork::clone(flags));
}

/// Makes a clone3 that ought to be refused.
pub(super) fn clone3_refused(args: &CloneArgs<'_>, size: Clone3Size, why: Refusal) {
    attempt(&why.of(Call::clone3(args)), || fork::clone3(args, size));
}
