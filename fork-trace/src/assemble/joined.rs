//! An attempt, and everything that was paired with it.

use std::rc::Rc;

use fork_trace_common::{
    flags::CLONE_VM,
    libc::{LibcFunction, LibcRecord},
    record::{ForkRecord, FunctionTimes, StartRecord, bits},
    refusal::RefusalRecord,
    stage::Mark,
    wait::WaitsRecord,
};

use crate::assemble::{decode::Stack, program::Program, samples::Sampled};

/// An attempt, and what came of it beside its record.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The attempt.
    pub record: Box<ForkRecord>,
    /// The functions it passed, where they are probed and were not lost.
    pub functions: Option<Box<FunctionTimes>>,
    /// Its child's start, if it was seen.
    pub start: Option<StartRecord>,
    /// The evidence of its refusal.
    pub refusal: Option<Box<RefusalRecord>>,
    /// The program of its caller.
    pub program: Option<Rc<Program>>,
    /// Where its caller stood still during the attempt.
    pub waits: Option<Box<WaitsRecord>>,
    /// What its caller was doing each time that a timer came, in order.
    pub samples: Sampled,
    /// Its caller's user-space stack, where it was taken and not lost.
    pub stack: Option<Box<Stack>>,
    /// Where its caller stood still after that, before it was in user space, in order.
    pub waits_after: Vec<WaitsRecord>,
    /// Where its child stood still before it was in user space, in order.
    pub child_waits: Vec<WaitsRecord>,
    /// Of a vfork: when its caller's call returned.
    pub returned_ns: Option<u64>,
    /// Its caller is back in user space.
    pub is_back: bool,
    /// Its child is not known to be in user space: it left its CPU on the way, and was not seen to
    /// come back.
    pub child_away: bool,
    /// Some of its waits may be missing, because records of waits were lost.
    pub waits_incomplete: bool,
    /// The wrapper of the C library in which it was made, where those are probed.
    pub libc: Option<Box<LibcRecord>>,
    /// Its child's way out of the same wrapper.
    pub child_libc: Option<Box<LibcRecord>>,
}

impl Joined {
    /// An attempt of which nothing else is known.
    #[must_use]
    pub const fn alone(record: Box<ForkRecord>) -> Self {
        Self {
            record,
            functions: None,
            start: None,
            refusal: None,
            program: None,
            waits: None,
            samples: Sampled { samples: Vec::new(), stride: 0 },
            stack: None,
            waits_after: Vec::new(),
            child_waits: Vec::new(),
            returned_ns: None,
            is_back: false,
            child_away: false,
            waits_incomplete: false,
            libc: None,
            child_libc: None,
        }
    }

    /// Whether the attempt made a task, and its caller is not known to be back in user space.
    #[must_use]
    pub const fn awaits_caller(&self) -> bool {
        self.record.has(bits::CHILD) && self.record.has(bits::ENTERED) && !self.is_back
    }

    /// Whether that is so though its call has returned, and the caller does not wait for a vfork child.
    #[must_use]
    pub fn awaits_return(&self) -> bool {
        let returned = self.record.mark_ns(Mark::SysExit) != 0;
        self.awaits_caller() && returned && !self.record.has(bits::VFORK_WAIT)
    }

    /// Whether the caller is inside a wrapper of the C library from which it has not returned, as far as is
    /// known.
    #[must_use]
    pub const fn awaits_wrapper(&self) -> bool {
        self.record.has(bits::LIBC) && self.libc.is_none()
    }

    /// Whether the child is to return from the wrapper, and has not.
    #[must_use]
    pub fn awaits_wrapper_of_child(&self) -> bool {
        let record = &self.record;
        let wrapper = self.libc.as_ref().and_then(|libc| LibcFunction::from_number(libc.function));
        record.has(bits::LIBC)
            && record.has(bits::CHILD)
            && record.task_flags & CLONE_VM == 0
            && wrapper.is_none_or(LibcFunction::returns)
            && self.child_libc.is_none()
    }
}
