//! What the chain knows of waits: the names of the functions on their stacks, which records of waits
//! were lost, and whose caller is still held.

use std::collections::VecDeque;

use fork_trace_common::counter::Counter;

use crate::{
    assemble::{
        joined::Joined,
        times::began_ns,
        waits::{self, Seen},
    },
    cause,
    event::{
        fork::{Fork, ForkWarning},
        notice::Warning,
        units::duration,
        values::Name,
    },
    host::{
        process::{cgroup, initial_task_name, shows_initial_ids},
        stacks::Stacks,
    },
    live::{kernel_side::KernelSide, lost::Lost},
};

/// Processes as `/proc` shows them now, where it shows them by the ids that the kernel side gives.
struct Processes;

impl cause::waits::Lookup for Processes {
    fn comm(&mut self, tid: u32) -> Option<String> {
        initial_task_name(tid)
    }

    fn group(&mut self, pid: u32, controller: &str) -> Option<String> {
        shows_initial_ids().then(|| cgroup::of_controller(pid, controller))?
    }
}

/// What is known of waits.
pub struct Waits {
    /// The names of the kernel's functions.
    pub stacks: Stacks,
    /// Whether waits are measured at all.
    pub are_measured: bool,
    /// Whether it was said that the kernel hides its addresses.
    told_hidden: bool,
    /// Records of waits that were lost.
    lost: Lost,
}

impl Waits {
    /// Before anything was seen; `kernel_functions` are the lines of functions in `/proc/kallsyms`.
    #[must_use]
    pub fn new(kernel_functions: &[u8], are_measured: bool) -> Self {
        let stacks = Stacks::of(kernel_functions);
        Self { stacks, are_measured, told_hidden: false, lost: Lost::default() }
    }

    /// Looks whether waits were lost. Nobody knows whose they were: they may be missing of each
    /// attempt that began before this was seen.
    pub fn look_for_lost(&mut self, kernel: &dyn KernelSide, now_ns: u64) {
        let count = |counter| kernel.counter(counter).unwrap_or_default();
        self.lost.look(count(Counter::OffCpuFull) + count(Counter::RingFullOffCpu), now_ns);
    }

    /// Whether waits of an attempt may be among those that were lost, or were not measured.
    #[must_use]
    pub fn may_lack(&self, joined: &Joined) -> bool {
        !self.are_measured || self.lost.may_concern(began_ns(&joined.record))
    }

    /// The waits of an attempt with the functions on their stacks. If the kernel hides its functions,
    /// that is said once.
    pub fn seen(&mut self, joined: &Joined, warnings: &mut VecDeque<Warning>) -> Vec<Seen> {
        let mut stacks = 0;
        let seen = waits::seen(joined, &mut |stack| {
            stacks += 1;
            self.stacks.names(stack)
        });
        if stacks > 0 && !self.told_hidden && self.stacks.are_hidden() {
            self.told_hidden = true;
            warnings.push_back(stacks_hidden());
        }
        seen
    }
}

/// Fills in the waits of an attempt with their reasons.
pub fn explain(fork: &mut Fork, joined: &Joined, seen: &[Seen]) {
    cause::waits::add(fork, &joined.record, seen, &mut Processes);
}

/// Says of an attempt that its caller is not back in user space, though it is shown.
pub fn still_held(kernel: &dyn KernelSide, joined: &Joined, now_ns: u64) -> Option<ForkWarning> {
    let record = &joined.record;
    if !joined.awaits_caller() || !kernel.still_held(&record.parent).unwrap_or(false) {
        return None;
    }
    let since = duration(now_ns.saturating_sub(record.start_ns));
    let text = format!("its caller is still held, {since} after it called");
    Some(ForkWarning { code: Name::Borrowed("still-held"), text })
}

/// Says that the functions on the stacks of waits have no names.
fn stacks_hidden() -> Warning {
    Warning {
        code: Name::Borrowed("stacks-hidden"),
        text: "the kernel hides the addresses of its functions, so that of most waits neither the \
               reason nor the function is known"
            .to_owned(),
        hint: Some(
            "grant CAP_SYSLOG (root has it), and see that kernel.kptr_restrict is not 2".to_owned(),
        ),
        fork_id: None,
    }
}
