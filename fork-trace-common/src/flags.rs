//! The clone flags, and the flags of a task that tell the kernel's own tasks from a user's. Values
//! and spelling are the kernel's.
//!
//! KERNEL: include/uapi/linux/sched.h, include/linux/sched.h.

/// A flag of a task: it is a kernel thread.
pub const PF_KTHREAD: u32 = 0x0020_0000;
/// A flag of a task: it is a thread of `io_uring`.
pub const PF_IO_WORKER: u32 = 0x10;
/// A flag of a task, from 6.4 on: it is a thread that the kernel has made for a process (vhost).
pub const PF_USER_WORKER: u32 = 0x4000;

/// The signal that a parent usually gets when a child ends; arch/x86/include/uapi/asm/signal.h.
pub const SIGCHLD: u64 = 17;
/// The low byte of the flags word of `clone`: the signal that the parent gets when the child ends.
pub const CSIGNAL: u64 = 0xff;
/// Share the address space.
pub const CLONE_VM: u64 = 0x100;
/// Share root, working directory and umask.
pub const CLONE_FS: u64 = 0x200;
/// Share the file descriptor table.
pub const CLONE_FILES: u64 = 0x400;
/// Share the signal handlers.
pub const CLONE_SIGHAND: u64 = 0x800;
/// The parent waits until the child execs or ends.
pub const CLONE_VFORK: u64 = 0x4000;
/// The caller's parent becomes the child's.
pub const CLONE_PARENT: u64 = 0x8000;
/// Same thread group as the caller.
pub const CLONE_THREAD: u64 = 0x1_0000;
/// Share the System V semaphore undo list.
pub const CLONE_SYSVSEM: u64 = 0x4_0000;

/// A new time namespace; `clone3` only.
pub const CLONE_NEWTIME: u64 = 0x80;
/// The caller gets a file descriptor that stands for the child.
pub const CLONE_PIDFD: u64 = 0x1000;
/// A new mount namespace.
pub const CLONE_NEWNS: u64 = 0x2_0000;
/// Thread-local storage is set for the child.
pub const CLONE_SETTLS: u64 = 0x8_0000;
/// The child's id is stored in the parent.
pub const CLONE_PARENT_SETTID: u64 = 0x10_0000;
/// It has no effect in `clone`, and `clone3` refuses it.
pub const CLONE_DETACHED: u64 = 0x40_0000;
/// A new cgroup namespace.
pub const CLONE_NEWCGROUP: u64 = 0x200_0000;
/// A new host name namespace.
pub const CLONE_NEWUTS: u64 = 0x400_0000;
/// A new System V IPC namespace.
pub const CLONE_NEWIPC: u64 = 0x800_0000;
/// A new user namespace.
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
/// A new pid namespace.
pub const CLONE_NEWPID: u64 = 0x2000_0000;
/// A new network namespace.
pub const CLONE_NEWNET: u64 = 0x4000_0000;
/// Signal handlers are reset; `clone3` only.
pub const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// The child begins in another control group; `clone3` only.
pub const CLONE_INTO_CGROUP: u64 = 1 << 33;
/// The child reaps itself; `clone3` only, 7.1 and later.
pub const CLONE_AUTOREAP: u64 = 1 << 34;
/// The child may gain no privileges; `clone3` only, 7.1 and later.
pub const CLONE_NNP: u64 = 1 << 35;
/// The child is killed when its pidfd is closed; `clone3` only, 7.1 and later.
pub const CLONE_PIDFD_AUTOKILL: u64 = 1 << 36;
/// A new, empty mount namespace; `clone3` only, 7.1 and later.
pub const CLONE_EMPTY_MNTNS: u64 = 1 << 37;

/// Every clone flag, the lowest bit first: its value and the kernel's spelling.
pub const FLAGS: &[(u64, &str)] = &[
    (0x80, "CLONE_NEWTIME"),
    (0x100, "CLONE_VM"),
    (0x200, "CLONE_FS"),
    (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"),
    (0x1000, "CLONE_PIDFD"),
    (0x2000, "CLONE_PTRACE"),
    (0x4000, "CLONE_VFORK"),
    (0x8000, "CLONE_PARENT"),
    (0x1_0000, "CLONE_THREAD"),
    (0x2_0000, "CLONE_NEWNS"),
    (0x4_0000, "CLONE_SYSVSEM"),
    (0x8_0000, "CLONE_SETTLS"),
    (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x40_0000, "CLONE_DETACHED"),
    (0x80_0000, "CLONE_UNTRACED"),
    (0x100_0000, "CLONE_CHILD_SETTID"),
    (0x200_0000, "CLONE_NEWCGROUP"),
    (0x400_0000, "CLONE_NEWUTS"),
    (0x800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
    (0x8000_0000, "CLONE_IO"),
    (1 << 32, "CLONE_CLEAR_SIGHAND"),
    (1 << 33, "CLONE_INTO_CGROUP"),
    (1 << 34, "CLONE_AUTOREAP"),
    (1 << 35, "CLONE_NNP"),
    (1 << 36, "CLONE_PIDFD_AUTOKILL"),
    (1 << 37, "CLONE_EMPTY_MNTNS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_one_bit_in_order() {
        for pair in FLAGS.windows(2) {
            assert!(pair[0].0 < pair[1].0);
        }
        assert!(FLAGS.iter().all(|(bit, _)| bit.is_power_of_two()));
    }
}
