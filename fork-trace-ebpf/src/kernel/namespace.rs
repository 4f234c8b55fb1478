//! A task's place among the pid namespaces, and its ids as user space sees them.

use aya_ebpf::Global;
use fork_trace_common::settings::ABSENT;

use super::{
    offsets::{PID_NS_INUM, PID_NUMBERS, TASK_TGID, TASK_THREAD_PID, UPID_NS, UPID_SIZE},
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
        // A task above that level has no id there.
        if task.pid_level()? < level || task.pid_namespace_at(level)? != PROC_NS.load() {
            return None;
        }
        task.process_nr_at(level)
    }

    /// The number of the pid namespace at nesting depth `level`, among those around the task's own.
    ///
    /// KERNEL: include/linux/pid.h `struct upid`; the number is what `/proc/PID/ns/pid` shows.
    #[inline(always)]
    pub(crate) fn pid_namespace_at(self, level: u32) -> Option<u32> {
        // KERNEL: include/linux/pid_namespace.h MAX_PID_NS_LEVEL.
        const MAX_PID_NS_LEVEL: u32 = 32;
        if level > MAX_PID_NS_LEVEL || UPID_NS.load() == ABSENT || PID_NS_INUM.load() == ABSENT {
            return None;
        }
        let pid = Ptr::at(self.0.read_by_helper(TASK_THREAD_PID.load())?);
        let at = PID_NUMBERS.load() + level * UPID_SIZE.load() + UPID_NS.load();
        Ptr::at(pid.read_by_helper(at)?).read_by_helper(PID_NS_INUM.load())
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
