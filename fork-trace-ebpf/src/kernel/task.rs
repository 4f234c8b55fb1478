//! A task: its ids, its process, its place in the pid namespaces, and how it ends.

use aya_ebpf::cty::c_void;
use fork_trace_common::{
    flags::{PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER},
    record::TaskIds,
    settings::ABSENT,
};

use super::{
    arch::ARCH,
    offsets::{
        FILE_INODE, FS_IN_EXEC, INODE_INO, MM_ARG_END, MM_ARG_START, MM_EXE_FILE, MM_START_CODE,
        MM_START_STACK, PID_LEVEL, SIGNAL_FLAGS, SIGNAL_GROUP_EXIT_CODE, SIGNAL_LIVE,
        SIGNAL_MAXRSS, SIGNAL_MULTIPROCESS, SIGNAL_NR_THREADS, SIGNAL_SUM_SCHED, TASK_COMPAT,
        TASK_EXIT_CODE, TASK_FLAGS, TASK_FS, TASK_GROUP_LEADER, TASK_MM, TASK_NIVCSW, TASK_NVCSW,
        TASK_OLD_STATE, TASK_PARENT, TASK_PENDING, TASK_PID, TASK_PTRACE, TASK_REAL_PARENT,
        TASK_SELF_EXEC_ID, TASK_SIGNAL, TASK_STACK, TASK_START_TIME, TASK_STATE, TASK_SUM_EXEC,
        TASK_TGID, TASK_THREAD_PID,
    },
    pointer::{Ptr, field},
};

/// A `task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(super) Ptr);

impl Task {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(task: *const c_void) -> Self {
        Self(Ptr::new(task))
    }

    /// From an address that [`Task::address`] gave. Every field is read by a helper.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(Ptr::at(address))
    }

    /// Where the task lies in the kernel's memory.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0.address as u64
    }

    /// The calling task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self(Ptr::current())
    }

    /// The same task, every field of which is read by a helper. It serves code that seldom runs: a
    /// helper takes some 10 ns more than a direct load, but for each direct load of a pointer the
    /// kernel needs a millisecond to verify the program.
    ///
    /// KERNEL: kernel/bpf/verifier.c `check_ptr_to_btf_access` looks through all of the kernel's
    /// types for up to four names, from 6.3 or so on, and until 7.0 or so one by one.
    #[inline(always)]
    pub(crate) fn by_helper(self) -> Self {
        Self(self.0.by_helper())
    }

    /// The fields `tgid`, `pid` and `start_time`.
    #[inline(always)]
    pub(crate) fn ids(self) -> Option<TaskIds> {
        Some(TaskIds {
            tgid: field!(self.0, TASK_TGID: u32)?,
            tid: self.tid()?,
            start_ns: field!(self.0, TASK_START_TIME: u64)?,
        })
    }

    /// The field `pid`: the thread id.
    #[inline(always)]
    pub(crate) fn tid(self) -> Option<u32> {
        field!(self.0, TASK_PID: u32)
    }

    /// The task's `PF_*` flags.
    #[inline(always)]
    pub(crate) fn flags(self) -> Option<u32> {
        field!(self.0, TASK_FLAGS: u32)
    }

    /// Whether the system call under way came through the 32-bit entry.
    #[inline(always)]
    pub(crate) fn compat(self) -> bool {
        field!(self.0, TASK_COMPAT: u32).is_some_and(|word| word & ARCH.compat_bit != 0)
    }

    /// The process id of the task's parent (`real_parent`).
    #[inline(always)]
    pub(crate) fn ppid(self) -> Option<u32> {
        field!(self.0.follow(TASK_REAL_PARENT.load())?, TASK_TGID: u32)
    }

    /// When the task's process was made: the `start_time` of its group leader.
    #[inline(always)]
    pub(crate) fn process_start_ns(self) -> Option<u64> {
        field!(self.leader()?.0, TASK_START_TIME: u64)
    }

    /// The process id of the task in its own, innermost pid namespace.
    #[inline(always)]
    pub(crate) fn ns_pid(self) -> Option<u32> {
        self.leader()?.nr_at(self.pid_level()?)
    }

    /// What the task's tracer asked for (`ptrace`), and the tracer's process id; `None` for a task
    /// that is not traced.
    ///
    /// KERNEL: kernel/ptrace.c `__ptrace_link`: the `parent` of a traced task is its tracer.
    #[inline(always)]
    pub(crate) fn tracer(self) -> Option<(u32, u32)> {
        let ptrace = field!(self.0, TASK_PTRACE: u32).filter(|ptrace| *ptrace != 0)?;
        Some((ptrace, field!(self.0.follow(TASK_PARENT.load())?, TASK_TGID: u32)?))
    }

    /// Whether one of those who share the task's root and working directory is inside `execve`.
    ///
    /// KERNEL: kernel/fork.c `copy_fs`: `fs->in_exec`, which has been an `int` and a `bool`.
    #[inline(always)]
    pub(crate) fn shares_exec(self) -> Option<bool> {
        let in_exec = field!(self.0.follow(TASK_FS.load())?, FS_IN_EXEC: u8)?;
        Some(in_exec != 0)
    }

    /// Where the task's kernel stack begins.
    #[inline(always)]
    pub(crate) fn stack(self) -> Option<u64> {
        field!(self.0, TASK_STACK: u64)
    }

    /// Whether the task is traced. It is read without a helper, because `sched_switch` runs for every
    /// switch of the host.
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint, whose type the verifier knows.
    #[inline(always)]
    pub(crate) unsafe fn is_traced(self) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.0.load::<u32>(TASK_PTRACE.load()) != 0 }
    }

    /// How many threads the task's process has.
    #[inline(always)]
    pub(crate) fn threads(self) -> Option<u32> {
        field!(self.0.follow(TASK_SIGNAL.load())?, SIGNAL_NR_THREADS: u32)
    }

    /// How many threads of the task's process have not begun to end (`signal_struct.live`).
    #[inline(always)]
    pub(crate) fn threads_not_ending(self) -> Option<u32> {
        field!(self.0.follow(TASK_SIGNAL.load())?, SIGNAL_LIVE: u32)
    }

    /// How the task's process ended: the exit code of the process if all of it was told to end,
    /// otherwise that of its first thread.
    ///
    /// KERNEL: kernel/exit.c `wait_task_zombie` reports the same code to the parent.
    #[inline(always)]
    pub(crate) fn process_exit_code(self) -> Option<u32> {
        // KERNEL: include/linux/sched/signal.h.
        const SIGNAL_GROUP_EXIT: u32 = 4;
        let signal = self.0.follow(TASK_SIGNAL.load())?;
        if field!(signal, SIGNAL_FLAGS: u32)? & SIGNAL_GROUP_EXIT != 0 {
            return field!(signal, SIGNAL_GROUP_EXIT_CODE: u32);
        }
        field!(self.0.follow(TASK_GROUP_LEADER.load())?, TASK_EXIT_CODE: u32)
    }

    /// How this one task ended: its own exit code.
    #[inline(always)]
    pub(crate) fn exit_code(self) -> Option<u32> {
        field!(self.0, TASK_EXIT_CODE: u32)
    }

    /// Whether the task is about to be killed.
    ///
    /// KERNEL: include/linux/sched/signal.h `__fatal_signal_pending`.
    #[inline(always)]
    pub(crate) fn dying(self) -> bool {
        const SIGKILL_BIT: u64 = 1 << 8;
        field!(self.0, TASK_PENDING: u64).is_some_and(|pending| pending & SIGKILL_BIT != 0)
    }

    /// Where the arguments of the task's program lie in its memory: the first byte, and how many
    /// bytes.
    ///
    /// KERNEL: `fs/binfmt_elf.c` `create_elf_tables` sets both before `sched_process_exec`.
    #[inline(always)]
    pub(crate) fn args(self) -> Option<(*const u8, u64)> {
        let mm = self.0.follow(TASK_MM.load())?;
        let start = field!(mm, MM_ARG_START: u64)?;
        let end = field!(mm, MM_ARG_END: u64)?;
        Some((start as *const u8, end.checked_sub(start)?))
    }

    /// What tells one run of a program from another: where its code and its first stack begin, and the inode
    /// number of its file; 0 where one was not read.
    ///
    /// KERNEL: `fs/binfmt_elf.c` `load_elf_binary`.
    #[inline(always)]
    pub(crate) fn image(self) -> (u64, u64, u64) {
        let Some(mm) = self.0.follow(TASK_MM.load()) else { return (0, 0, 0) };
        let file = mm.follow(MM_EXE_FILE.load());
        let inode = file.and_then(|file| file.follow(FILE_INODE.load()));
        (
            field!(mm, MM_START_CODE: u64).unwrap_or_default(),
            field!(mm, MM_START_STACK: u64).unwrap_or_default(),
            inode.and_then(|inode| field!(inode, INODE_INO: u64)).unwrap_or_default(),
        )
    }

    /// How deep the task's own pid namespace is nested.
    #[inline(always)]
    pub(crate) fn pid_level(self) -> Option<u32> {
        field!(self.0.follow(TASK_THREAD_PID.load())?, PID_LEVEL: u32)
    }

    /// How long the task was on CPUs, in nanoseconds. Of a task that runs it may lack what it ran
    /// since the last tick.
    #[inline(always)]
    pub(crate) fn cpu_ns(self) -> Option<u64> {
        field!(self.0, TASK_SUM_EXEC: u64)
    }

    /// The task that stands for the task's process.
    #[inline(always)]
    pub(crate) fn leader(self) -> Option<Self> {
        Some(Self(self.0.follow(TASK_GROUP_LEADER.load())?))
    }

    /// How long threads of the task's process that are gone were on CPUs, in nanoseconds.
    ///
    /// KERNEL: kernel/exit.c `__exit_signal` adds it up.
    #[inline(always)]
    pub(crate) fn cpu_ns_of_gone_threads(self) -> Option<u64> {
        field!(self.0.follow(TASK_SIGNAL.load())?, SIGNAL_SUM_SCHED: u64)
    }

    /// The most pages that the task's process had resident at once, once it has let go of them.
    ///
    /// KERNEL: kernel/exit.c `do_exit`; fs/exec.c `exec_mmap`.
    #[inline(always)]
    pub(crate) fn max_rss_pages(self) -> Option<u64> {
        field!(self.0.follow(TASK_SIGNAL.load())?, SIGNAL_MAXRSS: u64)
    }

    /// How often the task and its ancestors have run another program.
    #[inline(always)]
    pub(crate) fn exec_id(self) -> Option<u64> {
        field!(self.0, TASK_SELF_EXEC_ID: u64)
    }

    /// Whether the task, from which a CPU is about to switch, has ended and will not run again. It is
    /// read without a helper, as in [`Task::starts`].
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint, whose type the verifier knows.
    #[inline(always)]
    pub(crate) unsafe fn is_dead(self) -> bool {
        // KERNEL: include/linux/sched.h.
        const TASK_DEAD: u32 = 0x80;
        if TASK_STATE.load() != ABSENT {
            // SAFETY: as the caller promises.
            return unsafe { self.0.load::<u32>(TASK_STATE.load()) & TASK_DEAD != 0 };
        }
        // Before 5.14 it is a `long` of another name.
        // SAFETY: as the caller promises.
        unsafe { self.0.load::<u64>(TASK_OLD_STATE.load()) & u64::from(TASK_DEAD) != 0 }
    }

    /// Whether [`Task::is_dead`] can be asked on this kernel.
    #[inline(always)]
    pub(crate) fn shows_its_end() -> bool {
        (TASK_STATE.load() != ABSENT || TASK_OLD_STATE.load() != ABSENT)
            && TASK_SUM_EXEC.load() != ABSENT
            && SIGNAL_SUM_SCHED.load() != ABSENT
    }

    /// Whether `mm` is the task's own address space.
    #[inline(always)]
    pub(crate) fn has_mm(self, mm: *const c_void) -> bool {
        self.0.follow(TASK_MM.load()).is_some_and(|own| own.address == mm)
    }

    /// Whether the calling process is just now making another process. It is cheap, because it is
    /// asked at events that every task has.
    ///
    /// KERNEL: kernel/fork.c `copy_process` puts itself on `signal->multiprocess` before it
    /// allocates anything, unless it makes a thread.
    #[inline(always)]
    pub(crate) fn process_forks() -> bool {
        let signal = Ptr::current().follow(TASK_SIGNAL.load());
        let first = signal.and_then(|signal| field!(signal, SIGNAL_MULTIPROCESS: *const c_void));
        first.is_some_and(|first| !first.is_null())
    }

    /// Whether the task, to which a CPU is about to switch, is a user's and gets a CPU for the
    /// first time: its counts of switches away from it are both 0. They are read without a helper,
    /// because `sched_switch` runs for every switch of the host.
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint, whose type the verifier knows.
    #[inline(always)]
    pub(crate) unsafe fn starts(self) -> bool {
        const NOT_A_USERS: u32 = PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER;
        // SAFETY: as the caller promises.
        let voluntary = unsafe { self.0.load::<u64>(TASK_NVCSW.load()) };
        // SAFETY: as the caller promises.
        let involuntary = unsafe { self.0.load::<u64>(TASK_NIVCSW.load()) };
        if voluntary | involuntary != 0 {
            return false;
        }
        // SAFETY: as the caller promises.
        unsafe { self.0.load::<u32>(TASK_FLAGS.load()) & NOT_A_USERS == 0 }
    }
}
