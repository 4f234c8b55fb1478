//! The table of reasons why a fork stands still. This file is data; `waits` decides by it.
//!
//! The first row that fits is the reason. A row fits by what the task was (runnable, blocked,
//! stopped) and by the functions on its kernel stack.

use crate::event::wait::WaitState;

/// How a row is recognised.
#[derive(Clone, Copy, Debug)]
pub enum Sign {
    /// The task was runnable, and its group had used up its CPU quota.
    Throttled,
    /// The task was runnable.
    Runnable,
    /// One of these bits was set in the task's state.
    State(u32),
    /// One of these functions was on the stack.
    OnStack(&'static [&'static str]),
    /// One of these functions is the one that gave up its CPU.
    Innermost(&'static [&'static str]),
    /// One of these functions takes the lock that is waited for.
    Taker(&'static [&'static str]),
    /// One of the first functions was on the stack, and one of the second.
    Both(&'static [&'static str], &'static [&'static str]),
}

/// One reason.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// A stable name.
    pub name: &'static str,
    /// By what it is recognised: one of these.
    pub signs: &'static [Sign],
    /// What the task is meanwhile.
    pub state: WaitState,
    /// The lock that is waited for, where the reason is one.
    pub lock: Option<&'static str>,
    /// After "waiting for" or on its own: what a text says.
    pub text: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What brings it about.
    pub cause: &'static str,
    /// What helps.
    pub cure: &'static str,
}

/// KERNEL: include/linux/sched.h `__TASK_STOPPED`.
const STOPPED: u32 = 0x4;
/// KERNEL: include/linux/sched.h `__TASK_TRACED`.
const TRACED: u32 = 0x8;
/// KERNEL: include/linux/sched.h `TASK_FROZEN`, 6.1 and later.
const FROZEN: u32 = 0x8000;

/// Functions that wait for a lock, by which the lock's taker is found: the function after them.
pub const LOCKING: &[&str] = &[
    "__down_read",
    "__down_read_common",
    "__down_write",
    "__down_write_common",
    "__mutex_lock",
    "__mutex_lock_slowpath",
    "__mutex_lock_killable_slowpath",
    "__mutex_lock_interruptible_slowpath",
    "__percpu_down_read",
    "__rt_mutex_lock",
    "__rt_mutex_slowlock",
    "down_read",
    "down_read_interruptible",
    "down_read_killable",
    "down_write",
    "down_write_killable",
    "mutex_lock",
    "mutex_lock_interruptible",
    "mutex_lock_killable",
    "mutex_lock_nested",
    "percpu_down_read",
    "percpu_rwsem_wait",
    "rt_read_lock",
    "rt_spin_lock",
    "rt_write_lock",
    "rtlock_slowlock_locked",
    "rwsem_down_read_slowpath",
    "rwsem_down_write_slowpath",
];

/// Every reason, in the order in which they are looked at.
pub const REASONS: &[Reason] = &[
    Reason {
        name: "cpu-quota",
        signs: &[Sign::Throttled],
        state: WaitState::Runnable,
        lock: None,
        text: "held back by the CPU quota of its control group",
        what: "the task could run, but its control group had used up its CPU quota for this period",
        cause: "cpu.max (cgroup v2), or cpu.cfs_quota_us with cpu.cfs_period_us (v1), of the group or \
                of one around it; in containers the CPU limit",
        cure: "raise cpu.max of the group, or let it burst (cpu.max.burst); cpu.stat counts \
               nr_throttled",
    },
    Reason {
        name: "preempted",
        signs: &[Sign::Runnable],
        state: WaitState::Runnable,
        lock: None,
        text: "runnable but not running",
        what: "the task could run, but the kernel gave its CPU to other tasks",
        cause: "more runnable tasks than CPUs, a low weight or priority (nice, cpu.weight, SCHED_IDLE), \
                or an affinity to a busy CPU",
        cure: "a higher weight or priority for the caller, fewer busy tasks on its CPUs, or a wider \
               affinity",
    },
    Reason {
        name: "ptrace-stop",
        signs: &[Sign::State(TRACED), Sign::OnStack(&["ptrace_stop"])],
        state: WaitState::Stopped,
        lock: None,
        text: "stopped for its tracer",
        what: "the task is stopped until its tracer (a debugger, strace, gdb) lets it go on",
        cause: "a tracer that asked to be told of forks, and is slow to answer",
        cure: "a faster tracer, or one that does not ask for fork events (PTRACE_O_TRACEFORK and its \
               like; strace without -f)",
    },
    Reason {
        name: "signal-stop",
        signs: &[Sign::State(STOPPED), Sign::OnStack(&["do_signal_stop"])],
        state: WaitState::Stopped,
        lock: None,
        text: "stopped by a signal",
        what: "a signal stopped the process: SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU",
        cause: "job control of a shell, a supervisor, or kill -STOP",
        cure: "kill -CONT, or fg in the shell",
    },
    Reason {
        name: "freezer",
        signs: &[
            Sign::State(FROZEN),
            Sign::OnStack(&["__refrigerator", "do_freezer_trap", "cgroup_enter_frozen"]),
            // KERNEL: kernel/signal.c: some kernels have `do_freezer_trap` inlined here. The stops of
            // signals and tracers are told by the task's state, above.
            Sign::Innermost(&["get_signal"]),
        ],
        state: WaitState::Blocked,
        lock: None,
        text: "frozen with its control group",
        what: "the task is frozen with its control group, or with the whole host before it sleeps",
        cause: "cgroup.freeze (v2) or freezer.state (v1) of its group or of one around it: a \
                container that is paused; or a host that suspends",
        cure: "thaw the group: echo 0 >cgroup.freeze (v2) or echo THAWED >freezer.state (v1), or unpause the \
               container",
    },
    Reason {
        name: "vfork",
        signs: &[Sign::OnStack(&[
            "wait_for_vfork_done",
            "wait_for_completion_killable",
            "wait_for_completion_state",
        ])],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting for its vfork child to exec or to exit",
        what: "the caller of vfork, posix_spawn, system or popen waits until the child runs another \
               program or ends",
        cause: "a child that does much before it execs, that is slow to read its program, or that is \
                itself held",
        cure: "look at the child: what it does before exec, and where it stands",
    },
    Reason {
        name: "userfaultfd",
        signs: &[Sign::OnStack(&["userfaultfd_event_wait_completion", "handle_userfault"])],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting for a userfaultfd monitor",
        what: "memory of the caller is registered with userfaultfd, and its monitor has not read the \
               event of the fork (UFFD_FEATURE_EVENT_FORK), or not answered a page fault",
        cause: "a monitor that is busy, stopped or stuck: live migration, checkpointing, a sandbox's \
                page server",
        cure: "let the monitor read its descriptor; or do not register with UFFD_FEATURE_EVENT_FORK",
    },
    Reason {
        name: "out-of-memory",
        signs: &[Sign::OnStack(&[
            "out_of_memory",
            "mem_cgroup_out_of_memory",
            "mem_cgroup_oom_synchronize",
        ])],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting for the out-of-memory killer",
        what: "an allocation found no memory, and the kernel looks for a process to kill",
        cause: "memory.max of the control group, or the host's memory, is used up",
        cure: "more memory for the group or the host, or fewer users of it",
    },
    Reason {
        name: "compaction",
        signs: &[Sign::OnStack(&["try_to_compact_pages", "compact_zone"])],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting while memory is compacted",
        what: "an allocation of several pages in a row found none, and the kernel moves pages together",
        cause: "fragmented memory",
        cure: "more free memory (vm.min_free_kbytes), or vm.compaction_proactiveness",
    },
    Reason {
        name: "reclaim",
        signs: &[Sign::OnStack(&[
            "try_to_free_pages",
            "try_to_free_mem_cgroup_pages",
            "mem_cgroup_handle_over_high",
            "shrink_node",
            "throttle_direct_reclaim",
            "reclaim_throttle",
        ])],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting while memory is reclaimed",
        what: "an allocation found too little free memory, and the task has to free some itself",
        cause: "memory.max or memory.high of the control group is reached, or the host is short of \
                memory",
        cure: "more memory for the group or the host; memory.pressure shows how much time it costs",
    },
    Reason {
        name: "page-io",
        signs: &[Sign::OnStack(&[
            "do_swap_page",
            "swapin_readahead",
            "swap_read_folio",
            "swap_readpage",
            "folio_wait_bit_common",
            "__folio_lock",
            "__lock_page",
            "wait_on_page_bit_common",
            "filemap_fault",
            "io_schedule",
            "io_schedule_timeout",
        ])],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting for a page to be read or written",
        what: "a page of memory is read from a file or from swap, or written",
        cause: "memory in swap, a slow disk, or much writing",
        cure: "less swapping, or a faster disk",
    },
    Reason {
        name: "mmap_lock",
        signs: &[
            Sign::OnStack(&["down_write_killable", "mmap_write_lock_killable"]),
            // The caller faults a page in, often one that it writes to for the first time after the fork: its
            // restartable sequence (rseq) is one of those.
            // KERNEL: mm/mmap_lock.c `lock_mm_and_find_vma`, before 6.5 arch/x86/mm/fault.c.
            Sign::Taker(&["lock_mm_and_find_vma", "do_user_addr_fault"]),
            // The stacks of /proc leave out the functions that wait for locks.
            Sign::Innermost(&["dup_mmap", "lock_mm_and_find_vma"]),
        ],
        state: WaitState::Blocked,
        lock: Some("mmap_lock"),
        text: "waiting for mmap_lock",
        what: "the lock of the caller's address space: a fork needs it alone, a page fault shares it",
        cause: "other threads of the process that fault pages in, map or unmap memory; or readers of \
                /proc/PID/maps and smaps",
        cure: "fork from a process with few threads (a fork server), populate memory beforehand, or use \
               posix_spawn or vfork, which do not copy the address space",
    },
    Reason {
        name: "vma_lock",
        signs: &[Sign::OnStack(&["__vma_start_write", "vma_start_write", "__vma_enter_locked"])],
        state: WaitState::Blocked,
        lock: Some("vma_lock"),
        text: "waiting for the lock of a mapping",
        what: "the lock of one mapping of the caller's: from 6.4 on a fork takes each of them, and a page fault \
               shares that of its mapping",
        cause: "other threads of the process that fault pages in",
        cure: "fork from a process with few threads (a fork server), or use posix_spawn or vfork, which do \
               not copy the address space",
    },
    Reason {
        name: "cgroup_threadgroup_rwsem",
        signs: &[Sign::Both(
            &["percpu_rwsem_wait", "__percpu_down_read"],
            &["cgroup_can_fork", "cgroup_css_set_fork"],
        )],
        state: WaitState::Blocked,
        lock: Some("cgroup_threadgroup_rwsem"),
        text: "waiting for cgroup_threadgroup_rwsem",
        what: "the lock of the whole host that keeps a process whole while it moves to another control \
               group: every fork needs it",
        cause: "a process, above all one with many threads, is moved between control groups \
                (cgroup.procs), or a controller is switched on or off",
        cure: "start processes in their group (clone3 with CLONE_INTO_CGROUP) instead of moving them, \
               or mount cgroup2 with favordynmods off",
    },
    Reason {
        name: "dup_mmap_sem",
        signs: &[Sign::Both(
            &["percpu_rwsem_wait", "__percpu_down_read"],
            &["uprobe_start_dup_mmap"],
        )],
        state: WaitState::Blocked,
        lock: Some("dup_mmap_sem"),
        text: "waiting for dup_mmap_sem",
        what: "the lock of the whole host that keeps forks away while a uprobe is set or removed",
        cause: "a tracer that attaches to functions of programs: bpftrace, perf probe, a profiler",
        cure: "set uprobes less often",
    },
    Reason {
        name: "tasklist_lock",
        signs: &[Sign::OnStack(&["queued_write_lock_slowpath", "rt_write_lock"])],
        state: WaitState::Blocked,
        lock: Some("tasklist_lock"),
        text: "waiting for tasklist_lock",
        what: "the lock of the list of all tasks of the host: every fork and every exit needs it",
        cause: "many forks and exits at once, or readers of the list: signals to many processes, wait \
                with many children",
        cure: "fewer forks at a time",
    },
    Reason {
        name: "lock",
        signs: &[Sign::OnStack(LOCKING)],
        state: WaitState::Blocked,
        lock: None,
        text: "waiting for a lock",
        what: "a lock of the kernel that another task holds; `lock` names the function that takes it",
        cause: "another task, which does much or is itself held while it has the lock",
        cure: "the stack shows which part of the kernel it is",
    },
];

/// The reason of a wait that no row fits.
pub const UNKNOWN: Reason = Reason {
    name: "unknown",
    signs: &[],
    state: WaitState::Blocked,
    lock: None,
    text: "blocked",
    what: "the task waited for something that fork-trace does not know",
    cause: "the functions on its kernel stack tell",
    cure: "look at the stack",
};
