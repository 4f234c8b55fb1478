//! Threads.

use std::{
    ffi::c_int,
    io,
    sync::{PoisonError, RwLock},
    thread::{self, Builder, ScopedJoinHandle},
};

use crate::{
    attempt::{After, attempt},
    call::{Call, Outcome},
    journal,
    sys::{self, Times, fork::libc_fork, timed},
};

/// Threads that are alive at the same time.
const MANY: usize = 8;

pub(crate) fn one() -> Outcome {
    thread::scope(|scope| {
        let (made, times) = timed(|| Builder::new().spawn_scoped(scope, sys::tid));
        join(made, times);
    });
    Ok(())
}

pub(crate) fn many() -> Outcome {
    let gate = RwLock::new(());
    let fork_once = || {
        drop(gate.read());
        match attempt(&Call::libc_fork(), libc_fork) {
            After::Child => sys::exit_now(0),
            After::Parent(tid) => sys::reap(tid),
            After::Refused(_) => {}
        }
        sys::tid()
    };
    thread::scope(|scope| {
        let shut = gate.write().unwrap_or_else(PoisonError::into_inner);
        let start = |_| timed(|| Builder::new().spawn_scoped(scope, fork_once));
        let started: Vec<_> = (0..MANY).map(start).collect();
        drop(shut);
        for (made, times) in started {
            join(made, times);
        }
    });
    Ok(())
}

/// Writes an attempt down once its thread has told its own tid.
fn join(made: io::Result<ScopedJoinHandle<'_, c_int>>, times: Times) {
    let ret = match made {
        Ok(handle) => handle.join().unwrap_or(0),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EAGAIN),
    };
    journal::write(&Call::libc_thread(), times, ret);
}
