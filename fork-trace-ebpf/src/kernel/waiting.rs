//! A task that leaves its CPU or is given one: the system call that it is in, its state, and what
//! may keep it.

use aya_ebpf::{Global, helpers::generated::bpf_task_pt_regs};
use fork_trace_common::settings::ABSENT;

use super::{
    offsets::{
        CFS_RQ_THROTTLE_COUNT, MM_LOCK_OWNER, REGS_SIZE, TASK_CFS_RQ, TASK_FLAGS,
        TASK_GROUP_PARENT, TASK_GROUP_THROTTLED_NS, TASK_MM, TASK_NIVCSW, TASK_NVCSW,
        TASK_OLD_STATE, TASK_PID, TASK_STACK, TASK_STATE, TASK_TASK_GROUP, TASK_TGID,
        TASK_THROTTLED,
    },
    pointer::{Ptr, field},
    regs::Regs,
    syscall::may_fork,
    task::Task,
};

/// 1 where the kernel has a helper that finds a task's registers.
#[unsafe(no_mangle)]
static TASK_REGS: Global<u8> = Global::new(0);

/// Bytes of a kernel stack before 5.15, where the helper is missing.
/// KERNEL: `arch/x86/include/asm/page_64_types.h` and `arch/arm64/include/asm/memory.h` `THREAD_SIZE`, with
/// pages of 4 KiB and without KASAN.
const STACK_BYTES: u32 = 16 << 10;

/// How many nested task groups are looked at.
const GROUPS: u32 = 8;

impl Task {
    /// If the task is inside one of fork's system calls, or on its way back from one to user space:
    /// what the call returns. As long as the call has not returned, that is `-ENOSYS`.
    ///
    /// The registers that the task had in user space tell it: its last entry into the kernel was
    /// that call. A task that was back in user space has entered the kernel by another call since,
    /// or by an interrupt, for which the kernel sets the number to -1. So nothing has to be kept for
    /// tasks that do not fork, and nothing can become wrong if a program does not run.
    ///
    /// KERNEL: `arch/x86/entry/entry_64.S` `error_entry`; `arch/arm64/kernel/entry.S` `kernel_entry`
    /// (`NO_SYSCALL`).
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint, whose type the verifier knows.
    #[inline(always)]
    pub(crate) unsafe fn in_fork_call(self) -> Option<i64> {
        if TASK_REGS.load() != 0 {
            // SAFETY: the helper takes a task, and returns where its registers lie.
            let regs = unsafe { bpf_task_pt_regs(self.0.address.cast_mut().cast()) };
            let regs = Regs::new(regs as *const _);
            // SAFETY: the verifier knows that the helper returns a `pt_regs`.
            let nr = unsafe { regs.nr() };
            if !may_fork(nr) {
                return None;
            }
            // SAFETY: as above.
            return Some(unsafe { regs.returned() });
        }
        // SAFETY: as the caller promises.
        let stack = unsafe { self.0.load::<u64>(TASK_STACK.load()) };
        let regs = Regs::at(stack + u64::from(STACK_BYTES - REGS_SIZE.load()));
        let (nr, returned) = regs.number_and_return()?;
        may_fork(nr).then_some(returned)
    }

    /// The task's process id and thread id, as `bpf_get_current_pid_tgid` would return them if the
    /// task called it.
    #[inline(always)]
    pub(crate) fn key(self) -> Option<u64> {
        let (tgid, tid) = (field!(self.0, TASK_TGID: u32)?, field!(self.0, TASK_PID: u32)?);
        Some(u64::from(tgid) << 32 | u64::from(tid))
    }

    /// The task's state: 0 means that it is runnable.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        let offset = match TASK_STATE.load() {
            // Up to 5.13 it is a `long`, the lower half of which holds all states.
            ABSENT => TASK_OLD_STATE.load(),
            offset => offset,
        };
        self.0.read_by_helper(offset).unwrap_or_default()
    }

    /// How often the task has left a CPU.
    ///
    /// KERNEL: kernel/sched/core.c `__schedule` counts (`++*switch_count`) before the tracepoint
    /// `sched_switch`: while a task is off its CPU the number stays.
    #[inline(always)]
    pub(crate) fn switches(self) -> Option<u64> {
        Some(field!(self.0, TASK_NVCSW: u64)? + field!(self.0, TASK_NIVCSW: u64)?)
    }

    /// Whether the task is about to end.
    #[inline(always)]
    pub(crate) fn ends(self) -> bool {
        // KERNEL: include/linux/sched.h.
        const PF_EXITING: u32 = 4;
        field!(self.0, TASK_FLAGS: u32).is_none_or(|flags| flags & PF_EXITING != 0)
    }

    /// Whether a CPU quota holds the task back.
    ///
    /// KERNEL: kernel/sched/fair.c: up to 6.17 or so `throttle_cfs_rq` takes a whole group off its
    /// CPU; `tg_throttle_down` counts for each group how many of those around it are held back. Later
    /// `throttle_cfs_rq_work` holds back each task on its way to user space, and marks it; a task in
    /// the kernel runs on.
    #[inline(always)]
    pub(crate) fn throttled(self) -> bool {
        if TASK_THROTTLED.load() != ABSENT {
            let marked: Option<u8> = self.0.read_by_helper(TASK_THROTTLED.load());
            return marked.is_some_and(|marked| marked & 1 != 0);
        }
        let Some(queue) = self.0.by_helper().follow(TASK_CFS_RQ.load()) else { return false };
        field!(queue, CFS_RQ_THROTTLE_COUNT: u32).is_some_and(|count| count != 0)
    }

    /// For how long quotas have held back the tasks of the task's groups so far, all groups and CPUs
    /// together; `None` where the kernel has no quotas, or marks the tasks that they hold back.
    ///
    /// KERNEL: kernel/sched/fair.c `unthrottle_cfs_rq` adds to it when a group may go on.
    #[inline(always)]
    pub(crate) fn throttled_ns(self) -> Option<u64> {
        if TASK_THROTTLED.load() != ABSENT {
            return None;
        }
        let mut group = self.0.by_helper().follow(TASK_TASK_GROUP.load())?;
        let mut sum = field!(group, TASK_GROUP_THROTTLED_NS: u64)?;
        for _ in 0..GROUPS {
            let Some(around) = group.follow(TASK_GROUP_PARENT.load()) else { break };
            sum += field!(around, TASK_GROUP_THROTTLED_NS: u64)?;
            group = around;
        }
        Some(sum)
    }

    /// The thread that has the `mmap_lock` of the task's memory, or 0 where the kernel does not say
    /// which, and whether it only reads; `None` if nobody has it.
    ///
    /// Of several readers it is the one that took the lock last, and it may have let go since. Some
    /// kernels note of readers only that there are any.
    ///
    /// KERNEL: kernel/locking/rwsem.c `rwsem_set_owner`, `rwsem_set_reader_owned`.
    #[inline(always)]
    pub(crate) fn mmap_lock_owner(self) -> Option<(u32, bool)> {
        const READER_OWNED: u64 = 1;
        const FLAGS: u64 = 7;
        let mm = self.0.by_helper().follow(TASK_MM.load())?;
        let owner = field!(mm, MM_LOCK_OWNER: u64)?;
        let reads = owner & READER_OWNED != 0;
        if owner & !FLAGS == 0 {
            return if reads { Some((0, true)) } else { None };
        }
        let tid: u32 = Ptr::at(owner & !FLAGS).read_by_helper(TASK_PID.load())?;
        Some((tid, reads))
    }
}
