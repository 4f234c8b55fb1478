//! What `fork-trace explain` says of each stage beyond its row in the stage table: what happens there in
//! detail, and what makes it slow. This file is data.

use fork_trace_common::stage::Stage;

/// The words about one stage.
pub(super) struct StagePage {
    pub(super) stage: Stage,
    /// What happens, and what is copied or shared by it.
    pub(super) what: &'static str,
    /// What makes it slow.
    pub(super) slow: &'static str,
}

macro_rules! pages {
    ($($stage:ident: $what:literal, $slow:literal;)*) => {
        /// A page for each stage, in the order of the stage table.
        pub(super) const PAGES: &[StagePage] =
            &[$(StagePage { stage: Stage::$stage, what: $what, slow: $slow },)*];
    };
}

pages! {
    LibcFork:
        "The wrapper runs the prepare handlers, takes the locks that must be consistent in the child, makes the \
         system call, and gives the locks back in both processes. In glibc it makes clone(0x1200011), and not \
         through the function clone(). A child that is made by another call, or by a raw system call, passes none \
         of it.",
        "Handlers of pthread_atfork that wait for something, and locks of malloc or stdio that another thread \
         holds. The time in the kernel is told by the attempt's own stages.";
    RunPreforkHandlers:
        "The prepare handlers of pthread_atfork run in the caller, the last registered first, before any lock of \
         the C library is taken. Allocators, OpenSSL, OpenBLAS, gRPC and Python register such handlers.",
        "A handler that waits for the threads of its library to come to rest, or for a lock that one of them holds.";
    NssPrepare:
        "The state of the name service switch is saved, so that the child does not reload its configuration. It \
         happens only in a process with threads.",
        "Another thread that is inside a look-up of a name and holds the lock of that state.";
    PopenLock:
        "The list of processes that popen has started is locked. It happens only in a process with threads, and in \
         glibc 2.41 and later.",
        "Another thread that is inside popen or pclose.";
    StdioLock:
        "The list of all stdio streams is locked, so that no stream appears or vanishes during the fork. It happens \
         only in a process with threads.",
        "Another thread that opens, closes or flushes streams. A thread that holds it inside fflush(NULL) holds \
         the fork up until its write is done.";
    MallocLock:
        "Every arena of malloc is locked, so that the heap is consistent in the child. It happens only in a process \
         with threads.",
        "Many arenas (up to eight for each CPU), and threads that allocate hard: each arena's lock is waited for.";
    LibcSyscall:
        "The C library makes the system call, with CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID and the exit signal \
         SIGCHLD. _Fork is also a function of its own, which runs no handlers and may be \
         called from a signal handler.",
        "All that the kernel does: see kernel_clone.";
    MallocUnlock:
        "The arenas of malloc are unlocked in the caller. It happens only in a process with threads.",
        "Many arenas; threads that were waiting for one are woken here.";
    StdioUnlock:
        "The list of stdio streams is unlocked in the caller. It happens only in a process with threads.",
        "A thread that was waiting for it is woken here.";
    RunPostforkHandlers:
        "The parent handlers of pthread_atfork run in the caller, the first registered first, after the locks were \
         given back.",
        "A handler that restarts threads of its library, or waits for a lock.";
    SysEnter:
        "The CPU has entered the kernel, and what stands before every system call is done: a tracer was asked, the \
         seccomp filter has allowed the call, and audit has noted it. clone3 also copies its arguments here.",
        "Little. A tracer or a seccomp monitor holds the call up before this stage begins, so that its time is not \
         in the total.";
    CopyCloneArgs:
        "clone3 takes its arguments as a struct. The kernel copies it from the caller's memory, checks that bytes \
         it does not know are 0, and copies the array of set_tid.",
        "A page of the caller's memory that is not there has to be read or made first.";
    Clone3ArgsValid:
        "clone3 refuses flags that it does not know, an exit signal inside the flags, CLONE_DETACHED, and a stack \
         without a size or a size without a stack.",
        "Nothing: these are comparisons.";
    KernelClone:
        "Every way to make a task comes here: fork, vfork, clone, clone3, and the kernel's own threads. It decides \
         which ptrace event the call is, makes the child by copy_process, stores its number, wakes it, and for a \
         vfork waits until the child has made exec or ended.",
        "Almost always copy_mm, or waiting in it. `fork-trace --stages` shows which part.";
    CopyProcess:
        "The child is built while nobody can see it: a task_struct, then each part copied or shared as the flags \
         say, then a pid, and at the end, under tasklist_lock, its place in the process tree. If one part fails, \
         those made before it are undone in reverse order.",
        "copy_mm for a process with much memory; cgroup_can_fork where control groups are being changed; \
         allocations when memory is short.";
    FlagChecks:
        "Combinations of flags that make no sense are refused with EINVAL: for example CLONE_THREAD without \
         CLONE_SIGHAND, or CLONE_SIGHAND without CLONE_VM.",
        "Nothing: these are comparisons.";
    SignalGate:
        "Signals that come from now on have to reach parent and child, or the fork has to be made after them. So \
         the kernel looks for pending signals, and if there are any, the call ends with ERESTARTNOINTR: the signal \
         is handled and the call is made again, which the program does not see.",
        "It takes no time itself. But a process that gets signals faster than its fork takes (a profiler's timer) \
         makes the fork again and again.";
    DupTaskStruct:
        "The task_struct is allocated and copied byte by byte, and a kernel stack is taken from a cache of the CPU \
         or allocated, and charged to the memory control group.",
        "A kernel stack that is not in the cache (two for each CPU are kept): pages are allocated and mapped. \
         Reclaim when memory is short.";
    CopyExecState:
        "The part of a task that belongs to its last exec is shared with the parent's. It exists in 7.2 and later.",
        "Nothing: a reference is counted.";
    IdentityBits:
        "Flags that do not pass on are cleared, the addresses of CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID are \
         noted, and the lists of locks with priority inheritance are made empty.",
        "Nothing: these are stores.";
    CopyCreds:
        "A thread shares the caller's credentials. Any other child gets a copy of its own; with CLONE_NEWUSER a \
         new user namespace is made for it. Since 5.15 this stands before the check of RLIMIT_NPROC, because the \
         count belongs to the credentials.",
        "CLONE_NEWUSER; a security module that copies much; reclaim when memory is short.";
    RlimitNproc:
        "The user's count of tasks, threads included, is compared with RLIMIT_NPROC, and in each user namespace \
         around with the limit that stood when the namespace was made. Root of the initial namespace, \
         CAP_SYS_RESOURCE and CAP_SYS_ADMIN pass.",
        "Nothing: these are comparisons.";
    MaxThreads:
        "The number of tasks of the whole host is compared with kernel.threads-max.",
        "Nothing: this is a comparison.";
    CgroupFork:
        "Small parts are made empty: delay accounting, CPU times, timers, lists. The NUMA memory policy is copied. \
         The child belongs to no control group yet.",
        "Little: a process with a memory policy has it copied.";
    SchedFork:
        "The scheduler gives the child its class, priority and an entity of its own. The deadline class does not \
         pass on: without SCHED_FLAG_RESET_ON_FORK such a caller is refused.",
        "Little. Where no function can be probed, this stage also holds perf_event_init_task, audit_alloc, \
         security_task_alloc and copy_semundo.";
    PerfEventInitTask:
        "Each perf event of the caller that is inherited (`perf stat`, `perf record` on a process) is cloned for \
         the child.",
        "The number of inherited events: each costs microseconds, and `perf record` on many CPUs has one for each.";
    AuditAlloc:
        "If auditing was ever on, the child gets an audit context, and the rules decide whether it is audited.",
        "Many audit rules for tasks.";
    SecurityTaskAlloc:
        "Each security module (SELinux, AppArmor, Yama, BPF LSM) is asked whether the task may be made, and \
         attaches its own state to it.",
        "A module that allocates or that runs programs, such as a BPF LSM.";
    CopySemundo:
        "With CLONE_SYSVSEM the child shares the list of System V semaphore operations that are undone at exit; \
         otherwise it begins with an empty one.",
        "Nothing: a reference is counted.";
    CopyFiles:
        "With CLONE_FILES the child shares the table of open files. Otherwise the table is copied, and each open \
         file gets one more reference.",
        "The number of open files: each costs an atomic increment. A process with a million of them takes \
         milliseconds.";
    CopyFs:
        "With CLONE_FS the child shares root, working directory and umask. Otherwise they are copied. While another \
         thread that shares them is inside execve, CLONE_FS is refused with EAGAIN.",
        "Nothing but an allocation.";
    CopySighand:
        "With CLONE_SIGHAND the child shares the table of signal handlers. Otherwise its 64 entries are copied.",
        "Nothing but an allocation.";
    CopySignal:
        "A thread shares the process-wide state: pending signals, resource limits, timers, the controlling \
         terminal. Any other child gets one of its own, with the limits copied.",
        "Nothing but an allocation.";
    CopyMm:
        "With CLONE_VM, as for threads and vfork, the child uses the caller's address space and nothing is copied. \
         Otherwise it gets one of its own: the mappings and page tables are copied, the pages are not. They are \
         shared until one of both writes, and then copied one by one (copy on write).",
        "Resident private memory: each GiB of it in pages of 4 KiB needs 2 MiB of page tables. Many mappings. Waiting \
         for mmap_lock. See dup_mmap.";
    MmInit:
        "An empty address space is allocated: the descriptor, the top page table, counters and the state of the \
         architecture.",
        "An allocation; a memory control group at its limit.";
    DupMmap:
        "Under the caller's mmap_lock, taken for writing, each mapping (vm_area_struct) is duplicated, unless \
         MADV_DONTFORK was set for it, and its page tables are copied where that is needed.",
        "Waiting for mmap_lock while other threads map, unmap or fault; many mappings; much resident memory; a \
         userfaultfd monitor that has to be told.";
    MmapWriteLock:
        "The caller's mmap_lock is taken for writing. Page faults, mmap, munmap, mprotect and reads of \
         /proc/PID/maps or smaps of the same process take it too.",
        "Another thread that holds it: a large munmap or mprotect, a fault that waits for a disk, or a monitor that \
         reads smaps.";
    CopyPageRange:
        "For each mapping that has an anon_vma the page tables are walked, each present page gets one more \
         reference and map count, and its entry is made read-only in both processes. Mappings that are shared, or \
         that were never written to, are not copied: faults fill them later.",
        "The number of present pages. Transparent huge pages make it faster by up to 512 times; pages that are \
         pinned (RDMA, io_uring buffers) are copied at once and make it slower.";
    PteAlloc:
        "A page for each page table of the child is allocated and set to 0: one for each 2 MiB of resident memory, \
         and fewer of the upper levels.",
        "Memory that is short or fragmented, and a memory control group near its limit: page tables are charged \
         to it.";
    VmAreaDup:
        "The structure of one mapping is allocated and copied. The time is that of all mappings together.",
        "The number of mappings: `wc -l /proc/PID/maps` tells it.";
    AnonVmaFork:
        "The child's mapping is linked with the anon_vmas of its ancestors, by which the kernel finds all page \
         tables that hold an anonymous page. The time is that of all mappings together.",
        "Long chains of processes that fork without exec, and many children of one parent that fork at the same \
         time: they share the root's lock.";
    FlushTlbMm:
        "The caller's pages are read-only now, and CPUs may remember them as writable. They are told to forget, \
         also those on which other threads of the caller run (an interrupt to each).",
        "Threads of the caller that run on many CPUs; in a virtual machine, CPUs that the host has taken away.";
    CopyNamespaces:
        "Without CLONE_NEW* flags the child shares the caller's namespaces, by one reference. See \
         create_new_namespaces for the others.",
        "New namespaces, mostly CLONE_NEWNET and CLONE_NEWNS.";
    CreateNewNamespaces:
        "For each CLONE_NEW* flag a namespace is made: the mount tree is copied for CLONE_NEWNS, and every network \
         protocol sets itself up for CLONE_NEWNET.",
        "CLONE_NEWNET takes locks of the whole host (pernet_ops_rwsem, and rtnl) and milliseconds; CLONE_NEWNS \
         grows with the number of mounts.";
    CopyIo:
        "With CLONE_IO the child shares the I/O context. Otherwise it takes over only the I/O priority.",
        "Nothing but, at times, an allocation.";
    CopyThread:
        "The child's registers are set so that it will return from the same system call with 0, on the stack that \
         was given. The FPU state is copied, and with CLONE_SETTLS its thread pointer is set.",
        "Large FPU state (AVX-512, AMX).";
    StackleakTaskInit:
        "Kernels that erase their stack (CONFIG_KSTACK_ERASE) note its lowest use.",
        "Nothing: this is a store.";
    AllocPid:
        "The child gets a number in its pid namespace and in each one around it. clone3 with set_tid asks for \
         certain numbers.",
        "A pid namespace that is almost full: the search goes around once. Many CPUs that fork at the same time \
         wait for pidmap_lock.";
    PidfdPrepare:
        "With CLONE_PIDFD a file that stands for the child is made, and a descriptor for it reserved; the \
         descriptor appears only once nothing can fail any more.",
        "Nothing but an allocation.";
    TaskFixups:
        "A child that shares the address space (but not a vfork's) loses the alternate signal stack, single stepping is \
         switched off, the futex state is made empty, and thread group and leader are set.",
        "Nothing: these are stores.";
    CgroupCanFork:
        "The threads of the process are held in their control groups (cgroup_threadgroup_rwsem), and each \
         controller is asked: pids compares with pids.max of the group and all above it, cpuset and others check \
         theirs. CLONE_INTO_CGROUP looks the other group up.",
        "Someone who moves processes between groups (systemd, a container runtime), or who writes to cgroup.procs, \
         holds cgroup_threadgroup_rwsem and waits for a grace period of RCU: every fork of the host waits \
         meanwhile.";
    SchedCgroupFork:
        "The scheduler puts the child into the task group of its control group and sets its first CPU.",
        "Nothing but a short lock.";
    FutexHash:
        "A process with threads gets a hash table for its private futexes, of its own, when its first thread is \
         made. It exists in 6.17 and later.",
        "An allocation that grows with the number of CPUs.";
    TasklistLock:
        "tasklist_lock is taken for writing, with interrupts off. A last look for fatal signals and for a pid \
         namespace that is ending, then the child is linked to its parent, its process group and session. From here \
         on it can be seen.",
        "Readers of tasklist_lock: wait, and kill to a group. It is one lock for the whole host, so forks on many CPUs \
         wait for each other.";
    WriteLockSlowpath:
        "The lock was taken by another CPU, and this one turns in place until it gets it. It keeps its CPU.",
        "Many CPUs that fork, exit or wait at the same time.";
    CopySeccomp:
        "The child gets the caller's seccomp filters, by one reference, and no_new_privs.",
        "Nothing: a reference is counted.";
    PtraceInitTask:
        "If the caller is traced and its tracer follows forks, the child is attached to the same tracer and will \
         stop at once.",
        "Nothing here; the child's start waits for the tracer.";
    AttachPid:
        "The child is entered under its number, and a process also under its group and session. Four short \
         insertions.",
        "Nothing: these are list operations.";
    FdInstall:
        "tasklist_lock is given back. With CLONE_PIDFD the descriptor made before becomes visible in the caller's \
         table.",
        "Nothing.";
    ProcForkConnector:
        "If someone listens on the process events connector, a message about the fork is sent to it.",
        "Listeners: each message is allocated and queued.";
    SchedPostFork:
        "The scheduler's classes do what has to wait until the child is part of the tree.",
        "Nothing.";
    CgroupPostFork:
        "The child is linked into its control group, and takes over that group's state: it is frozen if the group \
         is. cgroup_threadgroup_rwsem is given back.",
        "Nothing but short locks.";
    PerfEventFork:
        "perf, if it records this process, notes that it has a child.",
        "Nothing.";
    UprobeCopyProcess:
        "If the caller is inside functions with return probes, the list of these is copied for a child with an \
         address space of its own and for a vfork's child.",
        "Nothing but, at times, an allocation.";
    UserEventsFork:
        "A process that uses user_events passes them on.",
        "Nothing.";
    CopyOomScoreAdj:
        "A process that shares its address space without being a thread or a vfork's child takes over the OOM score \
         adjustment, under a mutex of the whole host.",
        "Others who write to /proc/PID/oom_score_adj hold the same mutex.";
    TryToFreePages:
        "An allocation finds too little free memory, so that the caller itself reclaims pages, or moves them to \
         make larger blocks free, before it goes on. It can happen in any stage that allocates.",
        "Memory that is short on the host or in the control group: pages are written out, and this task waits.";
    BadForkCleanup:
        "The attempt has failed, and what was made before is undone in reverse order. The caller gets the error when \
         this is done.",
        "What was already made: an address space that was copied in large part takes as long to tear down.";
    CgroupCancelFork: "What cgroup_can_fork charged to each controller is given back.", "Nothing.";
    FreePid: "The child's numbers are given back in each pid namespace.", "Nothing.";
    ExitThread: "What copy_thread made is undone.", "Nothing.";
    ExitNamespaces:
        "The references on namespaces are dropped. New ones that nobody uses are torn down, by a worker where that \
         takes long.",
        "New mount namespaces.";
    Mmput:
        "The child's address space is torn down: its mappings, its page tables, and the references on pages.",
        "The memory that had been copied before the failure.";
    CleanupSighand: "The table of signal handlers is dropped.", "Nothing.";
    ExitFs: "Root and working directory are dropped.", "Nothing.";
    ExitFiles: "The child's table of files is closed.", "The number of open files.";
    ExitSem: "The list of semaphore operations is dropped.", "Nothing.";
    SecurityTaskFree: "Each security module frees its state.", "Nothing.";
    PerfEventFreeTask: "The perf events that were cloned are freed.", "The number of inherited events.";
    SchedCancelFork: "The scheduling class is told that the child will not come. It exists in 6.12 and later.", "Nothing.";
    ExitCreds: "The child's credentials are dropped.", "Nothing.";
    PutTaskStack: "The kernel stack goes back to the cache of the CPU, or is freed.", "Nothing.";
    AddDeviceRandomness:
        "Kernels with the latent entropy plugin mix a value into the random pool.",
        "Nothing.";
    GetTaskPid:
        "The number of the child as its caller sees it is taken, and stored at the address of CLONE_PARENT_SETTID.",
        "A page of the caller's memory that has to be copied first, because it was just made read-only.";
    LruGenAddMm:
        "The child's address space is entered for the multi-generational LRU, where that is on. It exists in 6.1 and \
         later.",
        "Nothing but a short lock.";
    WakeUpNewTask:
        "The scheduler chooses a CPU for the child, puts it on the run queue there, and checks whether it should \
         run before the caller.",
        "A run queue whose lock is held; hosts with many CPUs take longer to choose one.";
    PtraceEventPid:
        "If a tracer asked for it, the caller stops here and tells the tracer the child's number.",
        "The tracer: the caller stands still until it lets it go.";
    WaitForVforkDone:
        "Only with CLONE_VFORK: the caller waits, because the child uses its memory, until the child has made exec \
         or ended. It is told as held_ns, and is not part of the attempt's total.",
        "A child that does much before exec (closes thousands of descriptors), an exec that reads its program from a \
         slow disk, or a child that never makes exec.";
    PutPid: "The reference on the child's number is dropped.", "Nothing.";
    SysExit:
        "The result is on its way to the caller: a preemption check of wake_up_new_task takes effect here, and work \
         that waits for the return to user space is done.",
        "The child was put on the same CPU and runs first; the caller has used up its time slice.";
    SchedSwitch:
        "The child is runnable and waits on a run queue until a CPU takes it for the first time.",
        "CPUs that are busy, a CPU quota that is used up, a low priority. The child stays on the caller's CPU if \
         that is the only one allowed.";
    RetFromFork:
        "The child's first instructions are in the kernel: it finishes the switch, stores its own number where \
         CLONE_CHILD_SETTID asks for it, and returns to user space with 0.",
        "A tracer that follows forks stops the child here. A page that has to be copied for CLONE_CHILD_SETTID.";
    ScheduleTail:
        "The switch away from the task that ran before is finished, locks are given back, and the child's number is \
         stored for CLONE_CHILD_SETTID.",
        "The store makes the first copy-on-write fault of the child.";
    ChildFork:
        "The child returns from the system call inside the C library, puts it in order, runs its handlers and \
         returns 0 from fork.",
        "Child handlers of pthread_atfork, and copy-on-write faults: each page that is written to first is copied.";
    ChildSetup:
        "The only thread of the child gets its ids and an empty robust list. The compiler puts it into _Fork.",
        "A copy-on-write fault of the page with the thread's descriptor.";
    ChildMallocUnlock:
        "The arenas of malloc are made usable for the only thread, and the other ones' are put on the list of free \
         arenas. It happens only if the parent has threads.",
        "Many arenas; each writes to a page that has to be copied first.";
    ChildStdioReset:
        "The locks of all stdio streams are made new. It happens only if the parent has threads.",
        "Many open streams.";
    ChildNss: "The state of the name service switch is set to what was saved.", "Nothing.";
    ChildLoaderReset:
        "The locks of the dynamic loader, POSIX timers and message queues are made new. The compiler puts it into \
         fork.",
        "Nothing.";
    ChildReclaimStacks:
        "The stacks of threads that the child does not have are put on the list of free stacks. The compiler puts it \
         into fork.",
        "Many threads in the parent.";
    ChildHandlers:
        "The child handlers of pthread_atfork run in the child, the first registered first.",
        "A handler that sets its library up anew: allocators, random generators, thread pools.";
}

#[cfg(test)]
mod tests {
    use fork_trace_common::stage::STAGES;

    use super::*;

    #[test]
    fn each_stage_has_its_page_in_order() {
        let pages: Vec<_> = PAGES.iter().map(|page| page.stage).collect();
        let stages: Vec<_> = STAGES.iter().map(|row| row.stage).collect();
        assert_eq!(pages, stages);
        for StagePage { stage, what, slow } in PAGES {
            assert!(what.ends_with('.') && slow.ends_with('.'), "{stage:?}");
        }
    }
}
