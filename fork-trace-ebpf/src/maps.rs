//! Every map. Each is bounded; userspace may set the sizes before load.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use fork_trace_common::{
    call_site::{MOST_OBSERVATIONS, Observation},
    counter::Counter,
    filter::FilterKey,
    follow_up::{Born, ExecRecord},
    record::{ForkRecord, FunctionTimes},
    refusal::RefusalRecord,
};

/// Finished records, read by userspace.
#[map]
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Attempts under way, by `bpf_get_current_pid_tgid` of the calling thread.
#[map]
pub(crate) static ATTEMPTS: HashMap<u64, ForkRecord> = HashMap::with_max_entries(8192, 0);

/// Functions passed by attempts under way, by the same key.
#[map]
pub(crate) static FUNCTION_TIMES: HashMap<u64, FunctionTimes> = HashMap::with_max_entries(8192, 0);

/// When and where a child was first given a CPU, by tid, until it returns to user space.
#[map]
pub(crate) static ON_CPU: HashMap<u32, OnCpu> = HashMap::with_max_entries(8192, 0);

/// A child's first moment on a CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct OnCpu {
    /// When.
    pub(crate) at_ns: u64,
    /// Which.
    pub(crate) cpu: u64,
    /// When it entered `schedule_tail`; 0: not seen.
    pub(crate) tail_entered_ns: u64,
    /// How long it was in there; 0: not seen.
    pub(crate) tail_ns: u64,
}

/// Followed processes by tgid; the value is one of `settings::FOLLOW_*`.
#[map]
pub(crate) static FOLLOW: HashMap<u32, u8> = HashMap::with_max_entries(32768, 0);

/// Where a refusal's evidence is put together, too large for a stack.
#[map]
pub(crate) static REFUSAL: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

/// Room for a refusal's evidence.
#[repr(C)]
pub(crate) struct Room {
    pub(crate) record: RefusalRecord,
    /// Where each read of the kernel's memory arrives.
    pub(crate) word: u64,
    /// The caller's `pt_regs`.
    pub(crate) regs: u64,
    /// What was called: a `Syscall`.
    pub(crate) syscall: u32,
    /// 1: by the 32-bit entry.
    pub(crate) compat: u32,
    /// What it returned.
    pub(crate) ret: i64,
}

/// What is wanted of callers and outcomes; userspace fills it.
#[map]
pub(crate) static FILTER: HashMap<FilterKey, u8> = HashMap::with_max_entries(256, 0);

/// Children whose further life is followed, by tgid.
#[map]
pub(crate) static BORN: HashMap<u32, Born> = HashMap::with_max_entries(8192, 0);

/// Parents that wait for a vfork child, by `bpf_get_current_pid_tgid` of the waiting thread.
#[map]
pub(crate) static WAITS: HashMap<u64, Born> = HashMap::with_max_entries(8192, 0);

/// Where a program's name and arguments are put together: too large for the stack.
#[map]
pub(crate) static EXEC: PerCpuArray<ExecRecord> = PerCpuArray::with_max_entries(1, 0);

/// Events of the learning process's own fork, in order.
#[map]
pub(crate) static OBSERVED: Array<Observation> = Array::with_max_entries(MOST_OBSERVATIONS, 0);

/// How many events there were since userspace last set it to 0.
#[map]
pub(crate) static OBSERVED_COUNT: Array<u32> = Array::with_max_entries(1, 0);

/// Per-CPU counts by [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own; a program is not preempted by itself.
        unsafe { *value += 1 };
    }
}
