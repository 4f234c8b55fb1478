//! Every read of a kernel struct. Offsets come from the running kernel's BTF, set by userspace as
//! read-only globals; a field that this kernel lacks reads as `None` and its code is removed.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
    },
};
use fork_trace_common::{
    flags::{CLONE_VFORK, CLONE_VM, CSIGNAL, PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER},
    record::{Syscall, TaskIds},
    settings::ABSENT,
};

macro_rules! globals {
    ($($name:ident: $of:literal, $field:literal, $need:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(ABSENT);
        )*
    };
}

fork_trace_common::for_each_offset!(globals);

/// KERNEL: `arch/x86/include/asm/thread_info.h`: the call came through a 32-bit entry.
const TS_COMPAT: u32 = 0x2;

/// 1 where the kernel hands out the calling task as a pointer whose type the verifier knows (5.11
/// and later): then fields are loaded directly, else by a helper call each.
#[unsafe(no_mangle)]
static TYPED: Global<u8> = Global::new(0);

/// A pointer into kernel memory, of a struct this side knows only by offsets.
#[derive(Clone, Copy)]
pub(crate) struct Ptr {
    address: *const c_void,
    /// Whether its type is made use of where [`TYPED`] is set: then it comes from a BTF tracepoint's
    /// argument, from the calling task, or from a field of such.
    typed: bool,
}

/// Reads the field whose offset global `$offset` holds.
macro_rules! field {
    ($base:expr, $offset:ident: $type:ty) => {
        $base.read::<$type>($offset.load())
    };
}

mod groups;
mod memory;

/// The offset of an element of an array of words; absent where this kernel lacks either.
#[inline(always)]
pub(crate) fn element(array: u32, index: u32) -> u32 {
    const WORD: u32 = 8;
    if array == ABSENT || index == ABSENT { ABSENT } else { array + index * WORD }
}

impl Ptr {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(address: *const c_void) -> Self {
        Self { address, typed: true }
    }

    /// From a plain number.
    #[inline(always)]
    fn at(address: u64) -> Self {
        Self { address: address as *const c_void, typed: false }
    }

    /// The calling task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        if TYPED.load() != 0 {
            // SAFETY: the helper has no preconditions.
            return Self::new(unsafe { bpf_get_current_task_btf() }.cast_const().cast());
        }
        // SAFETY: the helper has no preconditions.
        Self::new(unsafe { bpf_get_current_task() } as *const c_void)
    }

    #[inline(always)]
    fn read<T>(self, offset: u32) -> Option<T> {
        if offset == ABSENT {
            return None;
        }
        if self.typed && TYPED.load() != 0 {
            // SAFETY: the verifier knows the pointer's type.
            return Some(unsafe { self.load(offset) });
        }
        self.read_by_helper(offset)
    }

    /// Reads at an address of any kind.
    #[inline(always)]
    fn read_by_helper<T>(self, offset: u32) -> Option<T> {
        let address = self.address.wrapping_byte_add(offset as usize).cast::<T>();
        // SAFETY: the helper checks the address and fails on a bad one; `T` is an integer here.
        unsafe { bpf_probe_read_kernel(address) }.ok()
    }

    /// Reads without a helper.
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint: the verifier checks type and offset,
    /// and the kernel handles a fault.
    #[inline(always)]
    unsafe fn load<T>(self, offset: u32) -> T {
        // SAFETY: as the caller promises.
        unsafe { self.address.wrapping_byte_add(offset as usize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        let address = self.read::<*const c_void>(offset).filter(|target| !target.is_null())?;
        Some(Self { address, typed: self.typed })
    }
}

/// A `task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(Ptr);

impl Task {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(task: *const c_void) -> Self {
        Self(Ptr::new(task))
    }

    /// The calling task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self(Ptr::current())
    }

    /// The same task, every field of which is read by a helper: that takes some 10 ns more than a
    /// direct load, but the load of a pointer takes the kernel a millisecond to verify. For what seldom
    /// runs.
    ///
    /// KERNEL: kernel/bpf/verifier.c `check_ptr_to_btf_access` looks through all of the kernel's types
    /// for up to four names, from 6.3 or so on, and until 7.0 or so one by one.
    #[inline(always)]
    pub(crate) fn by_helper(self) -> Self {
        Self(Ptr { address: self.0.address, typed: false })
    }

    /// `pid`, `tgid` and `start_time`.
    #[inline(always)]
    pub(crate) fn ids(self) -> Option<TaskIds> {
        Some(TaskIds {
            tgid: field!(self.0, TASK_TGID: u32)?,
            tid: self.tid()?,
            start_ns: field!(self.0, TASK_START_TIME: u64)?,
        })
    }

    /// `pid`.
    #[inline(always)]
    pub(crate) fn tid(self) -> Option<u32> {
        field!(self.0, TASK_PID: u32)
    }

    /// `PF_*` flags.
    #[inline(always)]
    pub(crate) fn flags(self) -> Option<u32> {
        field!(self.0, TASK_FLAGS: u32)
    }

    /// Whether the system call under way came through a 32-bit entry.
    #[inline(always)]
    pub(crate) fn compat(self) -> bool {
        field!(self.0, TASK_STATUS: u32).is_some_and(|status| status & TS_COMPAT != 0)
    }

    /// Process id of `real_parent`.
    #[inline(always)]
    pub(crate) fn ppid(self) -> Option<u32> {
        field!(self.0.follow(TASK_REAL_PARENT.load())?, TASK_TGID: u32)
    }

    /// When the task's process was made.
    #[inline(always)]
    pub(crate) fn process_start_ns(self) -> Option<u64> {
        field!(self.0.follow(TASK_GROUP_LEADER.load())?, TASK_START_TIME: u64)
    }

    /// Process id of the task's first thread in the task's own, innermost pid namespace.
    #[inline(always)]
    pub(crate) fn ns_pid(self) -> Option<u32> {
        let leader = Self(self.0.follow(TASK_GROUP_LEADER.load())?);
        leader.nr_at(self.pid_level()?)
    }

    /// What a tracer asked for, and its process id; `None` for a task that is not traced.
    ///
    /// KERNEL: kernel/ptrace.c `__ptrace_link`: a traced task's `parent` is its tracer.
    #[inline(always)]
    pub(crate) fn tracer(self) -> Option<(u32, u32)> {
        let ptrace = field!(self.0, TASK_PTRACE: u32).filter(|ptrace| *ptrace != 0)?;
        Some((ptrace, field!(self.0.follow(TASK_PARENT.load())?, TASK_TGID: u32)?))
    }

    /// Threads in the task's process.
    #[inline(always)]
    pub(crate) fn threads(self) -> Option<u32> {
        field!(self.0.follow(TASK_SIGNAL.load())?, SIGNAL_NR_THREADS: u32)
    }

    /// Threads of the process that have not begun to end (`signal_struct.live`).
    #[inline(always)]
    pub(crate) fn live(self) -> Option<u32> {
        field!(self.0.follow(TASK_SIGNAL.load())?, SIGNAL_LIVE: u32)
    }

    /// How the task ended: the process's exit code where the whole process was told to end, else
    /// that of its first thread.
    ///
    /// KERNEL: kernel/exit.c `wait_task_zombie` tells the same; include/linux/sched/signal.h.
    #[inline(always)]
    pub(crate) fn process_exit_code(self) -> Option<u32> {
        const SIGNAL_GROUP_EXIT: u32 = 4;
        let signal = self.0.follow(TASK_SIGNAL.load())?;
        if field!(signal, SIGNAL_FLAGS: u32)? & SIGNAL_GROUP_EXIT != 0 {
            return field!(signal, SIGNAL_GROUP_EXIT_CODE: u32);
        }
        field!(self.0.follow(TASK_GROUP_LEADER.load())?, TASK_EXIT_CODE: u32)
    }

    /// How this one task ended.
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

    /// Where the arguments of the task's program lie in its memory: first byte, and length.
    ///
    /// KERNEL: `fs/binfmt_elf.c` `create_elf_tables` sets both before `sched_process_exec`.
    #[inline(always)]
    pub(crate) fn args(self) -> Option<(*const u8, u64)> {
        let mm = self.0.follow(TASK_MM.load())?;
        let start = field!(mm, MM_ARG_START: u64)?;
        let end = field!(mm, MM_ARG_END: u64)?;
        Some((start as *const u8, end.checked_sub(start)?))
    }

    /// How deep the task's own pid namespace is nested.
    #[inline(always)]
    pub(crate) fn pid_level(self) -> Option<u32> {
        field!(self.0.follow(TASK_THREAD_PID.load())?, PID_LEVEL: u32)
    }

    /// The task's id as seen from pid namespace level `level` of its own chain.
    ///
    /// KERNEL: include/linux/pid.h `struct pid`: `numbers[level]`, one `upid` per level.
    #[inline(always)]
    pub(crate) fn nr_at(self, level: u32) -> Option<u32> {
        // KERNEL: include/linux/pid_namespace.h MAX_PID_NS_LEVEL.
        const MAX_PID_NS_LEVEL: u32 = 32;
        if level > MAX_PID_NS_LEVEL {
            return None;
        }
        // VERIFIER: a pointer of known type must not be moved by an amount that is not constant, so
        // this one is read as a plain number.
        let pid = Ptr::at(self.0.read_by_helper(TASK_THREAD_PID.load())?);
        pid.read_by_helper(PID_NUMBERS.load() + level * UPID_SIZE.load() + UPID_NR.load())
    }

    /// Whether `mm` is the task's own address space.
    #[inline(always)]
    pub(crate) fn has_mm(self, mm: *const c_void) -> bool {
        self.0.follow(TASK_MM.load()).is_some_and(|own| own.address == mm)
    }

    /// Mappings and bytes of page tables of the task's address space; the second is `u64::MAX`
    /// where the kernel keeps no count.
    #[inline(always)]
    pub(crate) fn mm_size(self) -> Option<(u64, u64)> {
        let mm = self.0.follow(TASK_MM.load())?;
        let page_tables = field!(mm, MM_PGTABLES_BYTES: u64).unwrap_or(u64::MAX);
        Some((u64::from(field!(mm, MM_MAP_COUNT: u32)?), page_tables))
    }

    /// Whether the calling process is making another process just now; cheap, for events that
    /// every task has.
    ///
    /// KERNEL: kernel/fork.c `copy_process` puts itself on `signal->multiprocess` before it
    /// allocates anything, unless it makes a thread.
    #[inline(always)]
    pub(crate) fn process_forks() -> bool {
        let signal = Ptr::current().follow(TASK_SIGNAL.load());
        let first = signal.and_then(|signal| field!(signal, SIGNAL_MULTIPROCESS: *const c_void));
        first.is_some_and(|first| !first.is_null())
    }

    /// Whether the task is a user's and was never taken off a CPU: it is being switched to for the
    /// first time. Read without a helper: `sched_switch` runs for every switch of the host.
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint, which the verifier knows.
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

/// The `linux_binprm` of an exec.
#[derive(Clone, Copy)]
pub(crate) struct Program(Ptr);

impl Program {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(program: *const c_void) -> Self {
        Self(Ptr::new(program))
    }

    /// The file as it was named to the kernel: a string in kernel memory.
    #[inline(always)]
    pub(crate) fn name(self) -> Option<*const u8> {
        field!(self.0, BPRM_FILENAME: *const u8)
    }
}

/// The `pt_regs` of a system call.
#[derive(Clone, Copy)]
pub(crate) struct Regs(Ptr);

impl Regs {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(regs: *const c_void) -> Self {
        Self(Ptr::new(regs))
    }

    /// Number of the system call, read without a helper: `sys_exit` runs for every call of the
    /// host.
    ///
    /// # Safety
    /// The pointer must be the `pt_regs` argument of a BTF tracepoint, which the verifier knows.
    #[inline(always)]
    pub(crate) unsafe fn nr(self) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { self.0.load(REGS_ORIG_AX.load()) }
    }

    /// User stack pointer and instruction pointer.
    #[inline(always)]
    pub(crate) fn place(self) -> Option<(u64, u64)> {
        Some((field!(self.0, REGS_SP: u64)?, field!(self.0, REGS_IP: u64)?))
    }

    /// Flags word and exit signal of `syscall` as the caller passed them, as far as they can be
    /// read: `clone3`'s struct may be too short for the second, or not readable at all.
    #[inline(always)]
    pub(crate) fn clone_args(self, syscall: Syscall, compat: bool) -> (Option<u64>, Option<u64>) {
        const SIGCHLD: u64 = 17;
        match syscall {
            Syscall::Fork => (Some(SIGCHLD), Some(SIGCHLD)),
            Syscall::Vfork => (Some(CLONE_VM | CLONE_VFORK | SIGCHLD), Some(SIGCHLD)),
            Syscall::Clone => {
                let flags = self.first(compat).map(|word| word & 0xffff_ffff);
                (flags, flags.map(|flags| flags & CSIGNAL))
            }
            Syscall::Clone3 => {
                // KERNEL: include/uapi/linux/sched.h `struct clone_args`: flags, pidfd, child_tid,
                // parent_tid, exit_signal, ..., of 64 bits each.
                (self.clone3_arg(compat, 0), self.clone3_arg(compat, 4))
            }
            Syscall::None => (None, None),
        }
    }

    /// Where it lies.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0.address as u64
    }

    /// How many thread ids the caller of `clone3` chose itself.
    #[inline(always)]
    pub(crate) fn set_tids(self, syscall: Syscall, compat: bool) -> Option<u64> {
        if matches!(syscall, Syscall::Clone3) { self.clone3_arg(compat, 9) } else { None }
    }

    /// A member of `clone3`'s struct, if the struct is that long and can be read.
    #[inline(always)]
    fn clone3_arg(self, compat: bool, index: u64) -> Option<u64> {
        let (args, size) = (self.first(compat)?, self.second(compat)?);
        if size < (index + 1) * 8 {
            return None;
        }
        let address = (args + index * 8) as *const u64;
        // SAFETY: the helper checks the address and fails on a bad one.
        unsafe { bpf_probe_read_user(address) }.ok()
    }

    #[inline(always)]
    fn first(self, compat: bool) -> Option<u64> {
        if compat { field!(self.0, REGS_BX: u64) } else { field!(self.0, REGS_DI: u64) }
    }

    #[inline(always)]
    fn second(self, compat: bool) -> Option<u64> {
        if compat { field!(self.0, REGS_CX: u64) } else { field!(self.0, REGS_SI: u64) }
    }
}

/// Whether `nr` can be one of fork's calls on either entry; cheap, for every call of the host.
#[inline(always)]
pub(crate) fn may_fork(nr: u64) -> bool {
    matches!(nr & !X32_BIT, 56..=58 | 435 | 2 | 120 | 190)
}

/// Which of fork's calls `nr` is.
///
/// KERNEL: `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`.
#[inline(always)]
pub(crate) fn syscall(nr: u64, compat: bool) -> Syscall {
    match (compat, nr & !X32_BIT) {
        (false, 56) | (true, 120) => Syscall::Clone,
        (false, 57) | (true, 2) => Syscall::Fork,
        (false, 58) | (true, 190) => Syscall::Vfork,
        (_, 435) => Syscall::Clone3,
        _ => Syscall::None,
    }
}

/// KERNEL: arch/x86/include/uapi/asm/unistd.h: marks calls of the x32 ABI.
const X32_BIT: u64 = 0x4000_0000;
