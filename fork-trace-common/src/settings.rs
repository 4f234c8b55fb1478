//! What userspace sets in the object before the kernel loads it: switches and the offsets of
//! kernel struct fields.
//!
//! Each is a read-only global of the object, named here once. The verifier folds them to constants
//! and removes the code of what is absent.

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Hands every offset to macro `$m` as `NAME: "struct", "field", required;`.
///
/// Userspace resolves each in the running kernel's BTF; a missing required one is an error, a
/// missing optional one is injected as [`ABSENT`].
#[macro_export]
macro_rules! for_each_offset {
    ($m:ident) => {
        $m! {
            TASK_STATUS: "task_struct", "thread_info.status", required;
            TASK_FLAGS: "task_struct", "flags", required;
            TASK_PID: "task_struct", "pid", required;
            TASK_TGID: "task_struct", "tgid", required;
            TASK_REAL_PARENT: "task_struct", "real_parent", required;
            TASK_GROUP_LEADER: "task_struct", "group_leader", required;
            TASK_THREAD_PID: "task_struct", "thread_pid", required;
            TASK_START_TIME: "task_struct", "start_time", required;
            TASK_SIGNAL: "task_struct", "signal", required;
            TASK_NVCSW: "task_struct", "nvcsw", required;
            TASK_NIVCSW: "task_struct", "nivcsw", required;
            TASK_MM: "task_struct", "mm", required;
            TASK_EXIT_CODE: "task_struct", "exit_code", required;
            TASK_PENDING: "task_struct", "pending.signal", required;
            SIGNAL_FLAGS: "signal_struct", "flags", required;
            SIGNAL_GROUP_EXIT_CODE: "signal_struct", "group_exit_code", required;
            MM_ARG_START: "mm_struct", "arg_start", required;
            MM_ARG_END: "mm_struct", "arg_end", required;
            BPRM_FILENAME: "linux_binprm", "filename", required;
            MM_MAP_COUNT: "mm_struct", "map_count", required;
            MM_TOTAL_VM: "mm_struct", "total_vm", required;
            MM_RSS_STAT: "mm_struct", "rss_stat", required;
            MM_RSS_COUNT: "mm_rss_stat", "count", optional;
            TASK_RSS_STAT: "task_struct", "rss_stat", optional;
            TASK_RSS_COUNT: "task_rss_stat", "count", optional;
            PERCPU_COUNTER_SIZE: "percpu_counter", "", required;
            PERCPU_COUNTER_COUNT: "percpu_counter", "count", required;
            PERCPU_COUNTER_COUNTERS: "percpu_counter", "counters", optional;
            TASK_PARENT: "task_struct", "parent", required;
            TASK_PTRACE: "task_struct", "ptrace", required;
            MM_PGTABLES_BYTES: "mm_struct", "pgtables_bytes", optional;
            SIGNAL_MULTIPROCESS: "signal_struct", "multiprocess", required;
            SIGNAL_NR_THREADS: "signal_struct", "nr_threads", required;
            SIGNAL_LIVE: "signal_struct", "live", required;
            PID_LEVEL: "pid", "level", required;
            PID_NUMBERS: "pid", "numbers", required;
            UPID_NR: "upid", "nr", required;
            UPID_SIZE: "upid", "", required;
            REGS_ORIG_AX: "pt_regs", "orig_ax", required;
            REGS_DI: "pt_regs", "di", required;
            REGS_SI: "pt_regs", "si", required;
            REGS_BX: "pt_regs", "bx", required;
            REGS_CX: "pt_regs", "cx", required;
            REGS_IP: "pt_regs", "ip", required;
            REGS_SP: "pt_regs", "sp", required;
        }
    };
}

/// A field of a kernel struct whose offset the kernel side reads through a global.
#[derive(Clone, Copy, Debug)]
pub struct Offset {
    /// The global's symbol in the object.
    pub global: &'static str,
    /// The struct's name in BTF.
    pub of: &'static str,
    /// The field, with dots into nested structs; empty for the struct's own size.
    pub field: &'static str,
    /// Whether tracing is impossible without it.
    pub required: bool,
}

macro_rules! required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

macro_rules! table {
    ($($name:ident: $of:literal, $field:literal, $need:ident;)*) => {
        /// Every offset the kernel side needs.
        pub const OFFSETS: &[Offset] = &[$(Offset {
            global: stringify!($name),
            of: $of,
            field: $field,
            required: required!($need),
        },)*];
    };
}

for_each_offset!(table);

/// Symbol of the switch that limits tracing to the processes in the `FOLLOW` map and their
/// descendants: a `u8`, 0 or 1.
pub const FOLLOW_ONLY: &str = "FOLLOW_ONLY";

/// Symbols of the switches for follow-ups of every child: a `u8`, 0 or 1.
pub const FOLLOW_EXECS: &str = "FOLLOW_EXECS";
/// As above.
pub const FOLLOW_EXITS: &str = "FOLLOW_EXITS";

/// Symbol of the address of the kernel's array of per-CPU offsets, a `u64`; 0: not known.
pub const PER_CPU_OFFSETS: &str = "PER_CPU_OFFSETS";
/// Symbol of the number of CPUs there may be, a `u32`.
pub const CPUS: &str = "CPUS";

/// Symbol of the switch for direct loads of the calling task's fields: a `u8`, 0 or 1.
pub const TYPED: &str = "TYPED";
/// The helper that it needs, as a function of the kernel.
pub const TYPED_HELPER: &str = "bpf_get_current_task_btf";

/// Value in the `FOLLOW` map: the process's own attempts are shown.
pub const FOLLOW_SHOWN: u8 = 1;
/// Value in the `FOLLOW` map: only its children are followed (fork-trace itself, which starts
/// the command).
pub const FOLLOW_CHILDREN: u8 = 2;
/// Value in the `FOLLOW` map: the process's own attempts are shown, its children are not followed.
pub const FOLLOW_ALONE: u8 = 3;
/// Value in the `FOLLOW` map: a child of such a process, of which only its start is told.
pub const FOLLOW_START: u8 = 4;
