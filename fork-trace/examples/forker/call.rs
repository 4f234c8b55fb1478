//! One fork attempt: what is asked of the kernel, timed, made and written to the journal.
//!
//! In: a [`Call`] that says what the closure beside it will do. Out: who the caller is afterwards.
//! [`in_child`] adds a Rust body for the child. Knows no scenario.

use std::ffi::c_int;

use crate::{
    journal,
    raw::{CloneArgs, flag},
    sys::{self, End, Errno},
};

/// Why a scenario could not be done on this host.
pub(crate) struct Skip(pub(crate) String);

/// What a scenario returns; its attempts are in the journal.
pub(crate) type Outcome = Result<(), Skip>;

impl Skip {
    /// A failed step and its errno.
    pub(crate) fn step(what: &str, errno: Errno) -> Self {
        Self(format!("{what}: {}", std::io::Error::from_raw_os_error(errno)))
    }
}

/// The system call that makes the task.
#[derive(Clone, Copy)]
pub(crate) enum Syscall {
    Fork,
    Vfork,
    Clone,
    Clone3,
}

impl Syscall {
    pub(crate) const ALL: [Self; 4] = [Self::Fork, Self::Vfork, Self::Clone, Self::Clone3];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Vfork => "vfork",
            Self::Clone => "clone",
            Self::Clone3 => "clone3",
        }
    }
}

/// What a reader of an attempt has to know besides.
#[derive(Clone, Copy)]
pub(crate) enum Note {
    None,
    Helper,
    OwnPidNamespace,
    FlagsUnknown,
    TailNotZero,
    BeforeSyscall,
    Int80,
}

impl Note {
    pub(crate) const ALL: [Self; 7] = [
        Self::None,
        Self::Helper,
        Self::OwnPidNamespace,
        Self::FlagsUnknown,
        Self::TailNotZero,
        Self::BeforeSyscall,
        Self::Int80,
    ];

    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Helper => Some("helper: the process the scenario runs in"),
            Self::OwnPidNamespace => Some("ret is in its own pid namespace"),
            Self::FlagsUnknown => Some("flags unknown: the kernel cannot read the struct"),
            Self::TailNotZero => Some("the bytes after the known struct are not zero"),
            Self::BeforeSyscall => Some("refused before the system call ran"),
            Self::Int80 => Some("i386 call by int 0x80 in a 64 bit process"),
        }
    }
}

/// What one attempt asks for.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) syscall: Syscall,
    /// As the caller passes them: for clone with the exit signal in the low byte.
    pub(crate) flags: u64,
    pub(crate) exit_signal: u64,
    /// The times are those of a libc function around the system call.
    pub(crate) in_libc: bool,
    pub(crate) note: Note,
    /// The errno this should fail with, 0 for none.
    pub(crate) expected: Errno,
    /// Why: the kind of cause, and the rule that is broken; empty where there is none.
    pub(crate) cause: &'static str,
    pub(crate) rule: &'static str,
}

impl Call {
    const fn new(syscall: Syscall, flags: u64, exit_signal: u64) -> Self {
        Self {
            syscall,
            flags,
            exit_signal,
            in_libc: false,
            note: Note::None,
            expected: 0,
            cause: "",
            rule: "",
        }
    }

    /// fork: the kernel makes of it a clone with SIGCHLD.
    pub(crate) const fn fork() -> Self {
        Self::new(Syscall::Fork, flag::SIGCHLD, flag::SIGCHLD)
    }

    /// vfork: the kernel makes of it a clone with VM, VFORK and SIGCHLD.
    pub(crate) const fn vfork() -> Self {
        Self::new(Syscall::Vfork, flag::VM | flag::VFORK | flag::SIGCHLD, flag::SIGCHLD)
    }

    /// clone with these flags, exit signal included.
    pub(crate) const fn clone(flags: u64) -> Self {
        Self::new(Syscall::Clone, flags, flags & 0xff)
    }

    /// clone3 with this struct.
    pub(crate) fn clone3(args: &CloneArgs<'_>) -> Self {
        Self::new(Syscall::Clone3, args.flags, args.exit_signal)
    }

    /// clone3 with a struct that has these flags and this exit signal.
    pub(crate) const fn words(flags: u64, exit_signal: u64) -> Self {
        Self::new(Syscall::Clone3, flags, exit_signal)
    }

    /// libc's `fork`.
    pub(crate) const fn libc_fork() -> Self {
        let call = if cfg!(target_env = "musl") { Self::fork() } else { Self::clone(0x120_0011) };
        Self { in_libc: true, ..call }
    }

    /// libc's `pthread_create`.
    pub(crate) fn libc_thread() -> Self {
        let call = match glibc_minor() {
            None => Self::clone(0x7d_0f00), // musl
            Some(..34) => Self::clone(flag::PTHREAD),
            Some(_) => Self::new(Syscall::Clone3, flag::PTHREAD, 0),
        };
        Self { in_libc: true, ..call }
    }

    /// libc's `posix_spawn`.
    pub(crate) fn libc_spawn() -> Self {
        let shared = flag::VM | flag::VFORK;
        let call = match glibc_minor() {
            None | Some(..34) => Self::clone(shared | flag::SIGCHLD),
            Some(34..38) => Self::new(Syscall::Clone3, shared, flag::SIGCHLD),
            Some(_) => Self::new(Syscall::Clone3, shared | flag::CLEAR_SIGHAND, flag::SIGCHLD),
        };
        Self { in_libc: true, ..call }
    }

    /// The same call, with a note.
    pub(crate) const fn note(self, note: Note) -> Self {
        Self { note, ..self }
    }

    /// The same call, that should fail.
    pub(crate) const fn fails(self, expected: Errno) -> Self {
        Self { expected, ..self }
    }

    /// The same call, with the reason for which it should fail.
    pub(crate) const fn because(self, cause: &'static str, rule: &'static str) -> Self {
        Self { cause, rule, ..self }
    }
}

/// The x in glibc 2.x; None with another libc.
#[cfg(target_env = "gnu")]
fn glibc_minor() -> Option<u32> {
    // SAFETY: always succeeds.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: a static string, ended by a NUL.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    version.to_str().ok()?.split('.').nth(1)?.parse().ok()
}

/// The x in glibc 2.x; None with another libc.
#[cfg(not(target_env = "gnu"))]
fn glibc_minor() -> Option<u32> {
    None
}

/// Who goes on after an attempt.
#[derive(Clone, Copy)]
pub(crate) enum After {
    /// The new task itself.
    Child,
    /// The caller, with the child's tid as it sees it.
    Parent(c_int),
    /// The caller, refused.
    Refused(Errno),
}

impl After {
    /// The child's tid, for a caller that needs one.
    pub(crate) fn tid(self) -> Result<c_int, Errno> {
        match self {
            Self::Parent(tid) => Ok(tid),
            Self::Refused(errno) => Err(errno),
            Self::Child => Err(0),
        }
    }
}

/// When an attempt began and ended.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

/// Runs something and takes its times.
pub(crate) fn timed<T>(make: impl FnOnce() -> T) -> (T, Times) {
    let start_ns = sys::now_ns();
    let made = make();
    let end_ns = sys::now_ns();
    (made, Times { start_ns, end_ns })
}

/// Makes the attempt and records it in the caller. `make` returns what the kernel does: the child's
/// tid, or the negated errno, or 0 in the child.
pub(crate) fn attempt(call: &Call, make: impl FnOnce() -> c_int) -> After {
    let (ret, times) = timed(make);
    match ret {
        0 => After::Child,
        _ => {
            journal::write(call, times, ret);
            if ret < 0 { After::Refused(-ret) } else { After::Parent(ret) }
        }
    }
}

/// libc's `fork`, returning as the kernel does.
pub(crate) fn libc_fork() -> c_int {
    // SAFETY: the child of a process with other threads goes on only to exit.
    let ret = unsafe { libc::fork() };
    if ret == -1 { -sys::errno() } else { ret }
}

/// Ends the process even if a panic would carry a child out of its body into main's code.
struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        sys::exit_now(libc::EIO);
    }
}

/// A child that has a body in Rust: made by `make` and recorded, it runs `body` and exits with its
/// errno. `dies` says whether it is killed when this thread ends.
pub(crate) fn in_child(
    call: &Call,
    dies: bool,
    make: impl FnOnce() -> c_int,
    body: impl FnOnce() -> Result<(), Errno>,
) -> After {
    let parent = sys::tgid();
    let after = attempt(call, make);
    if let After::Child = after {
        let _guard = ExitOnDrop;
        if dies {
            sys::die_with(parent);
        }
        sys::exit_now(body().err().unwrap_or(0));
    }
    after
}

/// Waits for a child of [`in_child`].
pub(crate) fn finish(child: After) -> Outcome {
    let end = child.tid().and_then(sys::wait);
    end.map_err(|errno| Skip::step("fork and wait for a child", errno)).and_then(judge)
}

/// What went wrong in a child's body is the reason to skip.
pub(crate) fn judge(end: End) -> Outcome {
    match end {
        End::Exit(0) => Ok(()),
        End::Exit(errno) => Err(Skip::step("a step in a child", errno)),
        End::Signal(signal) => Err(Skip(format!("signal {signal} killed a child"))),
    }
}

/// Runs `body` in a child made by libc's fork and waits for it.
pub(crate) fn helper(body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    finish(in_child(&Call::libc_fork().note(Note::Helper), true, libc_fork, body))
}
