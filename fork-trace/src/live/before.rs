//! What has to be looked at before anything is attached.

use crate::{
    host::{Host, process::forking::Forking, user_stacks::UserStacks},
    live::{stuck, waits::Waits, wanted::Wanted},
};

/// What has to be looked at before anything is attached.
pub struct Before {
    /// Tasks that stand still inside a fork.
    pub(super) older: Vec<Forking>,
    pub(super) waits: Waits,
    pub(super) stacks: UserStacks,
}

impl Before {
    /// Looks for tasks that are wanted, and takes from `host` what gives names to kernel stacks; looks for
    /// what gives names to those of callers.
    #[must_use]
    pub fn look(wanted: &Wanted, host: &mut Host) -> Self {
        let waits = Waits::new(&std::mem::take(&mut host.kernel_functions), !wanted.no_waits);
        let older = if wanted.no_waits { Vec::new() } else { stuck::older(&wanted.filters) };
        let stacks = if wanted.stacks { UserStacks::new() } else { UserStacks::default() };
        Self { older, waits, stacks }
    }
}
