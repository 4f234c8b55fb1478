//! What `fork-trace explain` says of each clone flag. This file is data.

use fork_trace_common::flags;

/// What each flag does, and who uses it.
pub(super) const FLAGS: &[(u64, &str)] = &[
    (
        flags::CLONE_NEWTIME,
        "The child begins in a new time namespace, whose clocks can be shifted. Only clone3 takes it: for clone the bit \
         is part of the exit signal.",
    ),
    (
        flags::CLONE_VM,
        "Caller and child use one address space: what one writes the other reads, and nothing is copied. Threads, \
         vfork and posix_spawn have it.",
    ),
    (
        flags::CLONE_FS,
        "Caller and child have one root, working directory and umask: chdir of one moves the other.",
    ),
    (
        flags::CLONE_FILES,
        "Caller and child have one table of open files: a descriptor that one opens or closes is open or closed for \
         the other. Without it the child gets a copy of the table, in which the open files (and their offsets) are \
         the same.",
    ),
    (
        flags::CLONE_SIGHAND,
        "Caller and child have one table of signal handlers. Pending and blocked signals stay apart. CLONE_VM has to \
         be there too.",
    ),
    (
        flags::CLONE_PIDFD,
        "The caller gets a file descriptor that stands for the child: it can be polled for its end and takes signals \
         without the danger that the number has been given to another process.",
    ),
    (
        0x2000,
        "If the caller is traced by ptrace, the child is traced too (CLONE_PTRACE). Debuggers need it seldom, because \
         PTRACE_O_TRACEFORK does the same.",
    ),
    (
        flags::CLONE_VFORK,
        "The caller stands still until the child has made exec or ended. vfork and posix_spawn have it, because the \
         child uses their memory.",
    ),
    (
        flags::CLONE_PARENT,
        "The child's parent is the caller's parent, which gets the exit signal and waits for it.",
    ),
    (
        flags::CLONE_THREAD,
        "The child is a thread of the caller's process: one process id, one exit, no exit signal. CLONE_SIGHAND has to \
         be there too.",
    ),
    (
        flags::CLONE_NEWNS,
        "The child gets a copy of the mount tree: what it mounts others do not see, unless it is propagated.",
    ),
    (
        flags::CLONE_SYSVSEM,
        "Caller and child have one list of System V semaphore operations to undo; it is undone when the last of them \
         ends.",
    ),
    (
        flags::CLONE_SETTLS,
        "The child gets its own thread pointer (FS base on x86), at which its thread-local variables are.",
    ),
    (
        flags::CLONE_PARENT_SETTID,
        "The child's thread id is stored at an address of the caller's memory, before the call returns.",
    ),
    (
        0x20_0000,
        "When the child ends or makes exec, the kernel sets the word at a given address to 0 and wakes who waits on it \
         by futex. pthread_join waits for that word.",
    ),
    (
        flags::CLONE_DETACHED,
        "It has had no effect since Linux 2.6. clone ignores it, clone3 refuses it, and it does not go with \
         CLONE_PIDFD.",
    ),
    (
        0x80_0000,
        "A tracer cannot force CLONE_PTRACE on this child. The kernel uses it for its own threads.",
    ),
    (
        0x100_0000,
        "The child's thread id is stored at an address of the child's memory, before it runs in user space. The store \
         is the child's first copy-on-write fault after a fork.",
    ),
    (flags::CLONE_NEWCGROUP, "The child sees its own control group as the root of the hierarchy."),
    (
        flags::CLONE_NEWUTS,
        "The child gets a copy of host name and domain name, which it may change.",
    ),
    (
        flags::CLONE_NEWIPC,
        "The child gets empty System V IPC objects and POSIX message queues of its own.",
    ),
    (
        flags::CLONE_NEWUSER,
        "The child gets a new user namespace, in which it has all capabilities. No privilege is needed for it, unless \
         the distribution forbids it. user.max_user_namespaces limits it.",
    ),
    (
        flags::CLONE_NEWPID,
        "The child is number 1 of a new pid namespace. When it ends, all others of the namespace are killed, and no \
         fork into it succeeds any more.",
    ),
    (
        flags::CLONE_NEWNET,
        "The child gets network devices, addresses, routes and ports of its own: at first only a loopback device. It \
         takes milliseconds, and a lock of the whole host.",
    ),
    (
        0x8000_0000,
        "Caller and child have one I/O context, so that a scheduler for disks sees them as one.",
    ),
    (
        flags::CLONE_CLEAR_SIGHAND,
        "Signal handlers are set to their default in the child, so that it need not do so one by one before exec. \
         posix_spawn uses it. Ignored signals stay ignored.",
    ),
    (
        flags::CLONE_INTO_CGROUP,
        "The child begins in the control group (version 2) that a file descriptor names, so that nothing it does is \
         charged to the caller's. It needs the right to move a process there.",
    ),
    (flags::CLONE_AUTOREAP, "The child leaves no zombie, and its parent need not wait for it."),
    (flags::CLONE_NNP, "The child may gain no privileges by exec (no_new_privs)."),
    (
        flags::CLONE_PIDFD_AUTOKILL,
        "The child is killed when the pidfd that the call returned is closed. CLONE_PIDFD and CLONE_AUTOREAP have to be \
         there too.",
    ),
    (
        flags::CLONE_EMPTY_MNTNS,
        "The child gets a new mount namespace with nothing but an empty root in it.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_has_its_words_in_order() {
        let told: Vec<_> = FLAGS.iter().map(|(value, _)| *value).collect();
        let flags: Vec<_> = flags::FLAGS.iter().map(|(value, _)| *value).collect();
        assert_eq!(told, flags);
    }
}
