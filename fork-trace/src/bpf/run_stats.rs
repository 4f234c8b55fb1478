//! How often each program ran and how long that took, for whoever measures what tracing costs. The kernel
//! counts it only while the sysctl `kernel.bpf_stats_enabled` is 1.

use std::os::fd::RawFd;

use crate::{bpf::skipped_runs::value, host::descriptors};

/// Says in the log what the kernel counted of each program. `programs` are names and descriptors.
///
/// KERNEL: kernel/bpf/syscall.c `bpf_prog_show_fdinfo`.
pub(super) fn log<'a>(programs: impl Iterator<Item = (&'a str, RawFd)>) {
    for (name, fd) in programs {
        let Ok(info) = descriptors::info(fd) else { continue };
        let counted = |field| value::<u64>(&info, field).filter(|count| *count > 0);
        let (runs, run_time_ns) = (counted("run_cnt"), counted("run_time_ns"));
        if let (Some(runs), Some(run_time_ns)) = (runs, run_time_ns) {
            log::info!("program {name} ran {runs} times for {run_time_ns} ns");
        }
    }
}
