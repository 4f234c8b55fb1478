//! Every map. Each is bounded, and user space may change its size before the object is loaded.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use fork_trace_common::{
    call_site::{MOST_OBSERVATIONS, Observation},
    counter::Counter,
    filter::FilterKey,
    follow_up::{Born, ExecRecord, FollowUpRecord},
    holder::HoldersOf,
    libc::LibcRecord,
    program::ProgramRecord,
    record::{ForkRecord, FunctionTimes},
    refusal::RefusalRecord,
    sample::SampleRecord,
    stack::StackRecord,
    wait::WaitsRecord,
};

/// Finished records, which user space reads.
#[map]
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The records of attempts under way. The key is `bpf_get_current_pid_tgid` of the calling thread.
#[map]
pub(crate) static ATTEMPTS: HashMap<u64, ForkRecord> = HashMap::with_max_entries(8192, 0);

/// The functions that attempts under way have passed, by the same key.
#[map]
pub(crate) static FUNCTION_TIMES: HashMap<u64, FunctionTimes> = HashMap::with_max_entries(8192, 0);

/// The wrapper of the C library that a thread is in, by thread id.
#[map]
pub(crate) static LIBC: HashMap<u32, LibcRecord> = HashMap::with_max_entries(8192, 0);

/// A child's first moments on a CPU, by its thread id, until it returns to user space.
#[map]
pub(crate) static ON_CPU: HashMap<u32, OnCpu> = HashMap::with_max_entries(8192, 0);

/// A child's first moments on a CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct OnCpu {
    /// When a CPU was first given to it.
    pub(crate) at_ns: u64,
    /// Which CPU that was.
    pub(crate) cpu: u64,
    /// When it entered `schedule_tail`; 0 if that was not seen.
    pub(crate) tail_entered_ns: u64,
    /// How long it was in `schedule_tail`; 0 if that was not seen.
    pub(crate) tail_ns: u64,
}

/// Whose tasks the iterator over those that fill a limit writes.
#[map]
pub(crate) static HOLDERS_OF: Array<HoldersOf> = Array::with_max_entries(1, 0);

/// The times off the CPU of tasks that are inside a fork. The key is `bpf_get_current_pid_tgid` of
/// the task. An entry is made when such a task first leaves its CPU, so most forks have none.
#[map]
pub(crate) static OFF_CPU: HashMap<u64, WaitsRecord> = HashMap::with_max_entries(1024, 0);

/// 1 while the task that runs on this CPU may be inside a fork, or on its way back from one.
#[map]
pub(crate) static IN_FORK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// How many tasks of `OFF_CPU` are off their CPUs.
#[map]
pub(crate) static AWAY: Array<u64> = Array::with_max_entries(1, 0);

/// Where a sample is put together.
#[map]
pub(crate) static SAMPLE: PerCpuArray<SampleRecord> = PerCpuArray::with_max_entries(1, 0);

/// Where a caller's stack is put together.
#[map]
pub(crate) static STACK: PerCpuArray<StackRecord> = PerCpuArray::with_max_entries(1, 0);

/// The processes that are followed, by process id. The value is one of `settings::FOLLOW_*`.
#[map]
pub(crate) static FOLLOW: HashMap<u32, u8> = HashMap::with_max_entries(32768, 0);

/// Where the evidence of a refusal is put together, because it is too large for a stack.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The memory in which the evidence of one refusal is put together.
#[repr(C)]
pub(crate) struct Scratch {
    /// The record that is filled.
    pub(crate) record: RefusalRecord,
    /// Where a helper puts each value that it reads from the kernel's memory.
    pub(crate) word: u64,
    /// The address of the caller's `pt_regs`.
    pub(crate) regs: u64,
    /// The system call, a `Syscall`.
    pub(crate) syscall: u32,
    /// 1 if the call came through the 32-bit entry.
    pub(crate) compat: u32,
    /// What the call returned.
    pub(crate) ret: i64,
    /// The address of the directory of the control group that may have refused; 0 for none.
    pub(crate) directory: u64,
}

/// The numbers of fork's calls at whose entry a tracer has stopped the caller. The key is
/// `bpf_get_current_pid_tgid` of the caller.
#[map]
pub(crate) static STOPPED: HashMap<u64, u64> = HashMap::with_max_entries(1024, 0);

/// How far a task's registers lie from the beginning of its kernel stack; 0 until that is known.
#[map]
pub(crate) static REGS_PLACE: Array<u64> = Array::with_max_entries(1, 0);

/// The values that filters accept. User space fills it.
#[map]
pub(crate) static FILTER: HashMap<FilterKey, u8> = HashMap::with_max_entries(256, 0);

/// The children that are followed up, by process id.
#[map]
pub(crate) static BORN: HashMap<u32, Born> = HashMap::with_max_entries(8192, 0);

/// The vfork children that their parents wait for. The key is `bpf_get_current_pid_tgid` of the
/// waiting thread.
#[map]
pub(crate) static WAITS: HashMap<u64, Born> = HashMap::with_max_entries(8192, 0);

/// Where a program's name and arguments are put together, because they are too large for a stack.
#[map]
pub(crate) static EXEC: PerCpuArray<ExecRecord> = PerCpuArray::with_max_entries(1, 0);

/// The same for an exec that fails: another program fills it, which may run in between.
#[map]
pub(crate) static FAILED_EXEC: PerCpuArray<ExecRecord> = PerCpuArray::with_max_entries(1, 0);

/// The ends of processes that are not sent yet, by thread id of the last thread: what that has used of
/// its CPU is known only when the CPU switches away from it.
#[map]
pub(crate) static ENDING: HashMap<u32, FollowUpRecord> = HashMap::with_max_entries(8192, 0);

/// The programs that were described, by process id.
#[map]
pub(crate) static DESCRIBED: LruHashMap<u32, Described> = LruHashMap::with_max_entries(8192, 0);

/// Which program of which process was described.
#[derive(Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct Described {
    /// When the process was made.
    pub(crate) start_ns: u64,
    /// How often it and its ancestors had run another program.
    pub(crate) exec_id: u64,
}

/// Where a program's description is put together, because it is too large for a stack.
#[map]
pub(crate) static PROGRAM: PerCpuArray<ProgramScratch> = PerCpuArray::with_max_entries(1, 0);

/// The memory in which one program is described.
#[repr(C)]
pub(crate) struct ProgramScratch {
    /// The record that is filled.
    pub(crate) record: ProgramRecord,
    /// Where a helper puts each value that it reads from the kernel's memory.
    pub(crate) word: u64,
}

/// What was observed inside the learning process's own fork, in order.
#[map]
pub(crate) static OBSERVED: Array<Observation> = Array::with_max_entries(MOST_OBSERVATIONS, 0);

/// How many observations there were since user space last set it to 0.
#[map]
pub(crate) static OBSERVED_COUNT: Array<u32> = Array::with_max_entries(1, 0);

/// The counts of each CPU, by [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own, and a program is not preempted by itself.
        unsafe { *value += 1 };
    }
}
