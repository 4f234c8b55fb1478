//! The one table of scenarios. Each of its rows names a function in a file below, and those know
//! neither the table nor one another.

mod exec;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_i386.rs")]
mod i386;
mod pidns;
mod process;
mod refused;
mod restart;
mod thread;

use self::refused::{
    ended, group, invalid, limit, machine, namespace, permission, seccomp, sharing, tracer,
};
use crate::call::Outcome;

/// One workload with a known truth.
pub(crate) struct Scenario {
    /// What it is called on the command line and in the output.
    pub(crate) name: &'static str,
    /// What it does, for `forker list`.
    pub(crate) description: &'static str,
    /// Whether it costs so much memory or time that it runs only when asked for, by name or with
    /// `all`.
    pub(crate) heavy: bool,
    /// Makes its attempts; whatever child it leaves is waited for afterwards.
    pub(crate) run: fn() -> Outcome,
}

const fn row(name: &'static str, run: fn() -> Outcome, description: &'static str) -> Scenario {
    Scenario { name, description, heavy: false, run }
}

const fn heavy(name: &'static str, run: fn() -> Outcome, description: &'static str) -> Scenario {
    Scenario { name, description, heavy: true, run }
}

/// Every scenario, in the order of a full run.
// Each row stays on one line.
#[rustfmt::skip]
pub(crate) static SCENARIOS: [Scenario; 67] = [
    row("fork-libc", process::fork_libc, "libc's fork()"),
    row("fork-raw", process::fork_raw, "the fork system call"),
    row("vfork", process::vfork, "the vfork system call"),
    row("vfork-exec", exec::vfork_exec, "vfork, and the child executes /bin/true"),
    row("posix-spawn", exec::posix_spawn, "libc's posix_spawn() of /bin/true"),
    row("clone-raw", process::clone_raw, "clone with SIGCHLD only"),
    row("clone-parent", process::clone_parent, "clone with PARENT: a child makes its own sibling"),
    row("clone-files-fs", process::clone_files_fs, "clone with FILES and FS"),
    row("clone-vm", process::clone_vm, "clone with VM and SIGHAND, on a stack of its own"),
    row("clone-vfork", process::clone_vfork, "clone with VM and VFORK, as in musl's posix_spawn"),
    row("clone-untraced-exit0", process::clone_untraced_exit0, "UNTRACED, and no exit signal"),
    row("clone3-64", process::clone3_64, "clone3 with the struct of Linux 5.3"),
    row("clone3-88", process::clone3_88, "clone3 with the struct of Linux 5.7"),
    row("clone3-pidfd", process::clone3_pidfd, "clone3 that returns a pidfd too"),
    row("clone3-clear-sighand", process::clone3_clear_sighand, "a flag above 32 bits"),
    row("thread", thread::one, "a thread"),
    row("threads-many", thread::many, "eight threads at once, each forks in libc"),
    row("nested", process::nested, "a child forks a child that forks a child"),
    row("double-fork", process::double_fork, "a child forks and exits before its own child does"),
    row("newpid", pidns::newpid, "clone with NEWPID"),
    row("in-pidns", pidns::in_pidns, "a fork by the first process of a pid namespace"),
    row("i386-fork", i386::fork, "int 0x80, number 2"),
    row("i386-vfork", i386::vfork, "int 0x80, number 190"),
    row("i386-clone", i386::clone, "int 0x80, number 120, with SIGCHLD only"),
    row("i386-clone3", i386::clone3, "int 0x80, number 435, with the struct of Linux 5.7"),
    row("i386-traps", i386::traps, "calls that only look like forks; makes no attempt"),
    row("einval-thread", invalid::einval_thread, "THREAD without SIGHAND: EINVAL"),
    row("einval-sighand", invalid::einval_sighand, "SIGHAND without VM: EINVAL"),
    row("einval-newns-fs", invalid::einval_newns_fs, "NEWNS with FS: EINVAL"),
    row("einval-clone3-size", invalid::einval_clone3_size, "a struct of 32 bytes: EINVAL"),
    row("e2big-clone3", invalid::e2big_clone3, "4097 bytes; an unknown field in use: E2BIG"),
    row("efault-clone3", invalid::efault_clone3, "a NULL struct: EFAULT"),
    row("einval-clone3-exit-signal", invalid::einval_clone3_exit_signal, "65 and 256: EINVAL"),
    row("eexist-set-tid", permission::taken_tid, "the tid of init: EEXIST"),
    row("eperm-newns", permission::mount_namespace, "NEWNS as nobody: EPERM"),
    row("eagain-nproc", limit::processes_of_user, "a user's limit of processes: EAGAIN"),
    row("eagain-nproc-userns", limit::processes_of_namespace, "the limit a user namespace was made under: EAGAIN"),
    row("eagain-nproc-io-workers", limit::workers_of_user, "a user's limit, filled by workers of io_uring: EAGAIN"),
    row("eagain-exec", sharing::with_exec, "FS while another thread is inside execve: EAGAIN"),
    row("eagain-pids", group::pids, "the pids limit of a control group: EAGAIN"),
    row("eagain-pids-zombies", group::zombies, "the pids limit, filled by zombies: EAGAIN"),
    row("enomem-memory", group::memory, "the memory of a control group: ENOMEM"),
    row("seccomp", seccomp::clone, "seccomp answers clone with EPERM"),
    row("seccomp-clone3-enosys", seccomp::clone3, "and clone3 with ENOSYS"),
    row("seccomp-fallback", seccomp::clone3_then_clone, "clone3 with ENOSYS, and clone instead"),
    row("tracer", tracer::clone, "a tracer takes clone away from the kernel"),
    row("failed-then-ok", invalid::failed_then_ok, "EINVAL, then a success in the same thread"),
    row("eagain-deadline", limit::deadline, "a caller under SCHED_DEADLINE: EAGAIN"),
    row("enomem-dead-pidns", namespace::dead_pidns, "a pid namespace whose init is gone: ENOMEM"),
    row("einval-unshared-thread", namespace::unshared_thread, "a thread after unshare: EINVAL"),
    row("einval-init-sibling", namespace::sibling_of_init, "PARENT by an init: EINVAL"),
    row("enospc-user", namespace::no_user_namespaces, "user.max_user_namespaces is 0: ENOSPC"),
    row("enospc-net", namespace::no_net_namespaces, "user.max_net_namespaces is 0: ENOSPC"),
    row("eperm-set-tid", permission::set_tid, "set_tid as nobody: EPERM"),
    row("emfile-pidfd", limit::open_files, "PIDFD without a free descriptor: EMFILE"),
    row("eperm-chroot", permission::user_namespace_in_chroot, "NEWUSER in a chroot: EPERM"),
    row("eperm-unmapped", permission::user_namespace_without_ids, "NEWUSER without mapped ids: EPERM"),
    row("eexist-without-process", permission::taken_without_process, "the tid of a zombie, then of a session: EEXIST"),
    row("enomem-mapping", machine::too_large_a_mapping, "a mapping larger than memory: ENOMEM"),
    row("enomem-killed", ended::while_copying, "SIGALRM during the copy of memory: ENOMEM"),
    row("enomem-oom-kill", ended::by_oom_killer, "the out-of-memory killer of a group: ENOMEM"),
    row("into-cgroup", group::into_cgroup, "EBADF, ENOENT, EBUSY, EOPNOTSUPP, EACCES"),
    heavy("eagain-pid-max", namespace::no_numbers, "no number below a namespace's pid_max: EAGAIN"),
    heavy("eagain-threads-max", machine::no_threads, "kernel.threads-max, in a guest: EAGAIN"),
    heavy("enomem-overcommit", machine::no_promises, "vm.overcommit_memory=2, in a guest: ENOMEM"),
    heavy("big-parent", process::big_parent, "a fork with 256 MiB of touched memory"),
    heavy("restart", restart::restart, "300 forks under a flood of signals; some restart"),
];
