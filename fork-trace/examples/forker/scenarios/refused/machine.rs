//! Limits of the whole machine. They are changed for a moment, and only in a guest, which says that
//! it is one by `FORK_TRACE_EMULATED`. Each is put back, after it stood long enough for a tracer to
//! read.

use std::fs;

use super::why::{Refusal, clone_refused};
use crate::{
    attempt::helper,
    call::{Outcome, Skip},
    sys::{self, Errno, flag, memory},
};

/// How long a limit stands after the refusal.
const STANDS_MS: u64 = 500;

/// Memory that is asked for and not used. The child asks for as much again; together that is more
/// than half of a guest's memory, which is the most that the kernel promises under this limit.
const PROMISED_MIB: usize = 500;

/// A setting under `/proc/sys`, put back when dropped.
struct Setting {
    path: &'static str,
    old: String,
}

impl Setting {
    fn change(path: &'static str, value: &str) -> Result<Self, Errno> {
        let old = fs::read_to_string(path).map_err(sys::number)?;
        fs::write(path, value).map_err(sys::number)?;
        Ok(Self { path, old })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        sys::sleep_ms(STANDS_MS);
        fs::write(self.path, &self.old).ok();
    }
}

fn require_guest() -> Outcome {
    if std::env::var_os("FORK_TRACE_EMULATED").is_some() {
        return Ok(());
    }
    Err(Skip("it would change a limit of the whole machine".to_owned()))
}

pub(crate) fn no_threads() -> Outcome {
    require_guest()?;
    helper(|| {
        let _limit = Setting::change("/proc/sys/kernel/threads-max", "1")?;
        clone_refused(flag::SIGCHLD, Refusal(libc::EAGAIN, "threads-max", ""));
        Ok(())
    })
}

pub(crate) fn no_promises() -> Outcome {
    require_guest()?;
    helper(|| {
        memory::promise(PROMISED_MIB << 20)?;
        let _limit = Setting::change("/proc/sys/vm/overcommit_memory", "2")?;
        clone_refused(flag::SIGCHLD, Refusal(libc::ENOMEM, "overcommit", ""));
        Ok(())
    })
}
