//! The handlers that processes have registered with `pthread_atfork`: which functions they are, and, where that
//! is wanted, a probe on each of them.

use std::{path::PathBuf, sync::Arc};

use foldhash::HashMap;
use fork_trace_common::{
    flags::CLONE_VM,
    libc::{AtforkRecord, HandlerRun, LibcRecord},
    record::{ForkRecord, bits},
};

use crate::{
    assemble::joined::Joined,
    event::libc::{Libc, LibcHandler, Turn},
    host::libc::{Place, places},
    live::kernel_side::KernelSide,
};

/// How many processes are remembered.
const PROCESSES: usize = 4096;
/// How many handlers of one process are.
const OF_A_PROCESS: usize = 64;
/// How many handlers are known in all, and probed.
const MOST: usize = 256;
/// A process that has registered nothing is remembered for so long, for the record of its fork may come later.
const RECENT_NS: u64 = 1_000_000_000;

/// Handlers that were registered by one call, by number: before the fork, after it, and in the child.
#[derive(Clone, Copy, Debug)]
struct Registered {
    at_ns: u64,
    numbers: [Option<u32>; 3],
}

/// What a process has registered.
#[derive(Clone, Debug, Default)]
struct Process {
    /// When something was last heard of it.
    last_ns: u64,
    /// When it last began another program, and lost what it had registered before; 0: it was not seen to.
    execed_ns: u64,
    registered: Vec<Registered>,
}

impl Process {
    /// What was registered at `at_ns`.
    fn at(&self, at_ns: u64) -> impl Iterator<Item = &Registered> {
        let since_ns = if self.execed_ns <= at_ns { self.execed_ns } else { 0 };
        self.registered.iter().filter(move |one| (since_ns..=at_ns).contains(&one.at_ns))
    }
}

/// A handler.
struct Known {
    module: Arc<str>,
    function: Option<Arc<str>>,
    offset: u64,
}

/// All that are known.
#[derive(Default)]
pub(super) struct Handlers {
    /// By process id.
    processes: HashMap<u32, Process>,
    /// The number of the handler at a place of a file: device, inode, offset.
    numbers: HashMap<(u64, u64, u64), u32>,
    known: Vec<Known>,
    /// Those that are to be probed: number, file, offset.
    unprobed: Vec<(u32, PathBuf, u64)>,
    /// Whether they are probed.
    times: bool,
}

impl Handlers {
    /// None yet; with `times` each is probed.
    pub(super) fn new(times: bool) -> Self {
        Self { times, ..Self::default() }
    }

    /// A process registers handlers, or begins another program.
    pub(super) fn push(&mut self, record: &AtforkRecord) {
        let at_ns = record.at_ns;
        if record.execs != 0 {
            let process = self.process(record.tgid, at_ns);
            process.execed_ns = at_ns;
            return;
        }
        let places = places(record.proc_pid, record.handlers);
        let numbers = places.map(|place| self.number(place?));
        let process = self.process(record.tgid, at_ns);
        let execed_ns = process.execed_ns;
        process.registered.retain(|one| one.at_ns >= execed_ns);
        let again = process.registered.iter().any(|one| one.numbers == numbers);
        if process.registered.len() < OF_A_PROCESS && !again && numbers.iter().any(Option::is_some)
        {
            process.registered.push(Registered { at_ns, numbers });
        }
    }

    /// A child with memory of its own has what its parent had registered.
    pub(super) fn inherit(&mut self, record: &ForkRecord) {
        let (parent, child) = (&record.parent, &record.child);
        let shares = record.clone_flags & CLONE_VM != 0;
        if !record.has(bits::CHILD) || child.tid != child.tgid || shares {
            return;
        }
        let Some(process) = self.processes.get(&parent.tgid) else { return };
        let inherited: Vec<_> = process.at(record.start_ns).copied().collect();
        if inherited.is_empty() {
            return;
        }
        let process = self.process(child.tgid, record.start_ns);
        if process.last_ns <= record.start_ns {
            // What was known is of another process that had this id.
            *process = Process { last_ns: record.start_ns, ..Process::default() };
        }
        process.registered.splice(0..0, inherited);
    }

    /// What is known of a process, of which something is heard now.
    fn process(&mut self, tgid: u32, at_ns: u64) -> &mut Process {
        if self.processes.len() >= PROCESSES && !self.processes.contains_key(&tgid) {
            self.processes.retain(|_, process| {
                !process.registered.is_empty() || process.last_ns + RECENT_NS > at_ns
            });
            if self.processes.len() >= PROCESSES {
                self.processes.clear();
            }
        }
        let process = self.processes.entry(tgid).or_default();
        process.last_ns = process.last_ns.max(at_ns);
        process
    }

    /// The number of a handler, which is to be probed if it is new.
    fn number(&mut self, place: Place) -> Option<u32> {
        let (device, inode) = place.file;
        let key = (device, inode, place.file_offset);
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        if self.known.len() >= MOST {
            return None;
        }
        let (offset, function) = place.symbol()?;
        let number = u32::try_from(self.known.len()).ok()?;
        let (module, function) = (place.module.into(), function.map(Into::into));
        self.known.push(Known { module, function, offset });
        self.numbers.insert(key, number);
        if self.times {
            self.unprobed.push((number, place.path, place.file_offset));
        }
        Some(number)
    }

    /// Probes those that are not probed yet.
    pub(super) fn probe(&mut self, kernel: &mut dyn KernelSide) {
        for (number, path, offset) in self.unprobed.drain(..) {
            if let Err(reason) = kernel.probe_handler(number, &path, offset) {
                log::info!(
                    "the handler at {offset:#x} of {} is not timed: {reason}",
                    path.display()
                );
            }
        }
    }

    /// Tells the handlers of an attempt whose wrapper runs them.
    pub(super) fn add(&self, libc: &mut Libc, joined: &Joined) {
        let Some(caller) =
            joined.libc.as_deref().filter(|_| libc.function.as_deref() == Some("fork"))
        else {
            return;
        };
        let before_ns = joined.record.start_ns;
        let is_before = |run: &&HandlerRun| run.entered_ns < before_ns;
        let runs = |record: Option<&LibcRecord>| -> Vec<HandlerRun> {
            let kept = record.map(|record| record.runs.iter().take(count(record.handlers)));
            kept.into_iter().flatten().copied().collect()
        };
        let (own, child) = (runs(Some(caller)), runs(joined.child_libc.as_deref()));
        let (before, after): (Vec<_>, Vec<_>) = own.iter().partition(is_before);
        let process = self.processes.get(&joined.record.parent.tgid);
        let registered: Vec<_> =
            process.into_iter().flat_map(|process| process.at(caller.entered_ns)).collect();
        let turns = [Turn::Prepare, Turn::Parent, Turn::Child];
        for (place, (turn, ran)) in turns.into_iter().zip([before, after, child]).enumerate() {
            let of_turn = registered.iter().filter_map(|one| one.numbers.get(place).copied()?);
            let mut expected: Vec<_> = of_turn.collect();
            if turn == Turn::Prepare {
                expected.reverse();
            }
            for run in &ran {
                let number = u32::try_from(run.handler).ok();
                expected.retain(|other| Some(*other) != number);
                let dur_ns = run.returned_ns.checked_sub(run.entered_ns);
                libc.handlers.extend(number.and_then(|number| self.told(number, turn, dur_ns)));
            }
            let unseen = expected.into_iter().filter_map(|number| self.told(number, turn, None));
            libc.handlers.extend(unseen);
        }
    }

    fn told(&self, number: u32, turn: Turn, dur_ns: Option<u64>) -> Option<LibcHandler> {
        let known = self.known.get(usize::try_from(number).ok()?)?;
        Some(LibcHandler {
            turn,
            module: Arc::clone(&known.module),
            offset: known.offset,
            function: known.function.clone(),
            dur_ns,
        })
    }
}

fn count(handlers: u64) -> usize {
    usize::try_from(handlers).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use fork_trace_common::record::{RecordKind, TaskIds};

    use super::*;

    fn registers(tgid: u32, at_ns: u64, execs: bool) -> AtforkRecord {
        let kind = RecordKind::Atfork as u32;
        AtforkRecord { kind, tgid, proc_pid: 0, execs: execs.into(), at_ns, handlers: [0; 3] }
    }

    /// As a process with the id `tgid` that registers the handler `number` for the child.
    fn add(handlers: &mut Handlers, tgid: u32, at_ns: u64, number: u32) {
        let numbers = [None, None, Some(number)];
        handlers.process(tgid, at_ns).registered.push(Registered { at_ns, numbers });
    }

    fn forks(parent: u32, child: u32, start_ns: u64) -> ForkRecord {
        let ids = |id| TaskIds { tgid: id, tid: id, start_ns };
        let mut record = ForkRecord::zeroed();
        record.start_ns = start_ns;
        record.bits = bits::CHILD;
        (record.parent, record.child) = (ids(parent), ids(child));
        record
    }

    fn at(handlers: &Handlers, tgid: u32, at_ns: u64) -> Vec<u32> {
        let process = handlers.processes.get(&tgid);
        let registered = process.into_iter().flat_map(|process| process.at(at_ns));
        registered.filter_map(|one| one.numbers[2]).collect()
    }

    #[test]
    fn a_child_has_what_its_parent_had_and_loses_it_by_exec() {
        let mut handlers = Handlers::new(false);
        add(&mut handlers, 1, 10, 7);
        handlers.inherit(&forks(1, 2, 20));
        add(&mut handlers, 1, 30, 8);
        assert_eq!(at(&handlers, 1, 20), [7], "what is registered later did not run");
        assert_eq!(at(&handlers, 1, 40), [7, 8]);
        assert_eq!(at(&handlers, 2, 40), [7]);
        handlers.push(&registers(2, 50, true));
        assert_eq!(at(&handlers, 2, 60), [0_u32; 0]);
        assert_eq!(at(&handlers, 2, 40), [7], "an attempt before the exec is told later");
        add(&mut handlers, 2, 70, 9);
        assert_eq!(at(&handlers, 2, 80), [9]);
    }

    #[test]
    fn records_may_come_out_of_order_and_ids_again() {
        let mut handlers = Handlers::new(false);
        add(&mut handlers, 1, 10, 7);
        // The child's exec is heard of before its parent's attempt.
        handlers.push(&registers(2, 30, true));
        handlers.inherit(&forks(1, 2, 20));
        assert_eq!(at(&handlers, 2, 25), [7]);
        assert_eq!(at(&handlers, 2, 40), [0_u32; 0]);
        // Another process gets the id.
        handlers.inherit(&forks(1, 2, 50));
        assert_eq!(at(&handlers, 2, 60), [7]);
        assert_eq!(handlers.processes.get(&2).unwrap().registered.len(), 1);
    }

    #[test]
    fn a_child_that_shares_the_memory_inherits_nothing_of_its_own() {
        let mut handlers = Handlers::new(false);
        add(&mut handlers, 1, 10, 7);
        let mut record = forks(1, 2, 20);
        record.clone_flags = CLONE_VM;
        handlers.inherit(&record);
        assert!(!handlers.processes.contains_key(&2));
    }

    #[test]
    fn processes_are_bounded() {
        let mut handlers = Handlers::new(false);
        add(&mut handlers, 1, 10, 7);
        for tgid in 2..10_000 {
            handlers.push(&registers(tgid, u64::from(tgid) * RECENT_NS, true));
        }
        assert!(handlers.processes.len() <= PROCESSES);
        assert_eq!(at(&handlers, 1, 20), [7], "one that has handlers stays");
    }
}
