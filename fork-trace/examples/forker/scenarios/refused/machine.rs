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
        sys::sleep_ms(STANDS_MS);
        Ok(())
    })
}

/// Memory and swap of this machine together, in bytes.
fn memory_and_swap() -> Result<usize, Errno> {
    let text = fs::read_to_string("/proc/meminfo").map_err(sys::number)?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<usize>().ok()
    };
    let all = kib("MemTotal:").zip(kib("SwapTotal:"));
    all.map(|(memory, swap)| (memory + swap) << 10).ok_or(libc::ENODATA)
}

/// One mapping that is larger than memory and swap. It changes no limit.
pub(crate) fn too_large_a_mapping() -> Outcome {
    let mode = fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    if mode.trim() != "0" {
        return Err(Skip("vm.overcommit_memory is not 0".to_owned()));
    }
    helper(|| {
        memory::promise_twice((memory_and_swap()? / 8 * 5) & !0xfff)?;
        clone_refused(flag::SIGCHLD, Refusal(libc::ENOMEM, "overcommit", ""));
        // As long as a tracer may take to look at the mapping.
        sys::sleep_ms(STANDS_MS);
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
