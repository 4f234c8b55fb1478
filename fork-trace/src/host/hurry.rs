//! This process's turn on a CPU: a stop should not wait behind everybody else who wants one.
//!
//! On a host that has much more to do than it can, each process waits for its turn, and a stop takes many.
//! So the rest of this process, a second or so, is run before others. Tracing itself is not: it would take
//! time from what it measures.

use std::iter;

use nix::{
    errno::Errno,
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};

use crate::host::process::numbers;

/// The niceness of a process that goes before others.
const FIRST: i32 = -20;

/// The limit that allows it.
///
/// KERNEL: kernel/sched/syscalls.c `can_nice`: 20 less the niceness, of the process's own limit.
const LIMIT: u64 = 40;

/// Allows [`hurry`] also when capabilities are given up. What is started afterwards would inherit it.
pub fn allow() {
    let allowed = getrlimit(Resource::RLIMIT_NICE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NICE, soft.max(LIMIT), hard.max(LIMIT))
    });
    if let Err(error) = allowed {
        log::info!("a stop has to wait for its turn on a CPU: {error}");
    }
}

/// Lets every thread of this process go before others, where that is allowed.
pub fn hurry() {
    if let Err(error) = be_nice(FIRST) {
        log::info!("go before others: {error}");
    }
}

/// Gives every thread of this process this niceness.
fn be_nice(niceness: i32) -> nix::Result<()> {
    let ids = numbers("/proc/self/task").unwrap_or_default();
    // 0 is the thread that calls, should there be no /proc. One that has ended needs nothing any more.
    iter::once(0).chain(ids).try_for_each(|thread| {
        // SAFETY: the call takes numbers only.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, niceness) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::unistd::Uid;

    use super::*;

    #[test]
    fn every_thread_goes_before_others() {
        if !Uid::effective().is_root() {
            return;
        }
        let niceness = || {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = stat.rsplit_once(')').unwrap().1;
            fields.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = niceness();
        let (told, wait) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            wait.recv().unwrap();
            niceness()
        });
        allow();
        hurry();
        told.send(()).unwrap();
        assert_eq!((niceness(), other.join().unwrap()), (FIRST, FIRST));
        be_nice(before).unwrap();
    }
}
