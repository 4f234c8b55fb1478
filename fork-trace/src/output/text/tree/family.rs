//! What the events say of each process, in bounded memory.
//!
//! A process is known by the fork that made it, and by its id together with the moment of its start: an id
//! alone comes again. Callers whose own fork was not seen are known by id and start. Which caller is which
//! child is found out at the end, for the lines of a process may come before that of its fork.

use foldhash::HashMap;

use crate::{
    event::{
        Event,
        caller::Parent,
        follow_up::{Exec, Exit, VforkDone},
        fork::Fork,
    },
    output::text::follow_up::quoted,
};

/// Children that are held, and callers. What comes when there are as many is left out and counted.
const MOST: usize = 100_000;

/// Bytes of command lines that are held whole. Of those that come later [`BEGINNING`] bytes are held.
const MOST_BYTES: usize = 32 << 20;

/// What is held of a command line when there is no room for more.
const BEGINNING: usize = 64;

/// How much later than its child's start the first mark may come of an attempt whose entry was not seen.
const UNSEEN_NS: u64 = 100_000_000;

/// Process id, and when the process was made (`CLOCK_MONOTONIC`), where that is known.
type Key = (u32, Option<u64>);

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at_ns: u64,
    pub(super) lifetime_ns: u64,
    pub(super) code: Option<u32>,
    pub(super) signal: Option<u32>,
    pub(super) execed: bool,
    pub(super) cpu_ns: Option<u64>,
}

/// What follow-ups say of a process.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// When it was made, `CLOCK_MONOTONIC`.
    pub(super) start_ns: Option<u64>,
    /// The program that it ran last, with its arguments.
    pub(super) command: Option<Box<str>>,
    /// The last program that it could not run.
    pub(super) refused_exec: Option<Box<str>>,
    pub(super) end: Option<End>,
}

/// What the attempts of a process say of it.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    /// Processes that it made.
    pub(super) forks: u64,
    /// Threads that it made.
    pub(super) threads: u64,
    /// Attempts that failed, and the error where it is always the same.
    pub(super) failed: u64,
    pub(super) error: Option<Box<str>>,
    /// How long all attempts together held their callers, and of how many that is not known.
    pub(super) held_ns: u64,
    pub(super) unknown: u64,
    /// The name of the task that called last.
    pub(super) comm: Box<str>,
    /// Its command line, as it was read at the latest attempt.
    pub(super) command: Option<Box<str>>,
}

/// A child.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) pid: u32,
    /// It was made between these moments.
    pub(super) within_ns: (u64, u64),
    /// Who made it: a place among the callers.
    pub(super) caller: Option<usize>,
    pub(super) comm: Box<str>,
    /// How long its caller was held is not known.
    pub(super) holds: bool,
    pub(super) life: Life,
}

/// A process that made attempts, or one of which only follow-ups are known.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) key: Key,
    /// When it was first seen.
    pub(super) seen_ns: u64,
    pub(super) deeds: Option<Deeds>,
    pub(super) life: Life,
    /// The traced command itself.
    pub(super) is_command: bool,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) processes: u64,
    /// Attempts whose cost is in no row.
    pub(super) attempts: u64,
}

/// Everything that is held.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) born: Vec<Born>,
    by_fork: HashMap<Box<str>, usize>,
    pub(super) callers: Vec<Caller>,
    by_key: HashMap<Key, usize>,
    bytes: usize,
    pub(super) left_out: LeftOut,
    /// Whether there were lines of these types.
    pub(super) has_execs: bool,
    pub(super) has_exits: bool,
    pub(super) has_stages: bool,
    /// Whether records were lost.
    pub(super) lost: bool,
    /// The latest moment of all, `CLOCK_MONOTONIC`.
    pub(super) last_ns: u64,
}

impl Family {
    /// Takes an event.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Fork(fork) => self.fork(fork),
            Event::VforkDone(done) => self.vfork_done(done),
            Event::Exec(exec) => self.exec(exec),
            Event::Exit(exit) => self.exit(exit),
            Event::Stage(_) => self.has_stages = true,
            Event::Loss(_) => self.lost = true,
            Event::Summary(summary) => self.lost |= !summary.lost_by.is_empty(),
            Event::Start(_) | Event::Stuck(_) | Event::Warning(_) => {}
        }
    }

    /// Takes an attempt.
    pub(super) fn fork(&mut self, fork: &Fork) {
        let until_ns = fork.total_ns.map(|ns| fork.mono_ns.saturating_add(ns));
        self.see(until_ns.unwrap_or(fork.mono_ns));
        let caller = self.caller((fork.parent.pid, fork.parent.start_ns), fork.mono_ns);
        let child = fork.child.as_ref();
        let process = child.filter(|child| child.pid == child.tid);
        let mut holds = false;
        if let Some(caller) = caller {
            let command = self.command_of(&fork.parent, caller);
            if let Some(caller) = self.callers.get_mut(caller) {
                let deeds = caller.deeds.get_or_insert_default();
                holds = deeds.add(fork);
                deeds.command = command.or_else(|| deeds.command.take());
            }
        } else {
            self.left_out.attempts += 1;
        }
        let Some(child) = process else { return };
        if self.born.len() >= MOST {
            self.left_out.processes += 1;
            return;
        }
        self.by_fork.insert(fork.id.as_str().into(), self.born.len());
        self.born.push(Born {
            pid: child.pid,
            // Without its entry an attempt begins at the first mark that was seen, which may come after the
            // child's start.
            within_ns: match until_ns {
                Some(until_ns) => (fork.mono_ns, until_ns),
                None => (fork.mono_ns.saturating_sub(UNSEEN_NS), u64::MAX),
            },
            caller,
            comm: child.comm.as_deref().unwrap_or(&fork.parent.comm).into(),
            holds,
            life: Life::default(),
        });
    }

    fn vfork_done(&mut self, done: &VforkDone) {
        self.see(done.mono_ns);
        let born = self.by_fork.get(done.fork_id.as_str());
        let Some(born) = born.and_then(|born| self.born.get_mut(*born)) else { return };
        let caller = born.caller.filter(|_| born.holds);
        if let (Some(caller), Some(held_ns)) = (caller, done.held_ns)
            && let Some(deeds) = self.callers.get_mut(caller).and_then(|one| one.deeds.as_mut())
        {
            born.holds = false;
            deeds.held_ns = deeds.held_ns.saturating_add(held_ns);
            deeds.unknown -= 1;
        }
    }

    fn exec(&mut self, exec: &Exec) {
        self.has_execs = true;
        self.see(exec.mono_ns);
        let start_ns = exec.mono_ns.checked_sub(exec.after_ns);
        let line = match (&exec.argv, &exec.exe) {
            (Some(argv), _) if !argv.is_empty() => {
                Some(joined(argv, exec.argv_truncated.is_some()))
            }
            (_, exe) => {
                let exe = exe.as_ref().map(std::slice::from_ref);
                exe.map(|exe| joined(exe, exec.exe_truncated.is_some()))
            }
        };
        let line = line.filter(|_| exec.errno.is_none()).map(|line| self.kept(line));
        let Some(life) = self.life(exec.fork_id.as_deref(), exec.orphan, exec.pid, start_ns) else {
            return;
        };
        if let Some(errno) = exec.errno {
            let exe = exec.exe.as_deref().map_or_else(|| "a program".to_owned(), quoted);
            let name = exec
                .errno_name
                .as_ref()
                .map_or_else(|| format!("error {errno}"), |name| name.to_string());
            life.refused_exec = Some(format!("exec {exe} failed with {name}").into());
        } else {
            life.command = line;
        }
    }

    fn exit(&mut self, exit: &Exit) {
        self.has_exits = true;
        self.see(exit.mono_ns);
        let start_ns = exit.mono_ns.checked_sub(exit.lifetime_ns);
        let Some(life) = self.life(exit.fork_id.as_deref(), exit.orphan, exit.pid, start_ns) else {
            return;
        };
        life.end = Some(End {
            at_ns: exit.mono_ns,
            lifetime_ns: exit.lifetime_ns,
            code: exit.code,
            signal: exit.signal,
            execed: exit.execed,
            cpu_ns: exit.cpu_ns,
        });
    }

    /// What is known of the process of a follow-up: the child of its fork; of the traced command, and of a
    /// child whose fork was lost, the process itself. `None` where its fork is not shown.
    fn life(
        &mut self,
        fork_id: Option<&str>,
        orphan: Option<bool>,
        pid: u32,
        start_ns: Option<u64>,
    ) -> Option<&mut Life> {
        let life = match fork_id {
            Some(fork_id) if orphan != Some(true) => {
                let born = *self.by_fork.get(fork_id)?;
                &mut self.born.get_mut(born)?.life
            }
            _ => {
                let caller = self.caller((pid, Some(start_ns?)), start_ns?)?;
                let caller = self.callers.get_mut(caller)?;
                caller.is_command |= fork_id.is_none();
                &mut caller.life
            }
        };
        life.start_ns = life.start_ns.or(start_ns);
        Some(life)
    }

    /// The place of a caller, which is made where there is room.
    fn caller(&mut self, key: Key, seen_ns: u64) -> Option<usize> {
        if let Some(place) = self.by_key.get(&key) {
            return Some(*place);
        }
        if self.callers.len() >= MOST {
            return None;
        }
        self.by_key.insert(key, self.callers.len());
        self.callers.push(Caller {
            key,
            seen_ns,
            deeds: None,
            life: Life::default(),
            is_command: false,
        });
        Some(self.callers.len() - 1)
    }

    /// The command line of a caller, where it is not the one that is known of it.
    fn command_of(&mut self, parent: &Parent, caller: usize) -> Option<Box<str>> {
        let cut = parent.argv_truncated.is_some();
        let line = match (&parent.argv, &parent.exe) {
            (Some(argv), _) if !argv.is_empty() => joined(argv, cut),
            (_, exe) => quoted(exe.as_deref()?),
        };
        let known =
            self.callers.get(caller)?.deeds.as_ref().and_then(|deeds| deeds.command.as_deref());
        (known != Some(line.as_str())).then(|| self.kept(line))
    }

    /// A command line as it is held.
    fn kept(&mut self, mut line: String) -> Box<str> {
        if self.bytes.saturating_add(line.len()) > MOST_BYTES && line.len() > BEGINNING {
            line.truncate(line.floor_char_boundary(BEGINNING));
            line.push('\u{2026}');
        }
        self.bytes = self.bytes.saturating_add(line.len());
        line.into()
    }

    const fn see(&mut self, at_ns: u64) {
        if at_ns > self.last_ns {
            self.last_ns = at_ns;
        }
    }
}

/// Words as a shell would need them; `cut`: the last one is cut.
fn joined(words: &[String], cut: bool) -> String {
    let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    if cut { line + "\u{2026}" } else { line }
}

impl Deeds {
    /// Counts an attempt; returns whether its caller is held, for a time that is told later.
    fn add(&mut self, fork: &Fork) -> bool {
        if *self.comm != *fork.parent.comm {
            self.comm = fork.parent.comm.as_str().into();
        }
        match &fork.child {
            Some(child) if child.pid == child.tid => self.forks += 1,
            Some(_) => self.threads += 1,
            // Made by another call: no failure of its own.
            None if fork.fell_back_to.is_some() => {}
            None => {
                let error = fork.errno_name.as_deref();
                let same = self.failed == 0 || self.error.as_deref() == error;
                self.error = error.filter(|_| same).map(Into::into);
                self.failed += 1;
            }
        }
        if let Some(ns) = fork.took_ns() {
            self.held_ns = self.held_ns.saturating_add(ns);
            return false;
        }
        self.unknown += 1;
        true
    }
}
