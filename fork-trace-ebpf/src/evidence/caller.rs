//! Who the caller is, and its user's processes.

use fork_trace_common::{
    refusal::{Counted, RefusalRecord, UserNamespace, known},
    settings::ABSENT,
};

use super::{
    reads::{Address, Reads},
    section::{Section, section},
};
use crate::{
    global_functions::global_functions,
    kernel::namespace::MOST_NESTED,
    kernel::offsets::{
        CRED_CAPS, CRED_EUID, CRED_UCOUNTS, CRED_UID, CRED_USER, CRED_USER_NS, SIGNAL_FLAGS,
        SIGNAL_RLIM, TASK_CRED, TASK_POLICY, TASK_PTRACE, TASK_SECCOMP_MODE, TASK_SIGNAL,
        UCOUNT_NPROC, UCOUNTS_NS, UCOUNTS_RLIMIT, UCOUNTS_UCOUNT, UCOUNTS_UID, USER_NS_INUM,
        USER_NS_LEVEL, USER_NS_RLIMIT_MAX, USER_NS_UCOUNT_MAX, USER_NS_UCOUNTS, USER_PROCESSES,
    },
};

/// KERNEL: include/uapi/asm-generic/resource.h.
const RLIMIT_NPROC: u32 = 6;
const RLIMIT_NOFILE: u32 = 7;
/// KERNEL: include/uapi/asm-generic/resource.h `struct rlimit`: the soft limit, then the hard one,
/// of 64 bits each.
const RLIMIT_BYTES: u32 = 16;

global_functions! {
    /// Who the caller is, and its user's processes.
    pub(super) fn evidence_caller() {
        let Some(Section { record, reads, task, .. }) = &mut section() else { return 0 };
        signals(record, reads, *task);
        reads.start_over();
        let cred = reads.pointer(*task, TASK_CRED.load());
        credentials(record, reads, cred);
        processes(record, reads, *task, cred);
    }
}

/// Fills in what holds for the whole process: seccomp, the tracer, signals, the scheduling policy,
/// and the limit of open files.
#[inline(always)]
fn signals(record: &mut RefusalRecord, reads: &mut Reads, task: Address) {
    reads.start_over();
    record.seccomp_mode = reads.int(task, TASK_SECCOMP_MODE.load());
    if reads.succeeded() {
        record.bits |= known::SECCOMP;
    }
    reads.start_over();
    if reads.int(task, TASK_PTRACE.load()) != 0 {
        record.bits |= known::TRACED;
    }
    reads.start_over();
    let signal = reads.pointer(task, TASK_SIGNAL.load());
    record.signal_flags = reads.int(signal, SIGNAL_FLAGS.load());
    record.policy = reads.int(task, TASK_POLICY.load());
    record.open_files_max = reads.long(signal, rlimit(RLIMIT_NOFILE));
    if reads.succeeded() {
        record.bits |= known::SIGNAL;
    }
}

/// Where the soft value of the limit `which` lies in a `signal_struct`.
#[inline(always)]
fn rlimit(which: u32) -> u32 {
    let offset = SIGNAL_RLIM.load();
    if offset == ABSENT { ABSENT } else { offset + which * RLIMIT_BYTES }
}

/// Fills in the caller's user ids, capabilities and user namespace.
#[inline(always)]
fn credentials(record: &mut RefusalRecord, reads: &mut Reads, cred: Address) {
    reads.start_over();
    record.uid = reads.int(cred, CRED_UID.load());
    record.euid = reads.int(cred, CRED_EUID.load());
    record.caps = reads.long(cred, CRED_CAPS.load());
    let user_ns = reads.pointer(cred, CRED_USER_NS.load());
    record.user_ns_level = reads.int(user_ns, USER_NS_LEVEL.load());
    if reads.succeeded() {
        record.bits |= known::CRED;
    }
}

/// Fills in how many processes the user has, and how many `RLIMIT_NPROC` allows.
///
/// KERNEL: kernel/ucount.c `is_rlimit_overlimit` compares them in each user namespace from the
/// caller's outwards. In those further out, the limit is the one that stood when the namespace
/// below was made. Up to 5.18 the count is among the counts of namespaces, and up to 5.13 it is in
/// `user_struct`.
#[inline(always)]
fn processes(record: &mut RefusalRecord, reads: &mut Reads, task: Address, cred: Address) {
    reads.start_over();
    let signal = reads.pointer(task, TASK_SIGNAL.load());
    let mut max: u64 = reads.long(signal, rlimit(RLIMIT_NPROC));
    if USER_PROCESSES.load() != ABSENT {
        let user = reads.pointer(cred, CRED_USER.load());
        let current = u64::from(reads.int(user, USER_PROCESSES.load()));
        let owner = u64::from(reads.int(cred, CRED_UID.load()));
        if reads.succeeded() {
            record.nproc = Counted { current, max, owner, place: 0 };
            record.bits |= known::NPROC;
        }
        return;
    }
    let (counts, maxima, index) = if UCOUNTS_RLIMIT.load() == ABSENT {
        (UCOUNTS_UCOUNT.load(), USER_NS_UCOUNT_MAX.load(), UCOUNT_NPROC.load())
    } else {
        (UCOUNTS_RLIMIT.load(), USER_NS_RLIMIT_MAX.load(), 0)
    };
    let mut ucounts = reads.pointer(cred, CRED_UCOUNTS.load());
    let mut made_under_it = UserNamespace { inum: 0, level: 0 };
    for place in 0..MOST_NESTED {
        let current = reads.element(ucounts, counts, index);
        let owner = u64::from(reads.int(ucounts, UCOUNTS_UID.load()));
        let ns = reads.pointer(ucounts, UCOUNTS_NS.load());
        let counted_in = UserNamespace {
            inum: reads.int(ns, USER_NS_INUM.load()),
            level: reads.int(ns, USER_NS_LEVEL.load()),
        };
        let full = current >= max;
        if !reads.succeeded() {
            return;
        }
        if place == 0 || full {
            record.nproc = Counted { current, max, owner, place };
            record.nproc_ns = made_under_it;
            record.nproc_in = counted_in;
            record.bits |= known::NPROC;
        }
        max = reads.element(ns, maxima, index);
        made_under_it = counted_in;
        ucounts = reads.pointer(ns, USER_NS_UCOUNTS.load());
        if full || ucounts.0 == 0 {
            return;
        }
    }
}
