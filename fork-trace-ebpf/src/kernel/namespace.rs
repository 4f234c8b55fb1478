//! A task's place among the pid namespaces, and its ids as user space sees them.

use aya_ebpf::Global;
use fork_trace_common::settings::ABSENT;

use super::{
    offsets::{
        PID_LEVEL, PID_NS_INUM, PID_NUMBERS, TASK_TGID, TASK_THREAD_PID, UPID_NR, UPID_NS,
        UPID_SIZE,
    },
    pointer::{Ptr, field},
    task::Task,
};

/// How many nested namespaces a walk looks at, from a task's own outwards.
///
/// VERIFIER: each one more costs load time.
pub(crate) const MOST_NESTED: u64 = 8;

/// The level of the pid namespace whose ids user space's `/proc` shows; absent if user space can
/// look up none there.
#[unsafe(no_mangle)]
static PROC_LEVEL: Global<u32> = Global::new(0);
/// The number of that namespace.
#[unsafe(no_mangle)]
static PROC_NS: Global<u32> = Global::new(0);

impl Task {
    /// The id of the task's process as user space's `/proc` shows it; `None` if it shows none. In the
    /// initial pid namespace the process has the id `tgid`.
    #[inline(always)]
    pub(crate) fn proc_pid(self, tgid: u32) -> Option<u32> {
        let level = PROC_LEVEL.load();
        if level == 0 {
            return Some(tgid);
        }
        if level == ABSENT {
            return None;
        }
        let task = self.by_helper();
        if task.pid_namespace_at(level)? != PROC_NS.load() {
            return None;
        }
        task.process_nr_at(level)
    }

    /// What the task is called in the pid namespace at nesting depth `level`: a `struct upid`. `None`
    /// for a task whose own namespace is not that deep.
    ///
    /// KERNEL: include/linux/pid.h `struct pid`: `numbers[level]`, one `upid` for each level. What lies
    /// behind the last one belongs to something else.
    #[inline(always)]
    fn upid_at(self, level: u32) -> Option<Ptr> {
        // VERIFIER: a pointer of known type must not be moved by an amount that is not constant. So
        // this one is read as a plain number.
        let pid = self.0.read_by_helper(TASK_THREAD_PID.load())?;
        let deepest: u32 = Ptr::at(pid).read_by_helper(PID_LEVEL.load())?;
        let numbers = pid.wrapping_add(PID_NUMBERS.load().into());
        let upid = numbers.wrapping_add(u64::from(level) * u64::from(UPID_SIZE.load()));
        (level <= deepest).then_some(Ptr::at(upid))
    }

    /// The number of the pid namespace at nesting depth `level`, among those around the task's own.
    ///
    /// KERNEL: include/linux/pid.h `struct upid`; the number is what `/proc/PID/ns/pid` shows.
    #[inline(always)]
    pub(crate) fn pid_namespace_at(self, level: u32) -> Option<u32> {
        if UPID_NS.load() == ABSENT || PID_NS_INUM.load() == ABSENT {
            return None;
        }
        let ns = self.upid_at(level)?.read_by_helper(UPID_NS.load())?;
        Ptr::at(ns).read_by_helper(PID_NS_INUM.load())
    }

    /// The task's thread id in the pid namespace at nesting depth `level`, among those around its
    /// own.
    #[inline(always)]
    pub(crate) fn nr_at(self, level: u32) -> Option<u32> {
        self.upid_at(level)?.read_by_helper(UPID_NR.load())
    }

    /// The id of the task's process in the pid namespace at nesting depth `level`.
    #[inline(always)]
    pub(crate) fn process_nr_at(self, level: u32) -> Option<u32> {
        self.leader()?.nr_at(level)
    }

    /// The process id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn tgid(self) -> Option<u32> {
        field!(self.0, TASK_TGID: u32)
    }
}
