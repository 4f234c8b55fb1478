//! Signal handlers, and the signals that ask forker to stop.

use std::{
    ffi::c_int,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use super::errno::{Errno, check};

/// The signal that asked forker to stop, 0 for none.
static STOP: AtomicI32 = AtomicI32::new(0);

extern "C" fn ask_to_stop(signal: c_int) {
    STOP.store(signal, Ordering::Relaxed);
}

/// The signal that asked forker to stop, if any has.
pub(crate) fn stop_signal() -> Option<c_int> {
    Some(STOP.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
}

/// The handler that a signal had before; it is put back when this is dropped.
pub(crate) struct OldHandler {
    signal: c_int,
    old: libc::sigaction,
}

impl Drop for OldHandler {
    fn drop(&mut self) {
        // SAFETY: `old` came from the kernel; no answer is asked for.
        unsafe { libc::sigaction(self.signal, &raw const self.old, ptr::null_mut()) };
    }
}

/// Installs a handler by its address.
///
/// # Safety
/// `handler` must be a handler of the kind that `flags` says, and async-signal-safe.
pub(crate) unsafe fn handle(
    signal: c_int,
    handler: libc::sighandler_t,
    flags: c_int,
) -> Result<OldHandler, Errno> {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    let mut old = action;
    // SAFETY: both structs are valid; the caller answers for the handler.
    check(unsafe { libc::sigaction(signal, &raw const action, &raw mut old) })?;
    Ok(OldHandler { signal, old })
}

/// Makes SIGTERM and SIGINT ask forker to stop, for as long as the handles live.
pub(crate) fn stop_on_signals() -> Result<[OldHandler; 2], Errno> {
    let handler = ask_to_stop as *const () as libc::sighandler_t;
    // SAFETY: `ask_to_stop` only stores to an atomic.
    let term = unsafe { handle(libc::SIGTERM, handler, 0) }?;
    // SAFETY: `ask_to_stop` only stores to an atomic.
    let int = unsafe { handle(libc::SIGINT, handler, 0) }?;
    Ok([term, int])
}

/// Makes SIGALRM end this process after so many milliseconds, unless it is handled.
pub(crate) fn alarm_ms(ms: i64) -> Result<(), Errno> {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let after = libc::timeval { tv_sec: 0, tv_usec: ms * 1_000 };
    let timer = libc::itimerval { it_interval: zero, it_value: after };
    // SAFETY: the struct is valid; the old timer is not asked for.
    let ret = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    check(ret).map(drop)
}
