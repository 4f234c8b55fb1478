//! Makes one fork, one vfork and one thread of this process's own while the kernel side writes down
//! what happens inside them.
//!
//! It owns the forks and the programs that watch them; what is made of the lessons is in `sites`.

use std::{process::Stdio, thread};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

use crate::{
    attach::Observer,
    call_sites::{self, InnerMarks, Observations},
    host::Host,
};

/// Learns where the inner marks are; a mark that cannot be learned says why.
pub fn inner_marks(host: &Host) -> InnerMarks {
    let symbols = match &host.symbols {
        Ok(symbols) => symbols,
        Err(reason) => return call_sites::all_unknown(reason),
    };
    match lessons(host) {
        Ok(lessons) => call_sites::identify(&lessons, symbols),
        Err(error) => call_sites::all_unknown(&format!("learning failed: {error:#}")),
    }
}

fn lessons(host: &Host) -> Result<Observations> {
    let mut lesson = Observer::begin(host)?;
    let mut of = |what: fn() -> Result<()>| {
        lesson.clear()?;
        what()?;
        lesson.take()
    };
    Ok(Observations { fork: of(a_fork)?, vfork: of(a_vfork)?, thread: of(a_thread)? })
}

fn a_fork() -> Result<()> {
    // SAFETY: the child calls nothing but `_exit`.
    match unsafe { fork() }.context("make a fork to learn from")? {
        // SAFETY: ends the child at once, with nothing to clean up.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            waitpid(child, None).context("wait for a fork to learn from")?;
            Ok(())
        }
    }
}

/// std starts programs by `posix_spawn`, which makes a vfork.
fn a_vfork() -> Result<()> {
    let mut program = std::process::Command::new("/proc/self/exe");
    program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program.status().context("make a vfork to learn from")?;
    Ok(())
}

fn a_thread() -> Result<()> {
    let made = thread::Builder::new().spawn(|| ()).context("make a thread to learn from")?;
    // It does nothing that could panic.
    made.join().ok();
    Ok(())
}
