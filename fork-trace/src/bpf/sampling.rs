//! The timers that take samples: one event of the kernel's software clock on each CPU, with the
//! program behind it.
//!
//! The events are opened here and not by aya, so that they are closed in programs that this process
//! starts, and so that they do not come in user space and in an idle CPU's own task, where no fork
//! can be.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{programs::PerfEvent, util::online_cpus};
use fork_trace_common::sample::SAMPLE_PROGRAM;
use nix::libc;

use crate::bpf::{
    errors::{brief, load_error},
    tracer::Tracer,
};

impl Tracer {
    /// Starts a timer on each CPU that is online, which comes `hz` times a second.
    ///
    /// # Errors
    /// The reason why this host has none.
    pub(super) fn sample(&mut self, hz: u32) -> Result<(), String> {
        let started = self.start_timers(hz);
        started.map_err(|error| {
            self.timers.clear();
            log::info!("samples: {error:#}");
            let what = error.to_string();
            let why = brief(&error);
            if what == why { what } else { format!("{what}: {why}") }
        })
    }

    fn start_timers(&mut self, hz: u32) -> Result<()> {
        let program = self.ebpf.program_mut(SAMPLE_PROGRAM);
        let program = program.context("find the program that takes samples in the object")?;
        let program: &mut PerfEvent = program.try_into().context("it is for no perf event")?;
        let load = "load the program that takes samples";
        program.load().map_err(|error| load_error(error).context(load))?;
        let program = program.fd().context(load)?.as_fd().as_raw_fd();
        let cpus = online_cpus().map_err(|(_, error)| anyhow!(error).context("list the CPUs"))?;
        for cpu in cpus {
            let timer = open(cpu, hz).context("open a perf event (perf_event_open)")?;
            start(&timer, program).context("attach a program to a perf event")?;
            self.timers.push(timer);
        }
        log::info!("samples: {hz} a second on {} CPUs", self.timers.len());
        Ok(())
    }

    /// Stops all timers.
    pub fn stop_samples(&mut self) {
        self.timers.clear();
    }
}

/// KERNEL: `include/uapi/linux/perf_event.h` `struct perf_event_attr`, as long as its first version.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// Opens the software clock of one CPU, for all tasks; it does not run yet.
fn open(cpu: u32, hz: u32) -> io::Result<OwnedFd> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
    const DISABLED: u64 = 1;
    const EXCLUDE_USER: u64 = 1 << 4;
    const EXCLUDE_IDLE: u64 = 1 << 7;
    const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;
    const EVERY_TASK: i32 = -1;
    const NO_GROUP: i32 = -1;
    const BYTES: u32 = 64;
    const _: () = assert!(size_of::<Attributes>() == BYTES as usize);
    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size: BYTES,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample_period: 1_000_000_000 / u64::from(hz.max(1)),
        sample_type: 0,
        read_format: 0,
        flags: DISABLED | EXCLUDE_USER | EXCLUDE_IDLE,
        wakeup_events: 0,
        bp_type: 0,
        config1: 0,
    };
    // SAFETY: the kernel reads as many bytes of `attributes` as it says it has.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            EVERY_TASK,
            cpu,
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call has just opened it, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a program behind an event, and lets it run.
fn start(timer: &OwnedFd, program: RawFd) -> io::Result<()> {
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    for (request, argument) in [(PERF_EVENT_IOC_SET_BPF, program), (PERF_EVENT_IOC_ENABLE, 0)] {
        // SAFETY: the descriptor is an event, and both requests take a number.
        if unsafe { libc::ioctl(timer.as_raw_fd(), request, argument) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
