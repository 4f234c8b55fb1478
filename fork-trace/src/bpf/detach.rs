//! What has to be waited for when programs are detached, and who waits.
//!
//! Closing a link of a function probe takes the kernel up to 140 ms, one after the other, and a process
//! ends only when its descriptors are closed. So they are handed to a child that outlives this process
//! and does nothing but end.

use std::{fs::File, io, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    unistd::{ForkResult, fork},
};

use crate::bpf::tracer::Tracer;

/// Waits for the programs that still run, although they are detached: one that lost its CPU has a record to
/// write and a counter to raise. A kernel that does not offer this is not waited for.
///
/// KERNEL: kernel/sched/membarrier.c `membarrier`: this command is `synchronize_rcu`, and programs run as
/// readers of RCU, `kernel/trace/bpf_trace.c` `__bpf_trace_run`.
pub fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers only.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        log::info!("wait for programs that still run: {}", io::Error::last_os_error());
    }
}

/// Leaves what `tracer` has attached to a child; this process should end soon.
///
/// # Errors
/// There can be no pipe or no child; then the tracer is closed here, and slowly.
pub fn leave(tracer: Tracer) -> Result<()> {
    if !tracer.is_slow_to_close() {
        return Ok(());
    }
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.context("open /dev/null")?;
    // Made last, so that it is closed last: the child sees its end when all else of ours is closed.
    let (ours_ended, ours) = io::pipe().context("make a pipe")?;
    // SAFETY: the child makes system calls only, and never returns.
    match unsafe { fork() }.context("make a process that waits for the kernel to detach")? {
        ForkResult::Parent { .. } => {
            // Open until this process ends.
            std::mem::forget((tracer, ours));
            Ok(())
        }
        ForkResult::Child => wait(null.as_raw_fd(), ours.as_raw_fd(), ours_ended.as_raw_fd()),
    }
}

/// Waits for the parent's end apart from its terminal, and ends.
fn wait(null: i32, ours: i32, ours_ended: i32) -> ! {
    let mut byte = 0u8;
    // SAFETY: system calls on descriptors that are open, and one byte that is ours.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "all are plain system calls")]
    unsafe {
        libc::setsid();
        for standard in 0..=2 {
            libc::dup2(null, standard);
        }
        libc::close(ours);
        while libc::read(ours_ended, (&raw mut byte).cast(), 1) < 0
            && *libc::__errno_location() == libc::EINTR
        {}
        libc::_exit(0)
    }
}
