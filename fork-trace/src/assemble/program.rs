//! The programs of callers: kept from their description to the attempts that follow it.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use foldhash::HashMap;
use fork_trace_common::program::{ProgramRecord, bits};

use crate::{
    assemble::follow_up::argv,
    event::bytes::{before_nul, text},
};

/// How many are kept: as many as the kernel side remembers to have described, twice.
pub const MOST: usize = 16_384;

/// A process, by its id and when it was made.
type Process = (u32, u64);

/// A caller's program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The path of its file, if that was read whole.
    pub exe: Option<Arc<str>>,
    /// Its arguments, if they were read.
    pub argv: Option<Arc<[String]>>,
    /// Whether `argv` is cut.
    pub argv_truncated: bool,
}

/// The programs that were described, the oldest first to go.
#[derive(Default)]
pub struct Programs {
    known: HashMap<Process, Rc<Program>>,
    ages: VecDeque<Process>,
}

impl Programs {
    /// Takes a description; it replaces that of an earlier program of the process.
    pub fn push(&mut self, record: &ProgramRecord) {
        let process = (record.tgid, record.start_ns);
        if self.known.insert(process, Rc::new(program(record))).is_none() {
            self.ages.push_back(process);
        }
        while self.ages.len() > MOST {
            self.ages.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }

    /// The program of a process as it is now.
    #[must_use]
    pub fn of(&self, tgid: u32, start_ns: u64) -> Option<Rc<Program>> {
        self.known.get(&(tgid, start_ns)).cloned()
    }
}

fn program(record: &ProgramRecord) -> Program {
    let names = record.steps.iter().map(|step| text(before_nul(step)));
    // Steps from the root of a mount to where it is mounted have no name.
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.reverse();
    let whole = record.bits & bits::WHOLE != 0 && !names.is_empty();
    let args = (record.bits & bits::ARGS != 0).then(|| argv(&record.args, record.args_bytes));
    Program {
        exe: whole.then(|| format!("/{}", names.join("/")).into()),
        argv_truncated: args.as_ref().is_some_and(|(_, cut)| *cut),
        argv: args.map(|(words, _)| words.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tgid: u32, steps: &[&str]) -> ProgramRecord {
        let mut record = ProgramRecord::zeroed();
        (record.tgid, record.start_ns) = (tgid, 5);
        record.bits = bits::WHOLE | bits::ARGS;
        for (room, step) in record.steps.iter_mut().zip(steps) {
            room[..step.len()].copy_from_slice(step.as_bytes());
        }
        record.args_bytes = 6;
        record.args[..6].copy_from_slice(b"ls\0/a\0");
        record
    }

    #[test]
    fn a_path_goes_from_the_root_to_the_file() {
        let mut programs = Programs::default();
        programs.push(&record(7, &["ls", "bin", "", "usr"]));
        let known = programs.of(7, 5).unwrap();
        assert_eq!(known.exe.as_deref(), Some("/usr/bin/ls"));
        assert_eq!(known.argv.as_deref(), Some(&["ls".to_owned(), "/a".to_owned()][..]));
        assert_eq!(programs.of(7, 6), None, "another process with that id");
    }

    #[test]
    fn what_was_not_read_is_absent_and_what_is_cut_says_so() {
        let mut cut = record(7, &["ls", "bin"]);
        cut.bits = bits::ARGS;
        cut.args_bytes = 5000;
        let known = program(&cut);
        assert_eq!((known.exe, known.argv_truncated), (None, true));
        cut.bits = bits::WHOLE;
        assert_eq!(program(&cut).argv, None);
    }

    #[test]
    fn a_later_program_replaces_an_earlier_one_and_the_oldest_process_goes() {
        let mut programs = Programs::default();
        programs.push(&record(0, &["sh", "bin"]));
        let before = programs.of(0, 5).unwrap();
        programs.push(&record(0, &["ls", "bin"]));
        assert_eq!(programs.of(0, 5).unwrap().exe.as_deref(), Some("/bin/ls"));
        assert_eq!(before.exe.as_deref(), Some("/bin/sh"), "an attempt keeps what was then");
        for tgid in 1..=u32::try_from(MOST).unwrap() {
            programs.push(&record(tgid, &["a"]));
        }
        assert_eq!((programs.known.len(), programs.of(0, 5)), (MOST, None));
    }
}
