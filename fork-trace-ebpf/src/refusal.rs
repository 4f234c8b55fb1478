//! The evidence of a refusal: what the caller asked for, and where each counter stood that can
//! refuse a task.
//!
//! Runs for failed attempts only, so every read is a helper's: that loads on any release, whatever
//! a pointer's type. Walks are bounded; what a release lacks fails to be read and is left unknown.
//! It knows nothing of causes.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_get_current_task, bpf_probe_read_kernel_str_bytes,
        generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    },
};
use fork_trace_common::{
    flags::{CLONE_INTO_CGROUP, CLONE_VFORK, CLONE_VM, CSIGNAL},
    record::{RecordKind, Syscall},
    refusal::{Counted, NAME_BYTES, NAMES, NAMESPACE_ORDER, NAMESPACES, RefusalRecord, arg, known},
    settings::ABSENT,
};

use crate::{
    alone::alone,
    flight::low,
    kernel::{
        CGROUP_KN, CGROUP_SUBSYS, CRED_CAPS, CRED_EUID, CRED_UCOUNTS, CRED_UID, CRED_USER,
        CRED_USER_NS, CSET_SUBSYS, CSS_CGROUP, CSS_PARENT, FDT_FD, FDT_MAX_FDS, FILE_INODE,
        FILES_FDT, INODE_PRIVATE, KN_ID, KN_NAME, KN_PARENT, KN_PARENT_RCU, KN_PRIV,
        MEMORY_CGRP_ID, MEMORY_MAX, MEMORY_USAGE, NSPROXY_CHILD_TIME_NS, NSPROXY_PID_NS,
        NSPROXY_TIME_NS, PID_LEVEL, PID_NS_ALLOCATED, PID_NS_INUM, PID_NS_LEVEL, PID_NS_PARENT,
        PID_NS_PID_MAX, PID_NUMBERS, PIDS_CGRP_ID, PIDS_COUNTER, PIDS_LIMIT, REGS_BX, REGS_CX,
        REGS_DI, REGS_DX, REGS_R8, REGS_R10, REGS_SI, Regs, SIGNAL_FLAGS, SIGNAL_RLIM,
        TASK_CGROUPS, TASK_CRED, TASK_FILES, TASK_NSPROXY, TASK_POLICY, TASK_PTRACE,
        TASK_SECCOMP_MODE, TASK_SIGNAL, TASK_THREAD_PID, Task, UCOUNT_NPROC, UCOUNTS_NS,
        UCOUNTS_RLIMIT, UCOUNTS_UCOUNT, UCOUNTS_UID, UPID_NS, UPID_SIZE, USER_NS_LEVEL,
        USER_NS_RLIMIT_MAX, USER_NS_UCOUNT_MAX, USER_NS_UCOUNTS, USER_PROCESSES, element,
    },
    maps::{REFUSAL, Room},
};

/// Nested namespaces looked at, from the caller's outwards. VERIFIER: each costs load time.
const NESTED: u64 = 8;
/// Groups looked at from the caller's upwards; as above.
const GROUPS: u64 = 12;
/// KERNEL: `include/linux/pid_namespace.h` `MAX_PID_NS_LEVEL`, the most that `set_tid` may have.
const MOST_TIDS: u64 = 32;
/// A page, the most that `clone3`'s struct may have.
const MOST_BYTES: u64 = 4096;
const ENOMEM: i64 = 12;
const ENOSPC: i64 = 28;
/// KERNEL: include/uapi/asm-generic/resource.h.
const RLIMIT_NPROC: u32 = 6;
const RLIMIT_NOFILE: u32 = 7;
/// KERNEL: include/uapi/asm-generic/resource.h `struct rlimit`: soft, then hard, 64 bits each.
const RLIMIT_BYTES: u32 = 16;
const SIGCHLD: u64 = 17;

/// An address in the kernel as a plain number.
#[derive(Clone, Copy, PartialEq)]
struct At(u64);

/// Reads that belong together: each goes on whatever became of those before, and at the end it is
/// asked once whether all of them worked. What could not be read is 0, and so is what lies behind.
///
/// VERIFIER: a branch for each read makes hundreds of thousands of ways through the program, of which
/// the kernel tries each before it loads it.
struct Reads {
    /// Where the helper writes to: a program's stack has not room for a word of each read.
    word: *mut u64,
    failed: i64,
}

impl Reads {
    #[inline(always)]
    const fn new(word: *mut u64) -> Self {
        Self { word, failed: 0 }
    }

    /// Forgets what failed.
    #[inline(always)]
    const fn afresh(&mut self) {
        self.failed = 0;
    }

    #[inline(always)]
    const fn good(&self) -> bool {
        self.failed == 0
    }

    /// Reads 64 bits.
    #[inline(always)]
    fn long(&mut self, base: At, offset: u32) -> u64 {
        self.fetch(base, offset, 8);
        // SAFETY: this program's own.
        unsafe { self.word.read_volatile() }
    }

    /// Reads 32 bits.
    #[inline(always)]
    fn int(&mut self, base: At, offset: u32) -> u32 {
        self.fetch(base, offset, 4);
        // SAFETY: as above; a part of it.
        unsafe { self.word.cast::<u32>().read_volatile() }
    }

    #[inline(always)]
    fn fetch(&mut self, base: At, offset: u32, bytes: u32) {
        if offset == ABSENT {
            self.failed = -1;
            // SAFETY: this program's own.
            unsafe { self.word.write_volatile(0) };
            return;
        }
        let address = base.0.wrapping_add(u64::from(offset)) as *const c_void;
        // SAFETY: the helper checks the address, and fills as many bytes as are asked for, 8 at most:
        // with zeros if it fails.
        self.failed |= unsafe { bpf_probe_read_kernel(self.word.cast(), bytes, address) };
    }

    /// Follows a pointer.
    #[inline(always)]
    fn at(&mut self, base: At, offset: u32) -> At {
        At(self.long(base, offset))
    }

    /// Reads the element `index` of the array of words at `offset`.
    #[inline(always)]
    fn word(&mut self, base: At, offset: u32, index: u32) -> u64 {
        self.long(base, element(offset, index))
    }
}

/// What refused: the attempt whose evidence is asked for.
pub(crate) struct Attempt {
    pub(crate) regs: Regs,
    pub(crate) syscall: Syscall,
    pub(crate) compat: bool,
    pub(crate) ret: i64,
    pub(crate) tid: u32,
    pub(crate) at_ns: u64,
}

/// Collects the evidence of `attempt`; the record is good until the next call on this CPU.
#[inline(always)]
pub(crate) fn collect(attempt: &Attempt) -> Option<&'static RefusalRecord> {
    let room = room()?;
    room.regs = attempt.regs.address();
    room.syscall = attempt.syscall as u32;
    room.compat = u32::from(attempt.compat);
    room.ret = attempt.ret;
    let record = &mut room.record;
    clear(record);
    record.kind = RecordKind::Refusal as u32;
    record.tid = attempt.tid;
    record.at_ns = attempt.at_ns;
    // What they return says nothing.
    _ = refusal_call();
    _ = refusal_caller();
    _ = refusal_namespaces();
    _ = refusal_groups();
    _ = refusal_moved();
    Some(record)
}

/// This CPU's room.
#[inline(always)]
fn room() -> Option<&'static mut Room> {
    // SAFETY: a run of `sys_exit` is the only user, and none begins on this CPU during another:
    // KERNEL: kernel/trace/bpf_trace.c `__bpf_trace_run` skips a program that is active there.
    unsafe { REFUSAL.get_ptr_mut(0)?.as_mut() }
}

/// What a part of the evidence is made of, and with.
struct Part {
    record: &'static mut RefusalRecord,
    reads: Reads,
    /// The caller.
    task: At,
    about: About,
}

#[inline(always)]
fn part() -> Option<Part> {
    let Room { record, word, regs, syscall, compat, ret } = room()?;
    Some(Part {
        record,
        reads: Reads::new(word),
        // SAFETY: the helper has no preconditions.
        task: At(unsafe { bpf_get_current_task() }),
        about: About { regs: At(*regs), syscall: *syscall, compat: *compat != 0, ret: *ret },
    })
}

/// What a part may want to know of the attempt.
struct About {
    regs: At,
    syscall: u32,
    compat: bool,
    ret: i64,
}

alone! {
    /// What the caller asked for.
    refusal_call() {
        let Some(Part { record, reads, about, .. }) = &mut part() else { return 0 };
        arguments(record, reads, about);
    }

    /// Who the caller is, and its user's processes.
    refusal_caller() {
        let Some(Part { record, reads, task, .. }) = &mut part() else { return 0 };
        signals(record, reads, *task);
        reads.afresh();
        let cred = reads.at(*task, TASK_CRED.load());
        credentials(record, reads, cred);
        processes(record, reads, *task, cred);
    }

    /// Its namespaces.
    refusal_namespaces() {
        let Some(Part { record, reads, task, about }) = &mut part() else { return 0 };
        if about.ret == -ENOSPC {
            let cred = reads.at(*task, TASK_CRED.load());
            namespaces(record, reads, cred);
        }
        pid_namespaces(record, reads, *task);
    }

    /// Its control groups.
    refusal_groups() {
        let Some(Part { record, reads, task, about }) = &mut part() else { return 0 };
        groups(record, reads, *task, about.ret == -ENOMEM);
    }

    /// What its own groups count of their refusals.
    refusal_moved() {
        let Some(Part { record, .. }) = &mut part() else { return 0 };
        if record.args[arg::FLAGS] & CLONE_INTO_CGROUP == 0 {
            moved(record);
        }
    }
}

#[inline(always)]
fn clear(record: &mut RefusalRecord) {
    let words = core::ptr::from_mut(record).cast::<u64>();
    for index in 0..size_of::<RefusalRecord>() / size_of::<u64>() {
        // SAFETY: within the record, which is made of whole words.
        let word = unsafe { words.add(index) };
        // SAFETY: as above. Volatile, so that it does not become a call.
        unsafe { word.write_volatile(0) };
    }
}

/// What the caller passed.
#[inline(always)]
fn arguments(record: &mut RefusalRecord, reads: &mut Reads, about: &About) {
    const CLONE: u32 = Syscall::Clone as u32;
    const CLONE3: u32 = Syscall::Clone3 as u32;
    const VFORK: u32 = Syscall::Vfork as u32;
    match about.syscall {
        CLONE3 => clone3(record, reads, about),
        CLONE => {
            reads.afresh();
            let [flags, stack, parent_tid, fourth, fifth] = if about.compat {
                [REGS_BX.load(), REGS_CX.load(), REGS_DX.load(), REGS_SI.load(), REGS_DI.load()]
            } else {
                [REGS_DI.load(), REGS_SI.load(), REGS_DX.load(), REGS_R10.load(), REGS_R8.load()]
            };
            // KERNEL: kernel/fork.c: on i386 `tls` comes before `child_tid` (CLONE_BACKWARDS).
            let (child_tid, tls) = if about.compat { (fifth, fourth) } else { (fourth, fifth) };
            let flags = reads.long(about.regs, flags);
            record.args[arg::FLAGS] = flags & 0xffff_ffff & !CSIGNAL;
            record.args[arg::EXIT_SIGNAL] = flags & CSIGNAL;
            record.args[arg::STACK] = reads.long(about.regs, stack);
            // KERNEL: kernel/fork.c `clone`: one pointer serves CLONE_PIDFD and PARENT_SETTID.
            let parent_tid = reads.long(about.regs, parent_tid);
            record.args[arg::PARENT_TID] = parent_tid;
            record.args[arg::PIDFD] = parent_tid;
            record.args[arg::CHILD_TID] = reads.long(about.regs, child_tid);
            record.args[arg::TLS] = reads.long(about.regs, tls);
            if reads.good() {
                record.bits |= known::ARGS;
            }
        }
        other => {
            record.args[arg::FLAGS] = if other == VFORK { CLONE_VM | CLONE_VFORK } else { 0 };
            record.args[arg::EXIT_SIGNAL] = SIGCHLD;
            record.bits |= known::ARGS;
        }
    }
}

/// Reads bytes of the caller's; whether they could be read.
#[inline(always)]
fn user_bytes(to: *mut c_void, bytes: u32, address: u64) -> bool {
    // SAFETY: the callers have room for so many; the helper checks the address, and fills with zeros
    // if it fails.
    unsafe { bpf_probe_read_user(to, bytes, address as *const c_void) == 0 }
}

/// The words of `clone3`'s struct, whether zeros follow them, and the first id of `set_tid`.
#[inline(always)]
fn clone3(record: &mut RefusalRecord, reads: &mut Reads, about: &About) {
    #[expect(clippy::cast_possible_truncation, reason = "88")]
    const BYTES: u32 = arg::COUNT as u32 * 8;
    reads.afresh();
    let (first, second) = if about.compat { (&REGS_BX, &REGS_CX) } else { (&REGS_DI, &REGS_SI) };
    let address = reads.long(about.regs, first.load());
    let size = reads.long(about.regs, second.load());
    if !reads.good() {
        return;
    }
    record.args_bytes = size;
    record.bits |= known::ARGS;
    let bytes = if size < u64::from(BYTES) { low(size) } else { BYTES };
    if !user_bytes(record.args.as_mut_ptr().cast(), bytes, address) {
        record.bits |= known::ARGS_UNREADABLE;
    }
    let (set_tid, count) = (record.args[arg::SET_TID], record.args[arg::SET_TID_SIZE]);
    if count > 0 && count <= MOST_TIDS {
        let mut last = 0_u32;
        let last_at = set_tid.wrapping_add((count - 1) * 4);
        let readable = user_bytes((&raw mut record.set_tid).cast(), 4, set_tid)
            & user_bytes((&raw mut last).cast(), 4, last_at);
        if readable {
            record.bits |= known::SET_TID;
        }
    }
    if size > u64::from(BYTES) && size <= MOST_BYTES {
        record.bits |= tail(record, address + u64::from(BYTES), size - u64::from(BYTES));
    }
}

/// Words looked at together; they are put where the names of a path come later, and are as zero then
/// as before.
const WORDS: usize = 8;
#[expect(clippy::cast_possible_truncation, reason = "64")]
const PIECE: u32 = WORDS as u32 * 8;
const _: () = assert!(WORDS * 8 <= NAMES * NAME_BYTES);

/// What is wrong with so many bytes from `address` on, which ought to be zero, as bits.
#[inline(always)]
fn tail(record: &mut RefusalRecord, address: u64, bytes: u64) -> u32 {
    let words = record.names.as_mut_ptr().cast::<u64>();
    for piece in 0..MOST_BYTES / u64::from(PIECE) {
        let at = piece * u64::from(PIECE);
        if at + u64::from(PIECE) > bytes {
            break;
        }
        let wrong = not_zero(words, PIECE, address.wrapping_add(at));
        if wrong != 0 {
            return wrong;
        }
    }
    let rest = bytes & u64::from(PIECE - 1);
    not_zero(words, low(rest), address.wrapping_add(bytes - rest))
}

/// The same of up to `PIECE` bytes.
#[inline(always)]
fn not_zero(words: *mut u64, bytes: u32, address: u64) -> u32 {
    let readable = user_bytes(words.cast(), bytes, address);
    let mut any = 0;
    for index in 0..WORDS {
        // SAFETY: within the names, which are aligned as the record's words are.
        let word = unsafe { words.add(index) };
        // SAFETY: as above.
        any |= unsafe { word.read_volatile() };
        // SAFETY: as above.
        unsafe { word.write_volatile(0) };
    }
    if !readable {
        // Bytes that are not zero may come before those that cannot be read.
        return known::TAIL_UNREADABLE | known::TAIL_NOT_ZERO;
    }
    if any == 0 { 0 } else { known::TAIL_NOT_ZERO }
}

#[inline(always)]
fn signals(record: &mut RefusalRecord, reads: &mut Reads, task: At) {
    reads.afresh();
    record.seccomp_mode = reads.int(task, TASK_SECCOMP_MODE.load());
    if reads.good() {
        record.bits |= known::SECCOMP;
    }
    reads.afresh();
    if reads.int(task, TASK_PTRACE.load()) != 0 {
        record.bits |= known::TRACED;
    }
    reads.afresh();
    let signal = reads.at(task, TASK_SIGNAL.load());
    record.signal_flags = reads.int(signal, SIGNAL_FLAGS.load());
    record.policy = reads.int(task, TASK_POLICY.load());
    record.open_files_max = reads.long(signal, rlimit(RLIMIT_NOFILE));
    if reads.good() {
        record.bits |= known::SIGNAL;
    }
}

/// Where a limit's soft value lies in a `signal_struct`.
#[inline(always)]
fn rlimit(which: u32) -> u32 {
    let offset = SIGNAL_RLIM.load();
    if offset == ABSENT { ABSENT } else { offset + which * RLIMIT_BYTES }
}

#[inline(always)]
fn credentials(record: &mut RefusalRecord, reads: &mut Reads, cred: At) {
    reads.afresh();
    record.uid = reads.int(cred, CRED_UID.load());
    record.euid = reads.int(cred, CRED_EUID.load());
    record.caps = reads.long(cred, CRED_CAPS.load());
    let user_ns = reads.at(cred, CRED_USER_NS.load());
    record.user_ns_level = reads.int(user_ns, USER_NS_LEVEL.load());
    if reads.good() {
        record.bits |= known::CRED;
    }
}

/// Processes of the user against `RLIMIT_NPROC`.
///
/// KERNEL: kernel/ucount.c `is_rlimit_overlimit`: in each user namespace outwards, against the limit
/// that stood when the namespace below it was made. Up to 5.18 among the counts of namespaces, up to
/// 5.13 in `user_struct`.
#[inline(always)]
fn processes(record: &mut RefusalRecord, reads: &mut Reads, task: At, cred: At) {
    reads.afresh();
    let signal = reads.at(task, TASK_SIGNAL.load());
    let mut max: u64 = reads.long(signal, rlimit(RLIMIT_NPROC));
    if USER_PROCESSES.load() != ABSENT {
        let user = reads.at(cred, CRED_USER.load());
        let current = u64::from(reads.int(user, USER_PROCESSES.load()));
        let owner = u64::from(reads.int(cred, CRED_UID.load()));
        if reads.good() {
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
    let mut ucounts = reads.at(cred, CRED_UCOUNTS.load());
    for place in 0..NESTED {
        let current = reads.word(ucounts, counts, index);
        let owner = u64::from(reads.int(ucounts, UCOUNTS_UID.load()));
        let ns = reads.at(ucounts, UCOUNTS_NS.load());
        let full = current >= max;
        if !reads.good() {
            return;
        }
        if place == 0 || full {
            record.nproc = Counted { current, max, owner, place };
            record.bits |= known::NPROC;
        }
        max = reads.word(ns, maxima, index);
        ucounts = reads.at(ns, USER_NS_UCOUNTS.load());
        if full || ucounts.0 == 0 {
            return;
        }
    }
}

/// The first full limit of namespaces among those that were asked for.
///
/// KERNEL: kernel/ucount.c `inc_ucount`: in each user namespace outwards.
#[inline(always)]
fn namespaces(record: &mut RefusalRecord, reads: &mut Reads, cred: At) {
    reads.afresh();
    let own = reads.at(cred, CRED_UCOUNTS.load());
    if !reads.good() {
        return;
    }
    record.bits |= known::NAMESPACES;
    for kind in &NAMESPACE_ORDER {
        let kind = *kind;
        let asked = NAMESPACES.get(kind as usize).map_or(0, |(flag, _)| *flag);
        if record.args[arg::FLAGS] & asked != 0 && full_namespace(record, reads, own, kind) {
            record.bits |= known::NAMESPACE_FULL;
            return;
        }
    }
}

/// Whether a limit of namespaces is full; which one is written down.
#[inline(always)]
fn full_namespace(record: &mut RefusalRecord, reads: &mut Reads, own: At, kind: u32) -> bool {
    reads.afresh();
    let mut ucounts = own;
    for place in 0..NESTED {
        let ns = reads.at(ucounts, UCOUNTS_NS.load());
        let current = reads.word(ucounts, UCOUNTS_UCOUNT.load(), kind);
        let max = reads.word(ns, USER_NS_UCOUNT_MAX.load(), kind);
        let owner = u64::from(reads.int(ucounts, UCOUNTS_UID.load()));
        ucounts = reads.at(ns, USER_NS_UCOUNTS.load());
        if !reads.good() {
            return false;
        }
        if current >= max {
            let place = u64::from(kind) << 32 | place;
            record.namespaces = Counted { current, max, owner, place };
            return true;
        }
        if ucounts.0 == 0 {
            return false;
        }
    }
    false
}

/// The pid namespace of the caller's children, and the fullest of it and those around it.
#[inline(always)]
fn pid_namespaces(record: &mut RefusalRecord, reads: &mut Reads, task: At) {
    /// KERNEL: `include/linux/pid_namespace.h` `PIDNS_ADDING`.
    const ADDING: u32 = 1 << 31;
    reads.afresh();
    let nsproxy = reads.at(task, TASK_NSPROXY.load());
    let children = reads.at(nsproxy, NSPROXY_PID_NS.load());
    // The caller's own pid namespace.
    let pid = reads.at(task, TASK_THREAD_PID.load());
    record.pid_level = reads.int(pid, PID_LEVEL.load());
    let number = PID_NUMBERS.load().wrapping_add(record.pid_level.wrapping_mul(UPID_SIZE.load()));
    let active = reads.at(pid, number.wrapping_add(UPID_NS.load()));
    record.children_level = reads.int(children, PID_NS_LEVEL.load());
    record.children_allocated = reads.int(children, PID_NS_ALLOCATED.load());
    record.children_inum = reads.int(children, PID_NS_INUM.load());
    if reads.good() {
        record.bits |= known::PID_NS;
        if active != children {
            record.bits |= known::OTHER_PID_NS;
        }
    }
    reads.afresh();
    let own_time = reads.at(nsproxy, NSPROXY_TIME_NS.load());
    let time = reads.at(nsproxy, NSPROXY_CHILD_TIME_NS.load());
    if reads.good() && own_time != time {
        record.bits |= known::OTHER_TIME_NS;
    }
    reads.afresh();
    let mut ns = children;
    for place in 0..NESTED {
        let allocated = reads.int(ns, PID_NS_ALLOCATED.load());
        let max = u64::from(reads.int(ns, PID_NS_PID_MAX.load()));
        let owner = u64::from(reads.int(ns, PID_NS_INUM.load()));
        ns = reads.at(ns, PID_NS_PARENT.load());
        if !reads.good() {
            return;
        }
        let counted = Counted { current: u64::from(allocated & !ADDING), max, owner, place };
        if place == 0 || left(&counted) < left(&record.pid_ns) {
            record.pid_ns = counted;
            record.bits |= known::PID_MAX;
        }
        if ns.0 == 0 {
            return;
        }
    }
}

#[inline(always)]
fn left(counted: &Counted) -> u64 {
    counted.max.saturating_sub(counted.current)
}

/// The control groups that the child would be in: the caller's, or the one it names.
#[inline(always)]
fn groups(record: &mut RefusalRecord, reads: &mut Reads, task: At, no_memory: bool) {
    reads.afresh();
    let named = record.args[arg::FLAGS] & CLONE_INTO_CGROUP != 0;
    let (holder, offset) = if named {
        (named_group(reads, task, record.args[arg::CGROUP]), CGROUP_SUBSYS.load())
    } else {
        (reads.at(task, TASK_CGROUPS.load()), CSET_SUBSYS.load())
    };
    if !reads.good() {
        return;
    }
    record.bits |= if named { known::INTO } else { 0 };
    let group = At(reads.word(holder, offset, PIDS_CGRP_ID.load()));
    let memory_group = At(reads.word(holder, offset, MEMORY_CGRP_ID.load()));
    pids(record, reads, group);
    memory(record, reads, memory_group);
    if no_memory {
        path(record, reads, memory_group, record.memory.place);
    } else {
        path(record, reads, group, record.pids.place);
    }
}

#[inline(always)]
fn moved(record: &mut RefusalRecord) {
    let Some(groups) = Task::current().by_helper().groups() else { return };
    if let Some(refusals) = groups.pids_refusals() {
        record.pids_refusals = refusals;
        record.bits |= known::PIDS_REFUSALS;
    }
    if let Some(ooms) = groups.memory_ooms() {
        record.memory_ooms = ooms;
        record.bits |= known::MEMORY_OOMS;
    }
}

/// The control group behind file descriptor `fd`; a failed read if it is none.
#[inline(always)]
fn named_group(reads: &mut Reads, task: At, fd: u64) -> At {
    let files = reads.at(task, TASK_FILES.load());
    let table = reads.at(files, FILES_FDT.load());
    let open = u64::from(reads.int(table, FDT_MAX_FDS.load()));
    let slots = reads.at(table, FDT_FD.load());
    // The caller chose the number: beyond the table it would be an address of its choice.
    if fd >= open {
        reads.failed = -1;
        return At(0);
    }
    let file = reads.at(At(slots.0.wrapping_add(fd.wrapping_mul(8))), 0);
    let inode = reads.at(file, FILE_INODE.load());
    let node = reads.at(inode, INODE_PRIVATE.load());
    let group = reads.at(node, KN_PRIV.load());
    // What another file system keeps there does not point back.
    if reads.at(group, CGROUP_KN.load()) != node {
        reads.failed = -1;
    }
    group
}

/// The first full group of the pids controller, else the one with the fewest left.
///
/// KERNEL: kernel/cgroup/pids.c `pids_try_charge`: from the group upwards, the root has no limit.
/// `struct pids_cgroup` begins with its `cgroup_subsys_state`.
#[inline(always)]
fn pids(record: &mut RefusalRecord, reads: &mut Reads, own: At) {
    reads.afresh();
    let mut css = own;
    for place in 0..GROUPS {
        let parent = reads.at(css, CSS_PARENT.load());
        let current = reads.long(css, PIDS_COUNTER.load());
        let max = reads.long(css, PIDS_LIMIT.load());
        let owner = id(reads, css);
        if !reads.good() {
            return;
        }
        if parent.0 == 0 {
            record.bits |= known::PIDS_WALKED;
            return;
        }
        let counted = Counted { current, max, owner, place };
        if place == 0 || left(&counted) < left(&record.pids) {
            record.pids = counted;
            record.bits |= known::PIDS;
        }
        if current >= max {
            record.bits |= known::PIDS_WALKED;
            return;
        }
        css = parent;
    }
}

/// The group of the memory controller with the least left.
///
/// KERNEL: include/linux/memcontrol.h: `struct mem_cgroup` begins with its `cgroup_subsys_state`.
#[inline(always)]
fn memory(record: &mut RefusalRecord, reads: &mut Reads, own: At) {
    reads.afresh();
    let mut css = own;
    for place in 0..GROUPS {
        let parent = reads.at(css, CSS_PARENT.load());
        let current = reads.long(css, MEMORY_USAGE.load());
        let max = reads.long(css, MEMORY_MAX.load());
        let owner = id(reads, css);
        if !reads.good() || parent.0 == 0 {
            return;
        }
        let counted = Counted { current, max, owner, place };
        if place == 0 || left(&counted) < left(&record.memory) {
            record.memory = counted;
            record.bits |= known::MEMORY;
        }
        css = parent;
    }
}

#[inline(always)]
fn node(reads: &mut Reads, css: At) -> At {
    let group = reads.at(css, CSS_CGROUP.load());
    reads.at(group, CGROUP_KN.load())
}

/// A group's id.
#[inline(always)]
fn id(reads: &mut Reads, css: At) -> u64 {
    let node = node(reads, css);
    reads.long(node, KN_ID.load())
}

/// The names of the path of the group that lies `place` above `own`.
#[inline(always)]
fn path(record: &mut RefusalRecord, reads: &mut Reads, own: At, place: u64) {
    reads.afresh();
    let mut css = own;
    for above in 0..GROUPS {
        if above == place {
            break;
        }
        css = reads.at(css, CSS_PARENT.load());
    }
    let mut node = node(reads, css);
    let parent = if KN_PARENT.load() == ABSENT { KN_PARENT_RCU.load() } else { KN_PARENT.load() };
    for slot in &mut record.names {
        let above = reads.at(node, parent);
        if !reads.good() {
            return;
        }
        // The root has neither name nor parent.
        if above.0 == 0 {
            record.bits |= known::GROUP_PATH;
            return;
        }
        let name = reads.at(node, KN_NAME.load()).0 as *const c_void;
        // SAFETY: the helper checks the address and fails on a bad one.
        let read = unsafe { bpf_probe_read_kernel_str_bytes(name.cast(), slot) };
        if read.is_err() {
            return;
        }
        node = above;
    }
    if reads.at(node, parent).0 == 0 && reads.good() {
        record.bits |= known::GROUP_PATH;
    }
}
