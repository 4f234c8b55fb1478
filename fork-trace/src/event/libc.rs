//! The C library around an attempt, as the `fork` line has it with `--libc`.

use std::sync::Arc;

use fork_trace_common::stage::{Row, Side, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::values::Name;

/// The wrapper of the C library in which the attempt was made: its own time, before the system call
/// and after it; or the reason why none was seen. All times are elapsed time: what a thread stood still for, a lock or a CPU, is part of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Libc {
    /// The file that holds the wrapper; absent where the kernel does not tell it (before 5.15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// The wrapper: `fork`, `vfork`, `posix_spawn`, `pthread_create` and the like; absent where none was
    /// seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Name>,
    /// From the wrapper's entry to the system call's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare_ns: Option<u64>,
    /// From the moment when the caller ran in user space again to the wrapper's return; absent where
    /// that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_ns: Option<u64>,
    /// From the child's first moment in user space to its return from the wrapper; absent where that
    /// was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_ns: Option<u64>,
    /// Its parts, as far as the library's symbols tell where they are; the caller's, then the child's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<LibcStage>,
    /// The handlers that the program has registered with `pthread_atfork` and that `fork` runs, in the order in
    /// which they run: those of which it was seen that they were registered, or that ran with a probe on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<LibcHandler>,
    /// Why no wrapper was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Unseen>,
}

/// Why no wrapper of the C library was seen around an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unseen {
    /// The program maps a library that is probed, and made the system call itself; or it had entered the
    /// wrapper before tracing began.
    NotByWrapper,
    /// The program maps no C library: it is static, or has a runtime of its own, as Go has.
    NoLibrary,
    /// The program maps a C library that is not probed.
    NotProbed,
    /// The program's C library could not be looked at: the program was gone, or may not be looked into.
    Unknown,
}

impl Unseen {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotByWrapper => {
                "the program made the system call itself, past the wrappers of its C library"
            }
            Self::NoLibrary => {
                "the program maps no C library: it is static, or has a runtime of its own as Go has"
            }
            Self::NotProbed => {
                "the program's C library is not probed; `--libc=PATH` names one, and -v tells why \
                 one cannot be"
            }
            Self::Unknown => {
                "the program's C library could not be looked at: the program was gone, or may not be \
                 looked into"
            }
        }
    }
}

/// When a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// In the caller, before the call.
    Prepare,
    /// In the caller, after the call.
    Parent,
    /// In the child.
    Child,
}

/// A handler of `pthread_atfork`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibcHandler {
    /// When it runs.
    pub turn: Turn,
    /// The file that it lies in.
    pub module: Arc<str>,
    /// Its address there, as `addr2line` takes it.
    pub offset: u64,
    /// Its name, where the file has symbols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Arc<str>>,
    /// How long it ran; absent where it was not timed (`--stages=all`), or not yet when this fork ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dur_ns: Option<u64>,
}

impl LibcHandler {
    /// Where it is: the file without its folder, the address, and the name.
    #[must_use]
    pub fn place(&self) -> String {
        let file = self.module.rsplit('/').next().unwrap_or(&self.module);
        let name = self.function.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{file}+{:#x}{name}", self.offset)
    }
}

/// When a part of a wrapper runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In the caller, before the call.
    Before,
    /// It holds the call itself.
    Call,
    /// In the caller, after the call.
    After,
    /// In the child.
    Child,
}

impl When {
    /// Which handlers run then.
    #[must_use]
    pub const fn turn(self) -> Option<Turn> {
        match self {
            Self::Before => Some(Turn::Prepare),
            Self::Call => None,
            Self::After => Some(Turn::Parent),
            Self::Child => Some(Turn::Child),
        }
    }
}

impl Libc {
    /// Its parts that run then, in order.
    pub fn parts(&self, when: When) -> impl Iterator<Item = &LibcStage> {
        self.stages.iter().filter(move |part| self.when(part) == Some(when))
    }

    /// The handlers that run then.
    pub fn handlers_of(&self, turn: Turn) -> impl Iterator<Item = &LibcHandler> {
        self.handlers.iter().filter(move |handler| handler.turn == turn)
    }

    fn when(&self, part: &LibcStage) -> Option<When> {
        let row = Row::named(&part.name)?;
        Some(match row.side {
            Side::ChildLibc => When::Child,
            _ if row.stage == Stage::LibcSyscall => When::Call,
            _ if self.prepare_ns.is_none_or(|prepare_ns| part.start_ns < prepare_ns) => {
                When::Before
            }
            _ => When::After,
        })
    }
}

impl LibcStage {
    /// Whose handlers the part runs, if it is there for that.
    #[must_use]
    pub fn runs(&self) -> Option<Turn> {
        match Row::named(&self.name)?.stage {
            Stage::RunPreforkHandlers => Some(Turn::Prepare),
            Stage::RunPostforkHandlers => Some(Turn::Parent),
            Stage::ChildHandlers => Some(Turn::Child),
            _ => None,
        }
    }
}

/// A part of a wrapper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LibcStage {
    /// Its name, which says whether it is the caller's or the child's.
    pub name: Name,
    /// When it began: counted from the wrapper's entry, or for the child from its first moment in user
    /// space.
    pub start_ns: u64,
    /// How long it took.
    pub dur_ns: u64,
}
