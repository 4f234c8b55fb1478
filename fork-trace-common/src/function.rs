//! The function table: kernel functions that a fork runs, and that a kernel may let us probe at
//! entry and return.
//!
//! A row gives a function's names, because it may have been renamed; the parameters that it may
//! have, so that a program is not attached to another function of the same name; and how it says
//! that it failed. Which stage a function measures is said in the stage table.

/// How often a fork runs a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frequency {
    /// Once at most. If it runs more often, the first run counts, or where the row says so the last.
    Once,
    /// Many times, for example once for each mapping. The runs are counted, and their times added
    /// up.
    Many,
}

/// What a function's return value says of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Nothing.
    Nothing,
    /// It is an `int`. A value below 0 is the negative errno.
    Errno,
    /// It is a pointer. The function failed if that is an `ERR_PTR`, or null, which means that
    /// there was no memory.
    Pointer,
}

/// One function.
#[derive(Clone, Copy, Debug)]
pub struct FunctionRow {
    /// The row's function.
    pub function: Function,
    /// Its name in the names of programs: `fentry_NAME` and so on.
    pub id: &'static str,
    /// The kernel's names for it, the newest first.
    pub names: &'static [&'static str],
    /// The lists of parameters that it may have. A pointer is given as the struct that it points
    /// to, followed by `*`, and everything else as `int`. To a function with another list no
    /// program must be attached by BTF, because the trampoline would save another number of
    /// registers than the function has parameters.
    pub parameters: &'static [&'static str],
    /// How often a fork runs it.
    pub frequency: Frequency,
    /// What its return value says of a failure.
    pub returns: Returns,
    /// It runs mostly outside of forks, or only when a fork fails. So it is only probed if all
    /// stages are asked for.
    pub busy: bool,
    /// It may block for a long time. So it gets no kretprobe, because the kernel has only a few
    /// return slots for each function.
    pub waits: bool,
    /// The thread that forks may run it for other tasks first: in an interrupt that frees tasks, or when it
    /// finishes the switch away from a task that has ended. So the last run counts.
    ///
    /// KERNEL: kernel/exit.c `delayed_put_task_struct`, kernel/pid.c `delayed_put_pid`,
    /// kernel/sched/core.c `finish_task_switch`.
    pub last: bool,
}

/// The value of a function's arity global if its return value is not to be read.
pub const NO_RETURN: u8 = u8::MAX;

/// What the symbol of each function's arity global begins with; the function's `id` follows. It is
/// a `u8`: how many parameters the function has on this kernel, or [`NO_RETURN`]. A BTF program
/// finds the return value behind the parameters.
pub const ARITY: &str = "ARITY_";

/// The symbol of the switch that says whether functions are probed: a `u8`, 0 or 1.
pub const FUNCTIONS_ON: &str = "FUNCTIONS_ON";

/// Hands every function to macro `$m`, in kernel order: those that run once, then `;;`, then those
/// that run many times.
///
/// Each has the form `Once Variant = id [names] [parameters] -> returns, notes;`.
#[macro_export]
macro_rules! for_each_function {
    ($m:ident) => {
        $m! {
            Once CopyCloneArgs = copy_clone_args_from_user ["copy_clone_args_from_user"]
                ["kernel_clone_args*,clone_args*,int"] -> Errno;
            Once KernelClone = kernel_clone ["kernel_clone", "_do_fork"]
                ["kernel_clone_args*"] -> Errno, waits;
            Once CopyProcess = copy_process ["copy_process"]
                ["pid*,int,int,kernel_clone_args*"] -> Pointer;
            Once RecalcSigpending = recalc_sigpending ["recalc_sigpending"] [""] -> Nothing, busy;
            Once TskForkGetNode = tsk_fork_get_node ["tsk_fork_get_node"] ["task_struct*"] -> Nothing;
            Once DupUserCpusPtr = dup_user_cpus_ptr ["dup_user_cpus_ptr"]
                ["task_struct*,task_struct*,int"] -> Errno;
            Once TaskExecStateCopy = task_exec_state_copy ["task_exec_state_copy"]
                ["task_struct*"] -> Errno;
            Once CopyCreds = copy_creds ["copy_creds"] ["task_struct*,int"] -> Errno;
            Once IsRlimitOverlimit = is_rlimit_overlimit ["is_rlimit_overlimit"]
                ["ucounts*,int,int"] -> Nothing;
            Once AcctClearIntegrals = acct_clear_integrals ["acct_clear_integrals"]
                ["task_struct*"] -> Nothing;
            Once SchedFork = sched_fork ["sched_fork"] ["int,task_struct*"] -> Errno;
            Once PerfEventInitTask = perf_event_init_task ["perf_event_init_task"]
                ["task_struct*,int"] -> Errno;
            Once AuditAlloc = audit_alloc ["audit_alloc"] ["task_struct*"] -> Errno;
            Once SecurityTaskAlloc = security_task_alloc ["security_task_alloc"]
                ["task_struct*,int"] -> Errno;
            Once CopySemundo = copy_semundo ["copy_semundo"] ["int,task_struct*"] -> Errno;
            Once DupFd = dup_fd ["dup_fd"]
                ["files_struct*,fd_range*", "files_struct*,int,int*"] -> Pointer;
            Once CopyFsStruct = copy_fs_struct ["copy_fs_struct"] ["fs_struct*"] -> Pointer;
            Once PosixCputimersGroupInit = posix_cputimers_group_init ["posix_cputimers_group_init"]
                ["posix_cputimers*,int"] -> Nothing;
            Once MmInit = mm_init ["mm_init"]
                ["mm_struct*,task_struct*", "mm_struct*,task_struct*,user_namespace*"] -> Pointer;
            Once UprobeStartDupMmap = uprobe_start_dup_mmap ["uprobe_start_dup_mmap"] [""] -> Nothing;
            Once DupMmap = dup_mmap ["dup_mmap"] ["mm_struct*,mm_struct*"] -> Errno;
            Once UprobeDupMmap = uprobe_dup_mmap ["uprobe_dup_mmap"]
                ["mm_struct*,mm_struct*"] -> Nothing;
            Once FlushTlbMmRange = flush_tlb_mm_range ["flush_tlb_mm_range"]
                ["mm_struct*,int,int,int,int"] -> Nothing, busy;
            Once UprobeEndDupMmap = uprobe_end_dup_mmap ["uprobe_end_dup_mmap"] [""] -> Nothing;
            Once CopyNamespaces = copy_namespaces ["copy_namespaces"] ["int,task_struct*"] -> Errno;
            Once CreateNewNamespaces = create_new_namespaces ["create_new_namespaces"]
                ["int,task_struct*,user_namespace*,fs_struct*"] -> Pointer;
            Once CopyThread = copy_thread ["copy_thread"]
                ["task_struct*,kernel_clone_args*", "int,int,int,task_struct*,int"] -> Errno;
            Once AllocPid = alloc_pid ["alloc_pid"] ["pid_namespace*,int*,int"] -> Pointer;
            Once UserDisableSingleStep = user_disable_single_step ["user_disable_single_step"]
                ["task_struct*"] -> Nothing;
            Once CgroupCanFork = cgroup_can_fork ["cgroup_can_fork"]
                ["task_struct*,kernel_clone_args*"] -> Errno;
            Once SchedCgroupFork = sched_cgroup_fork ["sched_cgroup_fork"]
                ["task_struct*,kernel_clone_args*"] -> Errno;
            Once FutexHash = futex_hash_allocate_default ["futex_hash_allocate_default"]
                [""] -> Errno;
            Once GetSeccompFilter = get_seccomp_filter ["get_seccomp_filter"]
                ["task_struct*"] -> Nothing;
            Once ProcForkConnector = proc_fork_connector ["proc_fork_connector"]
                ["task_struct*"] -> Nothing;
            Once SchedPostFork = sched_post_fork ["sched_post_fork"]
                ["task_struct*", "task_struct*,kernel_clone_args*"] -> Nothing;
            Once CgroupPostFork = cgroup_post_fork ["cgroup_post_fork"]
                ["task_struct*,kernel_clone_args*"] -> Nothing;
            Once PerfEventFork = perf_event_fork ["perf_event_fork"] ["task_struct*"] -> Nothing;
            Once UprobeCopyProcess = uprobe_copy_process ["uprobe_copy_process"]
                ["task_struct*,int"] -> Nothing;
            Once AddDeviceRandomness = add_device_randomness ["add_device_randomness"]
                ["void*,int"] -> Nothing;
            Once GetTaskPid = get_task_pid ["get_task_pid"] ["task_struct*,int"] -> Nothing;
            Once LruGenAddMm = lru_gen_add_mm ["lru_gen_add_mm"] ["mm_struct*"] -> Nothing;
            Once WakeUpNewTask = wake_up_new_task ["wake_up_new_task"] ["task_struct*"] -> Nothing;
            Once PutPid = put_pid ["put_pid"] ["pid*"] -> Nothing, busy last;
            Once CgroupCancelFork = cgroup_cancel_fork ["cgroup_cancel_fork"]
                ["task_struct*,kernel_clone_args*"] -> Nothing, busy;
            Once FreePid = free_pid ["free_pid"] ["pid*"] -> Nothing, busy;
            Once ExitThread = exit_thread ["exit_thread"] ["task_struct*"] -> Nothing, busy;
            Once ExitNamespaces = exit_task_namespaces
                ["exit_nsproxy_namespaces", "exit_task_namespaces"] ["task_struct*"] -> Nothing, busy;
            Once Mmput = mmput ["mmput"] ["mm_struct*"] -> Nothing, busy;
            Once CleanupSighand = __cleanup_sighand ["__cleanup_sighand"]
                ["sighand_struct*"] -> Nothing, busy;
            Once ExitFs = exit_fs ["exit_fs"] ["task_struct*"] -> Nothing, busy;
            Once ExitFiles = exit_files ["exit_files"] ["task_struct*"] -> Nothing, busy;
            Once ExitSem = exit_sem ["exit_sem"] ["task_struct*"] -> Nothing, busy;
            Once SecurityTaskFree = security_task_free ["security_task_free"]
                ["task_struct*"] -> Nothing, busy last;
            Once PerfEventFreeTask = perf_event_free_task ["perf_event_free_task"]
                ["task_struct*"] -> Nothing, busy;
            Once SchedCancelFork = sched_cancel_fork ["sched_cancel_fork"]
                ["task_struct*"] -> Nothing, busy;
            Once ExitCreds = exit_creds ["exit_creds"] ["task_struct*"] -> Nothing, busy last;
            Once PutTaskStack = put_task_stack ["put_task_stack"] ["task_struct*"] -> Nothing, busy last;
            Once ScheduleTail = schedule_tail ["schedule_tail"] ["task_struct*"] -> Nothing;
            ;;
            Many VmAreaDup = vm_area_dup ["vm_area_dup"] ["vm_area_struct*"] -> Pointer, busy;
            Many AnonVmaFork = anon_vma_fork ["anon_vma_fork"]
                ["vm_area_struct*,vm_area_struct*"] -> Errno, busy;
            Many CopyPageRange = copy_page_range ["copy_page_range"]
                ["vm_area_struct*,vm_area_struct*"] -> Errno;
            Many AttachPid = attach_pid ["attach_pid"] ["task_struct*,int"] -> Nothing;
        }
    };
}

macro_rules! has {
    (busy:) => { false };
    (waits:) => { false };
    (last:) => { false };
    (busy: busy $($rest:ident)*) => { true };
    (waits: waits $($rest:ident)*) => { true };
    (last: last $($rest:ident)*) => { true };
    ($wanted:ident: $other:ident $($rest:ident)*) => { has!($wanted: $($rest)*) };
}

macro_rules! table {
    (
        $(Once $once:ident = $once_id:ident [$($once_name:literal),*] [$($once_list:literal),*]
            -> $once_returns:ident $(, $($once_note:ident)+)?;)*
        ;;
        $(Many $many:ident = $many_id:ident [$($many_name:literal),*] [$($many_list:literal),*]
            -> $many_returns:ident $(, $($many_note:ident)+)?;)*
    ) => {
        /// A function. Those that run once come first, so that the discriminant is the place in
        /// [`crate::record::FunctionTimes`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Function {
            $(#[doc = concat!("`", stringify!($once_id), "`.")] $once,)*
            $(#[doc = concat!("`", stringify!($many_id), "`.")] $many,)*
        }

        /// How many functions run once.
        pub const ONCE: usize = [$(Function::$once,)*].len();
        /// The discriminant of the first function that runs many times.
        pub const FIRST_MANY: u32 = {
            let [first, ..] = [$(Function::$many,)*];
            first as u32
        };
        /// How many functions run many times.
        pub const MANY: usize = [$(Function::$many,)*].len();

        /// Every function, in the order of [`Function`].
        pub const FUNCTIONS: &[FunctionRow] = &[
            $(row!(Once $once $once_id [$($once_name)*] [$($once_list)*] $once_returns
                [$($($once_note)+)?]),)*
            $(row!(Many $many $many_id [$($many_name)*] [$($many_list)*] $many_returns
                [$($($many_note)+)?]),)*
        ];
    };
}

macro_rules! row {
    ($frequency:ident $function:ident $id:ident [$($name:literal)*] [$($list:literal)*] $returns:ident
        [$($note:ident)*]) => {
        FunctionRow {
            function: Function::$function,
            id: stringify!($id),
            names: &[$($name),*],
            parameters: &[$($list),*],
            frequency: Frequency::$frequency,
            returns: Returns::$returns,
            busy: has!(busy: $($note)*),
            waits: has!(waits: $($note)*),
            last: has!(last: $($note)*),
        }
    };
}

for_each_function!(table);

impl Function {
    /// The function's row.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "enum and table come from one macro: each discriminant is a place in the table"
    )]
    pub const fn row(self) -> &'static FunctionRow {
        &FUNCTIONS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discriminant_is_the_place_in_the_table() {
        for (place, row) in FUNCTIONS.iter().enumerate() {
            assert_eq!(row.function as usize, place, "{}", row.id);
            assert_eq!(row.frequency == Frequency::Once, place < ONCE, "{}", row.id);
            assert!(!row.names.is_empty() && !row.parameters.is_empty(), "{}", row.id);
        }
        assert_eq!(FUNCTIONS.len(), ONCE + MANY);
        assert!(Function::PutPid.row().busy && !Function::PutPid.row().waits);
        assert!(Function::PutPid.row().last && !Function::FreePid.row().last);
        assert!(Function::KernelClone.row().waits && !Function::CopyProcess.row().busy);
    }
}
