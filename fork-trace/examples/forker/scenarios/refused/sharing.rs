//! A task that shares root and working directory with one that is inside `execve`.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::PermissionsExt as _,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::why::Refusal;
use crate::{
    attempt::helper,
    call::{Call, Outcome},
    journal,
    sys::{self, Errno, flag, fork, now_ns, timed},
};

/// Refusals that are enough.
const REFUSALS: usize = 20;
/// The longest time it may take until there are so many.
const MOST_NS: u64 = 5_000_000_000;

/// One thread executes a file that is no program, again and again; another one makes tasks meanwhile.
pub(crate) fn with_exec() -> Outcome {
    helper(|| {
        let path = std::env::temp_dir().join(format!("forker-no-program-{}", sys::tgid()));
        fs::write(&path, b"\x7fELF, but no program").map_err(sys::number)?;
        let made = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
        let name =
            CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_nul| libc::EINVAL)?;
        let refused = made.map_err(sys::number).and_then(|()| race(&name));
        fs::remove_file(&path).ok();
        refused
    })
}

fn race(program: &CString) -> Result<(), Errno> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (executes, made) = timed(|| {
            scope.spawn(|| {
                let argv = [program.as_ptr(), ptr::null()];
                while !stop.load(Ordering::Relaxed) {
                    // SAFETY: path and vectors are NUL- and NULL-ended and live through the call.
                    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), argv.as_ptr()) };
                }
                sys::tid()
            })
        });
        let until = now_ns() + MOST_NS;
        let mut refusals = 0;
        while refusals < REFUSALS && now_ns() < until {
            let call = Call::clone(flag::FS | flag::SIGCHLD);
            let (ret, times) = timed(|| fork::clone(call.flags));
            if ret < 0 {
                refusals += 1;
                let why = Refusal(libc::EAGAIN, "sibling-exec", "");
                journal::write(&why.of(call), times, ret);
            } else {
                sys::reap(ret);
                journal::write(&call, times, ret);
            }
        }
        stop.store(true, Ordering::Relaxed);
        journal::write(&Call::libc_thread(), made, executes.join().unwrap_or(0));
        if refusals == 0 { Err(libc::ETIMEDOUT) } else { Ok(()) }
    })
}
