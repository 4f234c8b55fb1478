//! One fork that is held: what keeps it, its own truth, and how it is made in a control group.

use std::{
    ffi::c_int,
    io::{Read as _, Write as _, pipe},
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    call::Skip,
    host::cgroup::Group,
    sys::{
        self, Errno,
        fork::libc_fork,
        trouble::{self, cpu_ns},
    },
};

/// What keeps the fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trouble {
    /// Nothing: the fork copies much memory.
    None,
    /// A `SCHED_IDLE` caller beside busy tasks on its only CPU.
    Idle,
    /// A CPU quota of its control group.
    Quota,
    /// Another thread of its process that populates memory.
    MmapLock,
    /// A userfaultfd monitor that reads the event of the fork late.
    Userfaultfd,
    /// A tracer that is slow to answer.
    Ptrace,
    /// A vfork child that takes its time.
    Vfork,
    /// Its control group is frozen during the call.
    Freezer,
    /// A signal stops it during the call.
    SignalStop,
    /// A page of a slow disk that the kernel has to read for the call.
    PageIo,
    /// A control group of memory that is full of pages that have to be written first.
    Reclaim,
    /// Busy tasks of the same priority, more than there are CPUs: forks of different sizes.
    Hogs,
}

/// The truth about one fork.
#[derive(Debug, Serialize)]
pub(crate) struct Truth {
    pub(crate) r#type: &'static str,
    pub(crate) trouble: Trouble,
    pub(crate) parent_tid: c_int,
    pub(crate) child: c_int,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// CPU time of the calling thread between the two.
    pub(crate) cpu_ns: u64,
    /// For how long the calling thread was runnable meanwhile without a CPU, where the kernel tells.
    pub(crate) delay_ns: Option<u64>,
    /// How often the calling thread left its CPU meanwhile, where that was counted.
    pub(crate) switches: Option<i64>,
}

/// The truth around `make`, which returns the child's id.
pub(crate) fn truth(trouble: Trouble, make: impl FnOnce() -> c_int) -> Result<Truth, Errno> {
    let delay_before = trouble::delay_ns();
    let switches_before = trouble::switches();
    let cpu_before = cpu_ns();
    let start_ns = sys::now_ns();
    let child = make();
    if child == 0 {
        sys::exit_now(0);
    }
    let end_ns = sys::now_ns();
    let switches = Some(trouble::switches() - switches_before);
    let cpu_ns = cpu_ns() - cpu_before;
    let delay_ns = trouble::delay_ns().zip(delay_before).map(|(after, before)| after - before);
    if child < 0 {
        return Err(-child);
    }
    sys::reap(child);
    let parent_tid = sys::tid();
    Ok(Truth {
        r#type: "wait",
        trouble,
        parent_tid,
        child,
        start_ns,
        end_ns,
        cpu_ns,
        delay_ns,
        switches,
    })
}

/// How long a fork was off its CPU.
pub(crate) fn off_ns(truth: &Truth) -> u64 {
    (truth.end_ns - truth.start_ns).saturating_sub(truth.cpu_ns)
}

/// How many forks are made at most until one is held.
pub(crate) const TIMES: usize = 8;

/// Makes forks until one is as it is wanted, or `times` of them.
pub(crate) fn until<T, E>(
    times: usize,
    is_wanted: impl Fn(&T) -> bool,
    mut make: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..times {
        let made = make()?;
        if is_wanted(&made) {
            return Ok(made);
        }
    }
    make()
}

/// Makes the fork in a child process, which reports through a pipe: the child is put into a group
/// that goes away with it.
pub(crate) fn in_group(
    trouble: Trouble,
    group: &Group,
    beside: impl FnOnce() -> Result<(), Errno>,
    make: impl FnOnce() -> Result<Truth, Errno>,
) -> Result<Truth, Skip> {
    let skip = |errno| Skip::step("make a fork in a control group", errno);
    let (mut reader, mut writer) = pipe().map_err(sys::number).map_err(skip)?;
    let parent = sys::tgid();
    let child = libc_fork();
    if child == 0 {
        sys::die_with(parent);
        drop(reader);
        let made = group.enter().and_then(|()| {
            // The fork is next.
            drop(writer.write_all(b"."));
            make()
        });
        let line = match made {
            Ok(truth) => {
                format!(
                    "{} {} {} {} {}",
                    truth.parent_tid, truth.child, truth.start_ns, truth.end_ns, truth.cpu_ns
                )
            }
            Err(errno) => format!("errno {errno}"),
        };
        drop(writer.write_all(line.as_bytes()));
        sys::exit_now(0);
    }
    drop(writer);
    // Without a byte the child has given up, and says nothing.
    let begins = reader.read_exact(&mut [0]).is_ok();
    if begins {
        beside().map_err(skip)?;
    }
    let mut line = String::new();
    reader.read_to_string(&mut line).map_err(sys::number).map_err(skip)?;
    sys::reap(child);
    let words: Vec<_> = line.split(' ').map(|word| word.parse::<u64>()).collect();
    let [Ok(tid), Ok(made), Ok(start_ns), Ok(end_ns), Ok(cpu_ns)] = words.as_slice() else {
        return Err(Skip(format!("the fork in a control group: {line}")));
    };
    let id = |id: u64| c_int::try_from(id).unwrap_or(0);
    Ok(Truth {
        r#type: "wait",
        trouble,
        parent_tid: id(*tid),
        child: id(*made),
        start_ns: *start_ns,
        end_ns: *end_ns,
        cpu_ns: *cpu_ns,
        delay_ns: None,
        switches: None,
    })
}
