//! Scenarios that succeed and make processes.

use std::{
    ffi::{CString, c_char, c_int},
    iter,
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
    ptr,
    sync::LazyLock,
};

use crate::{
    call::{Call, Note, Outcome, Skip, attempt, finish, helper, in_child, judge, libc_fork, timed},
    host, journal,
    raw::{self, ChildCall, Clone3Size, CloneArgs, flag},
    sys::{self, Errno},
};

/// Bytes touched by the parent of a fork that is slow on purpose.
const BIG_BYTES: usize = 256 << 20;

/// Forks made under a flood of signals.
const RESTART_FORKS: usize = 300;

/// A stack for a child that never uses it; a signal's frame fits.
static STACK: LazyLock<Vec<u128>> = LazyLock::new(|| vec![0; 4096]);

/// Makes a clone with these flags; the child exits at once.
fn clone_once(flags: u64) {
    attempt(&Call::clone(flags), || raw::clone(flags));
}

/// As [`clone_once`], by clone3.
fn clone3_once(args: &CloneArgs<'_>, size: Clone3Size) {
    attempt(&Call::clone3(args), || raw::clone3(args, size));
}

/// Forks in libc, from a child of one scenario or from the scenario itself.
fn fork_in_libc(body: impl FnOnce() -> Result<(), Errno>) -> Outcome {
    finish(in_child(&Call::libc_fork(), true, libc_fork, body))
}

/// As [`fork_in_libc`], for the body of a child.
fn fork_deeper(body: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let tid = in_child(&Call::libc_fork(), true, libc_fork, body).tid()?;
    sys::wait(tid).map(drop)
}

pub(crate) fn fork_libc() -> Outcome {
    fork_in_libc(|| Ok(()))
}

pub(crate) fn fork_raw() -> Outcome {
    attempt(&Call::fork(), raw::fork);
    Ok(())
}

pub(crate) fn vfork() -> Outcome {
    attempt(&Call::vfork(), || raw::vfork(&[]));
    Ok(())
}

/// A program that does nothing, with its arguments.
struct Program {
    path: CString,
    words: Vec<CString>,
}

impl Program {
    /// `/bin/true`; forker itself where a small guest has none.
    fn find() -> Result<Self, Skip> {
        let own = std::env::current_exe().map_err(|error| Skip(format!("own path: {error}")))?;
        let common = Path::new("/bin/true");
        let path = if common.exists() { common } else { &own };
        let bytes = path.as_os_str().as_encoded_bytes();
        let path = CString::new(bytes).map_err(|error| Skip(format!("own path: {error}")))?;
        Ok(Self { words: vec![path.clone(), c"true".to_owned()], path })
    }

    /// The NULL-ended vector of arguments; lives no longer than the words.
    fn argv(&self) -> Vec<*mut c_char> {
        let words = self.words.iter().map(|word| word.as_ptr().cast_mut());
        words.chain(iter::once(ptr::null_mut())).collect()
    }
}

pub(crate) fn vfork_exec() -> Outcome {
    let program = Program::find()?;
    let (argv, envp) = (program.argv(), [ptr::null_mut()]);
    let exec = ChildCall::exec(program.path.as_ptr(), argv.as_ptr(), envp.as_ptr());
    finish(attempt(&Call::vfork(), || raw::vfork(&[exec, ChildCall::exit(127)])))
}

pub(crate) fn posix_spawn() -> Outcome {
    let program = Program::find()?;
    let (argv, envp) = (program.argv(), [ptr::null_mut()]);
    let (path, none) = (program.path.as_ptr(), ptr::null());
    let spawn = || {
        let mut child = 0;
        // SAFETY: the path and both vectors are NUL- and NULL-ended and live through the call.
        let errno = unsafe {
            libc::posix_spawn(&raw mut child, path, none, none.cast(), argv.as_ptr(), envp.as_ptr())
        };
        if errno == 0 { child } else { -errno }
    };
    finish(attempt(&Call::libc_spawn(), spawn))
}

pub(crate) fn clone_raw() -> Outcome {
    clone_once(flag::SIGCHLD);
    Ok(())
}

pub(crate) fn clone_parent() -> Outcome {
    helper(|| {
        clone_once(flag::PARENT | flag::SIGCHLD);
        Ok(())
    })
}

pub(crate) fn clone_files_fs() -> Outcome {
    clone_once(flag::FILES | flag::FS | flag::SIGCHLD);
    Ok(())
}

/// A stack that a child gets and does not touch.
pub(crate) fn stack() -> &'static [u128] {
    &STACK
}

pub(crate) fn clone_vm() -> Outcome {
    let flags = flag::VM | flag::SIGHAND | flag::SIGCHLD;
    attempt(&Call::clone(flags), || raw::clone_on_stack(flags, stack()));
    Ok(())
}

pub(crate) fn clone_vfork() -> Outcome {
    clone_once(flag::VM | flag::VFORK | flag::SIGCHLD);
    Ok(())
}

pub(crate) fn clone_untraced_exit0() -> Outcome {
    clone_once(flag::UNTRACED);
    Ok(())
}

pub(crate) fn clone3_64() -> Outcome {
    clone3_once(&CloneArgs::new(0), Clone3Size::V0);
    Ok(())
}

pub(crate) fn clone3_88() -> Outcome {
    clone3_once(&CloneArgs::new(0), Clone3Size::V2);
    Ok(())
}

pub(crate) fn clone3_pidfd() -> Outcome {
    let mut fd: c_int = -1;
    clone3_once(&CloneArgs::new(flag::PIDFD).pidfd(&mut fd), Clone3Size::V2);
    if fd >= 0 {
        // SAFETY: the kernel has just opened it for us, and nobody else closes it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(())
}

pub(crate) fn clone3_clear_sighand() -> Outcome {
    clone3_once(&CloneArgs::new(flag::CLEAR_SIGHAND), Clone3Size::V2);
    Ok(())
}

pub(crate) fn nested() -> Outcome {
    fork_in_libc(|| fork_deeper(|| fork_deeper(|| Ok(()))))
}

pub(crate) fn double_fork() -> Outcome {
    fork_in_libc(|| {
        // Not to be killed with its parent: to outlive it is what it is for.
        in_child(&Call::libc_fork(), false, libc_fork, || {
            sys::sleep_ms(5);
            Ok(())
        });
        Ok(())
    })
}

pub(crate) fn newpid() -> Outcome {
    host::require_admin()?;
    clone_once(flag::NEWPID | flag::SIGCHLD);
    Ok(())
}

pub(crate) fn in_pidns() -> Outcome {
    host::require_admin()?;
    let flags = flag::NEWPID | flag::SIGCHLD;
    let call = Call::clone(flags).note(Note::Helper);
    finish(in_child(&call, true, || raw::clone_returning(flags), fork_in_own_pidns))
}

/// Forks in a process that does not know its host's numbers; /proc, mounted outside, does.
fn fork_in_own_pidns() -> Result<(), Errno> {
    let host_tid = host::tid_in_proc();
    let (ret, times) = timed(|| raw::clone_returning(flag::SIGCHLD));
    match ret {
        0 => {
            journal::leave_host_tid(host::tid_in_proc());
            sys::exit_now(0);
        }
        1.. => sys::reap(ret),
        _ => {}
    }
    let call = Call::clone(flag::SIGCHLD).note(Note::OwnPidNamespace);
    journal::write_with_host_tid(&call, times, ret, host_tid);
    Ok(())
}

pub(crate) fn big_parent() -> Outcome {
    let touched = vec![1_u8; BIG_BYTES];
    let forked = fork_libc();
    drop(std::hint::black_box(touched));
    forked
}

extern "C" fn ignore(_signal: c_int) {}

pub(crate) fn restart() -> Outcome {
    let handler = ignore as *const () as libc::sighandler_t;
    // SAFETY: `ignore` does nothing.
    let old = unsafe { sys::handle(libc::SIGUSR1, handler, libc::SA_RESTART) };
    let _old = old.map_err(|errno| Skip::step("handle SIGUSR1", errno))?;
    let child = in_child(&Call::libc_fork().note(Note::Helper), true, libc_fork, || {
        for _ in 0..RESTART_FORKS {
            let made = attempt(&Call::clone(flag::SIGCHLD), || raw::clone(flag::SIGCHLD));
            sys::wait(made.tid()?)?;
        }
        Ok(())
    });
    match child.tid() {
        Ok(tid) => flood(tid),
        Err(_) => finish(child),
    }
}

/// Signals a child until it has ended. The pauses differ, so that some signals come just when a
/// fork has begun, and the child gets on between them.
fn flood(child: c_int) -> Outcome {
    for pause_us in (0..32).cycle() {
        match sys::try_wait(child, libc::WNOHANG) {
            Ok(None) => {}
            Ok(Some(end)) => return judge(end),
            Err(errno) => return Err(Skip::step("wait for a child", errno)),
        }
        let signal = if sys::stop_signal().is_some() { libc::SIGKILL } else { libc::SIGUSR1 };
        if let Err(errno) = sys::kill(child, signal) {
            return Err(Skip::step("signal a child", errno));
        }
        let until = sys::now_ns() + pause_us * 1_000;
        while sys::now_ns() < until {
            std::hint::spin_loop();
        }
    }
    Ok(())
}
