//! The caller's root and working directory: who shares them, and whether its root is that of its
//! mount namespace.

use fork_trace_common::refusal::{RefusalRecord, known};

use super::{
    reads::{Address, Reads},
    section::{Section, section},
};
use crate::{
    global_functions::global_functions,
    kernel::errno::EPERM,
    kernel::offsets::{
        FS_IN_EXEC, FS_ROOT_DENTRY, FS_ROOT_MNT, FS_USERS, MNT_NS_ROOT, MOUNT_MNT,
        MOUNT_MOUNTPOINT, MOUNT_PARENT, NSPROXY_MNT_NS, TASK_FS, TASK_NSPROXY, VFSMOUNT_ROOT,
    },
};

/// How many mounts a walk looks at. A host that has booted from an initial RAM disk has two of them
/// one above the other at its root.
const MOST_MOUNTS: u64 = 4;

global_functions! {
    /// Who shares the caller's root and working directory, and where its root is.
    pub(super) fn evidence_fs() {
        let Some(Section { record, reads, task, info }) = &mut section() else { return 0 };
        reads.start_over();
        let fs = reads.pointer(*task, TASK_FS.load());
        sharing(record, reads, fs);
        if info.ret == -EPERM {
            root(record, reads, *task, fs);
        }
    }
}

/// Fills in how many tasks share the caller's `fs_struct`, and whether one of them is inside `execve`.
///
/// KERNEL: kernel/fork.c `copy_fs` refuses to share it while `in_exec` is set. fs/exec.c
/// `check_unsafe_exec` sets it and `bprm_execve` clears it. It has been an `int` and a `bool`.
#[inline(always)]
fn sharing(record: &mut RefusalRecord, reads: &mut Reads, fs: Address) {
    record.fs_users = reads.int(fs, FS_USERS.load());
    let in_exec = reads.byte(fs, FS_IN_EXEC.load());
    if reads.succeeded() {
        record.bits |= known::FS;
        if in_exec != 0 {
            record.bits |= known::IN_EXEC;
        }
    }
}

/// Fills in whether the caller is in a chroot.
///
/// KERNEL: fs/namespace.c `current_chrooted` goes from the root of the mount namespace to what is
/// mounted upon it, and compares where it ends with the caller's root. This goes the same way
/// backwards: the caller's root has to be the root of a mount that lies upon the root of another, and
/// so on to the root of the namespace.
#[inline(always)]
fn root(record: &mut RefusalRecord, reads: &mut Reads, task: Address, fs: Address) {
    reads.start_over();
    let nsproxy = reads.pointer(task, TASK_NSPROXY.load());
    let mnt_ns = reads.pointer(nsproxy, NSPROXY_MNT_NS.load());
    let ns_root = reads.pointer(mnt_ns, MNT_NS_ROOT.load());
    let mnt = reads.pointer(fs, FS_ROOT_MNT.load());
    let mut place = reads.pointer(fs, FS_ROOT_DENTRY.load());
    let mut mount = Address(mnt.0.wrapping_sub(u64::from(MOUNT_MNT.load())));
    for _ in 0..MOST_MOUNTS {
        let inner = Address(mount.0.wrapping_add(u64::from(MOUNT_MNT.load())));
        let mount_root = reads.pointer(inner, VFSMOUNT_ROOT.load());
        if !reads.succeeded() {
            return;
        }
        if place != mount_root {
            record.bits |= known::ROOT | known::CHROOTED;
            return;
        }
        if mount == ns_root {
            record.bits |= known::ROOT;
            return;
        }
        place = reads.pointer(mount, MOUNT_MOUNTPOINT.load());
        mount = reads.pointer(mount, MOUNT_PARENT.load());
    }
}
