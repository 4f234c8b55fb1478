//! What `fork-trace explain` says of the calls by which a program makes a task: system calls, and functions
//! of the C library. This file is data.

use fork_trace_common::stage::Stage;

/// The words about one call.
pub(super) struct CallPage {
    pub(super) name: &'static str,
    /// What it is, in one line.
    pub(super) title: &'static str,
    /// Where it is.
    pub(super) at: &'static str,
    /// What happens.
    pub(super) what: &'static str,
    /// What the child shares with its caller, and what is copied.
    pub(super) shares: &'static str,
    /// What makes it slow.
    pub(super) slow: &'static str,
    /// How it fails.
    pub(super) fails: &'static str,
}

macro_rules! pages {
    ($($name:expr, $title:literal, $at:literal, $what:literal, $shares:literal, $slow:literal, $fails:literal;)*) => {
        /// A page for each call.
        pub(super) const CALLS: &[CallPage] = &[$(CallPage {
            name: $name,
            title: $title,
            at: $at,
            what: $what,
            shares: $shares,
            slow: $slow,
            fails: $fails,
        },)*];
    };
}

pages! {
    "fork", "a system call, and the C library's function of that name", "kernel/fork.c, glibc posix/fork.c",
        "The function in the C library runs the handlers of pthread_atfork and takes locks, then it makes the system \
         call clone with the flags word 0x1200011 (CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, exit signal SIGCHLD). \
         The system call fork itself is made by few programs today, such as those of other languages' runtimes; it is \
         clone with only the exit signal SIGCHLD. Both come to kernel_clone. Only the calling thread exists in the \
         child.",
        "Nothing is shared by a flag: the child has copies of everything. Its memory is copied on write: mappings and \
         page tables at once, pages when one of both writes to them. Open files are the same open files, with a table \
         of the child's own.",
        "Resident memory and mappings (copy_mm), waiting for mmap_lock or cgroup_threadgroup_rwsem, and, before and \
         after the call, handlers and locks of the C library. With threads, each page written to afterwards costs a \
         fault in the caller too.",
        "EAGAIN at a limit on tasks, ENOMEM without memory. `fork-trace explain EAGAIN` lists what may have refused it.";
    "vfork", "a system call, and the C library's function of that name", "kernel/fork.c, glibc sysdeps/unix/sysv/linux/x86_64/vfork.S",
        "The child runs in the caller's memory, on the caller's stack, and the calling thread stands still until the \
         child has made exec or ended. The other threads of the caller run on. No handlers of pthread_atfork run.",
        "Memory is shared (CLONE_VM) and the caller waits (CLONE_VFORK). Files, signal handlers and the working \
         directory are copied.",
        "The call itself costs the same for a process of any size. The caller is held as long as the child needs for \
         exec: told as held_ns, in the stage wait_for_vfork_done.",
        "As fork, but hardly ever for want of memory, because none is copied.";
    "clone", "a system call, and the C library's function of that name", "kernel/fork.c, glibc sysdeps/unix/sysv/linux/clone.c",
        "The flags say what the child shares, and the lowest byte which signal its parent gets when it ends. glibc's \
         fork makes this system call, though not through the function clone, and so do posix_spawn and pthread_create \
         where clone3 is not to be had. A caller that gives the child a stack makes it begin there.",
        "What the flags say: `fork-trace explain CLONE_VM` and so on, or a whole flags word: \
         `fork-trace explain 0x1200011`.",
        "Without CLONE_VM: see fork. With it: only what is waited for.",
        "EINVAL for flags that do not go together, besides all that refuses a fork.";
    "clone3", "a system call", "kernel/fork.c",
        "It takes its arguments as a struct, which can grow: 64 bits of flags, the exit signal apart, a stack with its \
         size, a pidfd, numbers for the child (set_tid), a control group to begin in (CLONE_INTO_CGROUP). glibc makes \
         threads and posix_spawn with it, from 2.34 on, and falls back to clone where it gives ENOSYS.",
        "What the flags say.",
        "As clone. Copying and checking its arguments takes less than a microsecond.",
        "ENOSYS where a seccomp filter does not know it (old container runtimes): the C library makes clone instead, \
         and fork-trace joins both. E2BIG and EINVAL for a struct that the kernel does not know, EBADF for a control \
         group that is none, EEXIST for a number that is taken.";
    Stage::LibcSyscall.row().name, "a function of the C library", "glibc sysdeps/nptl/_Fork.c, 2.34 and later",
        "It makes the system call as fork does, but runs no handlers of pthread_atfork and takes no locks. It may be \
         called in a signal handler. In the child, malloc and stdio may be unusable if the caller has threads. fork \
         calls it.",
        "As fork.",
        "As the system call.",
        "As fork.";
    "posix_spawn", "a function of the C library", "glibc sysdeps/unix/sysv/linux/spawni.c",
        "It maps a stack for the child, blocks signals, makes clone3 or clone with CLONE_VM and CLONE_VFORK, and the \
         child, in the caller's memory, does the file actions and makes exec. If exec fails, the child says so through \
         that memory, and the function returns the error: then a task was made all the same. posix_spawnp also looks \
         the program up in PATH.",
        "Memory is shared until exec. Files, signal handlers and the working directory are copied. CLONE_CLEAR_SIGHAND \
         is used where the kernel has it.",
        "The caller is held until exec: a PATH with many folders, many file actions, an exec from a slow disk.",
        "It returns the error and does not set errno. EAGAIN or ENOMEM without an attempt in fork-trace means that the \
         stack could not be mapped: RLIMIT_AS, vm.max_map_count, or overcommit.";
    "posix_spawnp", "a function of the C library", "glibc posix/spawnp.c",
        "It is posix_spawn, with the program looked up in the folders of PATH by the child.",
        "As posix_spawn.",
        "As posix_spawn; each folder of PATH that lacks the program is a failed exec.",
        "As posix_spawn.";
    "pthread_create", "a function of the C library", "glibc nptl/pthread_create.c",
        "It takes a stack from its list, or maps one (8 MiB of addresses by default, with a guard page), and makes \
         clone3 or clone with all that a thread shares: the flags word 0x3d0f00.",
        "Memory, files, signal handlers, working directory, semaphore undo list, and the thread group.",
        "Mapping the stack takes mmap_lock for writing, and waits for other threads that hold it. The call itself \
         copies nothing of the memory.",
        "It returns EAGAIN, also where mmap had failed with ENOMEM: then there is no attempt at all in fork-trace \
         (RLIMIT_AS, vm.max_map_count, overcommit). Otherwise it is refused as a fork is.";
    "pthread_atfork", "a function of the C library", "glibc posix/register-atfork.c",
        "It registers three handlers: one that runs before a fork in the caller, one after it in the caller, one in \
         the child. They make locks of a library consistent in the child. vfork, posix_spawn and _Fork do not run them.",
        "Nothing.",
        "Each fork waits for all handlers: see __run_prefork_handlers, __run_postfork_handlers and atfork_run_child. \
         `fork-trace --libc` measures them.",
        "It returns ENOMEM.";
    "system", "a function of the C library", "glibc sysdeps/posix/system.c",
        "It runs a command by /bin/sh, through posix_spawn, and waits for it with SIGINT and SIGQUIT ignored.",
        "As posix_spawn.",
        "The shell and its command: the spawn is the smallest part.",
        "It returns -1 if no shell could be started.";
    "popen", "a function of the C library", "glibc libio/iopopen.c",
        "It makes a pipe and runs a command by /bin/sh through posix_spawn, with one end of the pipe.",
        "As posix_spawn.",
        "As posix_spawn.",
        "It returns a null pointer.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_one_page() {
        for (place, page) in CALLS.iter().enumerate() {
            assert!(CALLS.iter().skip(place + 1).all(|other| other.name != page.name));
            for text in [page.what, page.shares, page.slow, page.fails] {
                assert!(text.ends_with('.'), "{}: {text}", page.name);
            }
        }
    }
}
