//! What user space sets in the object before the kernel loads it: switches, and the offsets of
//! fields in the kernel's structs.
//!
//! Each is a read-only global of the object. A constant here gives the global's symbol, and has the
//! same name. The verifier treats read-only globals as constants, and removes the code that uses a
//! field that is absent.

use crate::arch::ARCH;

/// The offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Hands every offset to macro `$m` as `NAME: "struct", "field", required;`. If `enum X` takes the
/// place of the struct, the name in the place of the field is an enumerator of `X`, and its value
/// is meant. What stands in the place of the field is an expression: registers have other names on other
/// machines. `name[3]` is an element of an array.
///
/// User space looks each of them up in the running kernel's BTF. If one that is required is
/// missing, that is an error. If one that is optional is missing, it is set to [`ABSENT`].
#[macro_export]
macro_rules! for_each_offset {
    ($m:ident) => {
        $m! {
            TASK_COMPAT: "task_struct", ARCH.compat_field, required;
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
            TASK_STATE: "task_struct", "__state", optional;
            TASK_OLD_STATE: "task_struct", "state", optional;
            TASK_SUM_EXEC: "task_struct", "se.sum_exec_runtime", optional;
            TASK_SELF_EXEC_ID: "task_struct", "self_exec_id", optional;
            SIGNAL_SUM_SCHED: "signal_struct", "sum_sched_runtime", optional;
            SIGNAL_MAXRSS: "signal_struct", "maxrss", optional;
            MM_EXE_FILE: "mm_struct", "exe_file", optional;
            FILE_DENTRY: "file", "f_path.dentry", optional;
            FILE_MNT: "file", "f_path.mnt", optional;
            DENTRY_PARENT: "dentry", "d_parent", optional;
            DENTRY_NAME: "dentry", "d_name.name", optional;
            VFSMOUNT_ROOT: "vfsmount", "mnt_root", optional;
            MOUNT_MNT: "mount", "mnt", optional;
            MOUNT_PARENT: "mount", "mnt_parent", optional;
            MOUNT_MOUNTPOINT: "mount", "mnt_mountpoint", optional;
            TASK_PENDING: "task_struct", "pending.signal", required;
            SIGNAL_FLAGS: "signal_struct", "flags", required;
            SIGNAL_GROUP_EXIT_CODE: "signal_struct", "group_exit_code", required;
            MM_ARG_START: "mm_struct", "arg_start", required;
            MM_ARG_END: "mm_struct", "arg_end", required;
            MM_START_CODE: "mm_struct", "start_code", optional;
            MM_START_STACK: "mm_struct", "start_stack", optional;
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
            REGS_NUMBER: "pt_regs", ARCH.registers.number, required;
            REGS_RETURNED: "pt_regs", ARCH.registers.returned, required;
            REGS_SP: "pt_regs", ARCH.registers.sp, required;
            REGS_IP: "pt_regs", ARCH.registers.ip, required;
            REGS_ARG_0: "pt_regs", ARCH.registers.args[0], required;
            REGS_ARG_1: "pt_regs", ARCH.registers.args[1], required;
            REGS_ARG_2: "pt_regs", ARCH.registers.args[2], optional;
            REGS_ARG_3: "pt_regs", ARCH.registers.args[3], optional;
            REGS_ARG_4: "pt_regs", ARCH.registers.args[4], optional;
            REGS_COMPAT_ARG_0: "pt_regs", ARCH.registers.compat_args[0], required;
            REGS_COMPAT_ARG_1: "pt_regs", ARCH.registers.compat_args[1], required;
            REGS_COMPAT_ARG_2: "pt_regs", ARCH.registers.compat_args[2], optional;
            REGS_COMPAT_ARG_3: "pt_regs", ARCH.registers.compat_args[3], optional;
            REGS_COMPAT_ARG_4: "pt_regs", ARCH.registers.compat_args[4], optional;
            TASK_STACK: "task_struct", "stack", required;
            TASK_CRED: "task_struct", "cred", optional;
            TASK_REAL_CRED: "task_struct", "real_cred", optional;
            TASK_COMM: "task_struct", "comm", optional;
            TASK_EXIT_STATE: "task_struct", "exit_state", optional;
            TASK_POLICY: "task_struct", "policy", optional;
            TASK_NSPROXY: "task_struct", "nsproxy", optional;
            TASK_CGROUPS: "task_struct", "cgroups", optional;
            TASK_FILES: "task_struct", "files", optional;
            TASK_SECCOMP_MODE: "task_struct", "seccomp.mode", optional;
            CRED_UID: "cred", "uid", optional;
            CRED_EUID: "cred", "euid", optional;
            CRED_CAPS: "cred", "cap_effective", optional;
            CRED_USER: "cred", "user", optional;
            CRED_USER_NS: "cred", "user_ns", optional;
            CRED_UCOUNTS: "cred", "ucounts", optional;
            USER_PROCESSES: "user_struct", "processes", optional;
            USER_NS_LEVEL: "user_namespace", "level", optional;
            USER_NS_UCOUNTS: "user_namespace", "ucounts", optional;
            USER_NS_UCOUNT_MAX: "user_namespace", "ucount_max", optional;
            USER_NS_RLIMIT_MAX: "user_namespace", "rlimit_max", optional;
            UCOUNTS_NS: "ucounts", "ns", optional;
            UCOUNTS_UID: "ucounts", "uid", optional;
            UCOUNTS_UCOUNT: "ucounts", "ucount", optional;
            UCOUNTS_RLIMIT: "ucounts", "rlimit", optional;
            UCOUNT_NPROC: "enum ucount_type", "UCOUNT_RLIMIT_NPROC", optional;
            SIGNAL_RLIM: "signal_struct", "rlim", optional;
            NSPROXY_PID_NS: "nsproxy", "pid_ns_for_children", optional;
            NSPROXY_TIME_NS: "nsproxy", "time_ns", optional;
            NSPROXY_CHILD_TIME_NS: "nsproxy", "time_ns_for_children", optional;
            UPID_NS: "upid", "ns", optional;
            PID_NS_LEVEL: "pid_namespace", "level", optional;
            PID_NS_ALLOCATED: "pid_namespace", "pid_allocated", optional;
            PID_NS_PARENT: "pid_namespace", "parent", optional;
            PID_NS_PID_MAX: "pid_namespace", "pid_max", optional;
            PID_NS_INUM: "pid_namespace", "ns.inum", optional;
            CSET_SUBSYS: "css_set", "subsys", optional;
            CSET_LINKS: "css_set", "cgrp_links", optional;
            LINK_CGROUP: "cgrp_cset_link", "cgrp", optional;
            LINK_NEXT: "cgrp_cset_link", "cgrp_link", optional;
            CGROUP_ROOT: "cgroup", "root", optional;
            ROOT_HIERARCHY: "cgroup_root", "hierarchy_id", optional;
            CSS_PARENT: "cgroup_subsys_state", "parent", optional;
            CSS_CGROUP: "cgroup_subsys_state", "cgroup", optional;
            PIDS_COUNTER: "pids_cgroup", "counter", optional;
            PIDS_LIMIT: "pids_cgroup", "limit", optional;
            PIDS_EVENTS_LIMIT: "pids_cgroup", "events_limit", optional;
            PIDS_EVENTS_LOCAL: "pids_cgroup", "events_local", optional;
            PIDS_FORKFAIL: "enum pidcg_event", "PIDCG_FORKFAIL", optional;
            PIDS_CGRP_ID: "enum cgroup_subsys_id", "pids_cgrp_id", optional;
            MEMORY_USAGE: "mem_cgroup", "memory.usage", optional;
            MEMORY_MAX: "mem_cgroup", "memory.max", optional;
            MEMORY_EVENTS_LOCAL: "mem_cgroup", "memory_events_local", optional;
            MEMORY_OOM: "enum memcg_memory_event", "MEMCG_OOM", optional;
            MEMORY_CGRP_ID: "enum cgroup_subsys_id", "memory_cgrp_id", optional;
            CGROUP_KN: "cgroup", "kn", optional;
            CGROUP_SUBSYS: "cgroup", "subsys", optional;
            KN_ID: "kernfs_node", "id", optional;
            KN_NAME: "kernfs_node", "name", optional;
            KN_PRIV: "kernfs_node", "priv", optional;
            KN_PARENT: "kernfs_node", "parent", optional;
            KN_PARENT_RCU: "kernfs_node", "__parent", optional;
            SIGNAL_OOM_MM: "signal_struct", "oom_mm", optional;
            SIGNAL_EXEC_TASK: "signal_struct", "group_exec_task", optional;
            SIGNAL_EXIT_TASK: "signal_struct", "group_exit_task", optional;
            MM_DATA_VM: "mm_struct", "data_vm", optional;
            MM_STACK_VM: "mm_struct", "stack_vm", optional;
            TASK_FS: "task_struct", "fs", optional;
            FS_USERS: "fs_struct", "users", optional;
            FS_IN_EXEC: "fs_struct", "in_exec", optional;
            FS_ROOT_MNT: "fs_struct", "root.mnt", optional;
            FS_ROOT_DENTRY: "fs_struct", "root.dentry", optional;
            NSPROXY_MNT_NS: "nsproxy", "mnt_ns", optional;
            MNT_NS_ROOT: "mnt_namespace", "root", optional;
            CRED_EGID: "cred", "egid", optional;
            USER_NS_INUM: "user_namespace", "ns.inum", optional;
            USER_NS_UID_MAP: "user_namespace", "uid_map", optional;
            USER_NS_GID_MAP: "user_namespace", "gid_map", optional;
            ID_MAP_COUNT: "uid_gid_map", "nr_extents", optional;
            ID_MAP_EXTENTS: "uid_gid_map", "extent", optional;
            FILES_FDT: "files_struct", "fdt", optional;
            FDT_MAX_FDS: "fdtable", "max_fds", optional;
            FDT_FD: "fdtable", "fd", optional;
            FILE_INODE: "file", "f_inode", optional;
            INODE_PRIVATE: "inode", "i_private", optional;
            INODE_INO: "inode", "i_ino", optional;
            TASK_CFS_RQ: "task_struct", "se.cfs_rq", optional;
            CFS_RQ_THROTTLE_COUNT: "cfs_rq", "throttle_count", optional;
            TASK_THROTTLED: "task_struct", "throttled", optional;
            TASK_TASK_GROUP: "task_struct", "sched_task_group", optional;
            TASK_GROUP_PARENT: "task_group", "parent", optional;
            TASK_GROUP_THROTTLED_NS: "task_group", "cfs_bandwidth.throttled_time", optional;
            MM_LOCK_OWNER: "mm_struct", "mmap_lock.owner", optional;
            REGS_SIZE: "pt_regs", "", required;
        }
    };
}

/// A field of a kernel struct whose offset the kernel side reads through a global.
#[derive(Clone, Copy, Debug)]
pub struct Offset {
    /// The global's symbol in the object.
    pub global: &'static str,
    /// The struct's name in BTF, or `enum` and the name of an enumeration.
    pub of: &'static str,
    /// The field, with dots into nested structs, or an enumerator. If it is empty, the size of the
    /// struct is meant.
    pub field: &'static str,
    /// Whether nothing can be traced without it.
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
    ($($name:ident: $of:literal, $field:expr, $need:ident;)*) => {
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

/// The symbol of the switch that limits tracing to the processes in the map `FOLLOW` and their
/// descendants: a `u8`, 0 or 1.
pub const FOLLOW_ONLY: &str = "FOLLOW_ONLY";

/// The symbol of the switch that measures where a fork stands still: a `u8`, 0 or 1.
pub const MEASURE_WAITS: &str = "MEASURE_WAITS";

/// The symbol of the switch that sends every exec of every child: a `u8`, 0 or 1.
pub const FOLLOW_EXECS: &str = "FOLLOW_EXECS";
/// The symbol of the switch that sends the end of every child: a `u8`, 0 or 1.
pub const FOLLOW_EXITS: &str = "FOLLOW_EXITS";

/// The symbol of the address of the kernel's array of per-CPU offsets: a `u64`, 0 if it is not
/// known.
pub const PER_CPU_OFFSETS: &str = "PER_CPU_OFFSETS";
/// The symbol of the number of CPUs that the host may have: a `u32`.
pub const CPUS: &str = "CPUS";

/// The symbol of the switch for direct loads of the calling task's fields: a `u8`, 0 or 1.
pub const TYPED: &str = "TYPED";
/// The helper that direct loads need, by the name of the kernel's function.
pub const TYPED_HELPER: &str = "bpf_get_current_task_btf";

/// The symbol of the switch that [`TASK_REGS_HELPER`] can be called: a `u8`, 0 or 1.
pub const TASK_REGS: &str = "TASK_REGS";
/// The helper that finds a task's registers, by the name of the kernel's function: 5.15 and later.
pub const TASK_REGS_HELPER: &str = "bpf_task_pt_regs";

/// A value in the map `FOLLOW`: the attempts of the process are shown, and those of its
/// descendants.
pub const FOLLOW_SHOWN: u8 = 1;
/// A value in the map `FOLLOW`: only the attempts of the children are shown. That is for fork-trace
/// itself, which starts the command.
pub const FOLLOW_CHILDREN: u8 = 2;
/// A value in the map `FOLLOW`: the attempts of the process are shown, and those of its children
/// are not.
pub const FOLLOW_ALONE: u8 = 3;
/// A value in the map `FOLLOW`: the process is the child of one with [`FOLLOW_ALONE`], so only its
/// start is shown.
pub const FOLLOW_START: u8 = 4;
