//! The evidence of a refusal: what the caller asked for, and where each counter stood that can
//! refuse a task.
//!
//! Runs for failed attempts only, so every read is a helper's: that loads on any release, whatever
//! a pointer's type. Walks are bounded; what a release lacks reads as `None` and is left unknown.
//! It knows nothing of causes.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
        bpf_probe_read_user,
    },
};
use fork_trace_common::{
    flags::{CLONE_INTO_CGROUP, CLONE_VFORK, CLONE_VM, CSIGNAL},
    record::{RecordKind, Syscall},
    refusal::{Counted, NAMESPACE_ORDER, NAMESPACES, RefusalRecord, arg, known},
    settings::ABSENT,
};

use crate::{
    kernel::{
        CGROUP_KN, CGROUP_SUBSYS, CRED_CAPS, CRED_EUID, CRED_UCOUNTS, CRED_UID, CRED_USER,
        CRED_USER_NS, CSET_SUBSYS, CSS_CGROUP, CSS_PARENT, FDT_FD, FDT_MAX_FDS, FILE_INODE,
        FILES_FDT, INODE_PRIVATE, KN_ID, KN_NAME, KN_PARENT, KN_PARENT_RCU, KN_PRIV,
        MEMORY_CGRP_ID, MEMORY_MAX, MEMORY_USAGE, NSPROXY_CHILD_TIME_NS, NSPROXY_PID_NS,
        NSPROXY_TIME_NS, PID_LEVEL, PID_NS_ALLOCATED, PID_NS_INUM, PID_NS_LEVEL, PID_NS_PARENT,
        PID_NS_PID_MAX, PID_NUMBERS, PIDS_CGRP_ID, PIDS_COUNTER, PIDS_LIMIT, Regs, SIGNAL_FLAGS,
        SIGNAL_RLIM, TASK_CGROUPS, TASK_CRED, TASK_FILES, TASK_NSPROXY, TASK_POLICY, TASK_PTRACE,
        TASK_SECCOMP_MODE, TASK_SIGNAL, TASK_THREAD_PID, Task, UCOUNT_NPROC, UCOUNTS_NS,
        UCOUNTS_RLIMIT, UCOUNTS_UCOUNT, UCOUNTS_UID, UPID_NS, UPID_SIZE, USER_NS_LEVEL,
        USER_NS_RLIMIT_MAX, USER_NS_UCOUNT_MAX, USER_NS_UCOUNTS, USER_PROCESSES,
    },
    maps::REFUSAL,
};

/// Nested namespaces looked at, from the caller's outwards. VERIFIER: each costs load time.
const NESTED: u64 = 8;
/// Groups looked at from the caller's upwards; as above.
const GROUPS: u64 = 12;
/// KERNEL: `include/linux/pid_namespace.h` `MAX_PID_NS_LEVEL`, the most that `set_tid` may have.
const MOST_TIDS: u64 = 32;
/// Words looked at behind `clone3`'s known ones; a struct has a page at most.
const TAIL_WORDS: u64 = 512;
/// Size of a pointer.
const WORD: u32 = 8;
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

macro_rules! get {
    ($base:expr, $offset:ident: $type:ty) => {
        $base.read::<$type>($offset.load())
    };
}

impl At {
    #[inline(always)]
    fn read<T>(self, offset: u32) -> Option<T> {
        if offset == ABSENT {
            return None;
        }
        let address = self.0.wrapping_add(u64::from(offset)) as *const T;
        // SAFETY: the helper checks the address and fails on a bad one; `T` is an integer here.
        unsafe { bpf_probe_read_kernel(address) }.ok()
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        self.read::<u64>(offset).filter(|target| *target != 0).map(Self)
    }

    /// The element `index` of the array of words at `offset`.
    #[inline(always)]
    fn word(self, offset: u32, index: u32) -> Option<u64> {
        if offset == ABSENT || index == ABSENT {
            return None;
        }
        self.read(offset.wrapping_add(index.wrapping_mul(WORD)))
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
    // SAFETY: a run of `sys_exit` is the only user, and none begins on this CPU during another:
    // KERNEL: kernel/trace/bpf_trace.c `__bpf_trace_run` skips a program that is active there.
    let record = unsafe { REFUSAL.get_ptr_mut(0)?.as_mut()? };
    clear(record);
    record.kind = RecordKind::Refusal as u32;
    record.tid = attempt.tid;
    record.at_ns = attempt.at_ns;
    arguments(record, attempt);
    // SAFETY: the helper has no preconditions.
    let task = At(unsafe { bpf_get_current_task() });
    signals(record, task);
    let cred = get!(task, TASK_CRED: u64).map(At);
    if let Some(cred) = cred {
        credentials(record, cred);
        processes(record, task, cred);
        if attempt.ret == -ENOSPC {
            namespaces(record, cred);
        }
    }
    pid_namespaces(record, task);
    groups(record, task, attempt.ret == -ENOMEM);
    Some(record)
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

#[inline(always)]
fn user_word(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn arguments(record: &mut RefusalRecord, attempt: &Attempt) {
    match attempt.syscall {
        Syscall::Clone3 => clone3(record, attempt.regs.words(attempt.compat)),
        Syscall::Clone => {
            let Some([flags, stack, parent_tid, fourth, fifth]) =
                attempt.regs.words(attempt.compat)
            else {
                return;
            };
            // KERNEL: kernel/fork.c: on i386 `tls` comes before `child_tid` (CLONE_BACKWARDS).
            let (child_tid, tls) = if attempt.compat { (fifth, fourth) } else { (fourth, fifth) };
            // KERNEL: kernel/fork.c `clone`: one pointer serves CLONE_PIDFD and PARENT_SETTID.
            let pidfd = parent_tid;
            let exit_signal = flags & CSIGNAL;
            let flags = flags & 0xffff_ffff & !CSIGNAL;
            // One by one: all at once is a call, for which 5.10 leaves no room on the stack.
            record.args[arg::FLAGS] = flags;
            record.args[arg::PIDFD] = pidfd;
            record.args[arg::CHILD_TID] = child_tid;
            record.args[arg::PARENT_TID] = parent_tid;
            record.args[arg::EXIT_SIGNAL] = exit_signal;
            record.args[arg::STACK] = stack;
            record.args[arg::TLS] = tls;
            record.bits |= known::ARGS;
        }
        Syscall::Fork | Syscall::Vfork => {
            let vfork = matches!(attempt.syscall, Syscall::Vfork);
            record.args[arg::FLAGS] = if vfork { CLONE_VM | CLONE_VFORK } else { 0 };
            record.args[arg::EXIT_SIGNAL] = SIGCHLD;
            record.bits |= known::ARGS;
        }
        Syscall::None => {}
    }
}

/// The words of `clone3`'s struct, whether zeros follow them, and the first id of `set_tid`.
#[inline(always)]
fn clone3(record: &mut RefusalRecord, words: Option<[u64; 5]>) {
    let Some([address, size, ..]) = words else { return };
    record.args_bytes = size;
    record.bits |= known::ARGS;
    for (index, slot) in record.args.iter_mut().enumerate() {
        let at = index as u64 * 8;
        if at >= size {
            break;
        }
        // The last word may have fewer bytes: then it is read so that it ends where they end.
        let spare = (at + 8).saturating_sub(size);
        match user_word(address.wrapping_add(at).wrapping_sub(spare)) {
            Some(word) => *slot = word >> ((spare * 8) & 63),
            None => record.bits |= known::ARGS_UNREADABLE,
        }
    }
    let known_bytes = arg::COUNT as u64 * 8;
    if size > known_bytes && size <= TAIL_WORDS * 8 {
        record.bits |= tail(address, known_bytes, size);
    }
    let (set_tid, count) = (record.args[arg::SET_TID], record.args[arg::SET_TID_SIZE]);
    if count > 0 && count <= MOST_TIDS {
        // SAFETY: the helper checks the address and fails on a bad one.
        let first = unsafe { bpf_probe_read_user(set_tid as *const u32) };
        let last = set_tid.wrapping_add((count - 1) * 4);
        // SAFETY: as above.
        let last = unsafe { bpf_probe_read_user(last as *const u32) };
        if let (Ok(first), Ok(_)) = (first, last) {
            record.set_tid = first;
            record.bits |= known::SET_TID;
        }
    }
}

/// What is wrong with the bytes from `begin` to `end` of the struct, as bits.
#[inline(always)]
fn tail(address: u64, begin: u64, end: u64) -> u32 {
    for index in 0..TAIL_WORDS {
        let at = begin + index * 8;
        if at >= end {
            return 0;
        }
        let spare = (at + 8).saturating_sub(end);
        match user_word(address.wrapping_add(at - spare)) {
            None => return known::TAIL_UNREADABLE,
            Some(word) if word >> ((spare * 8) & 63) != 0 => return known::TAIL_NOT_ZERO,
            Some(_) => {}
        }
    }
    0
}

#[inline(always)]
fn signals(record: &mut RefusalRecord, task: At) {
    if let Some(mode) = get!(task, TASK_SECCOMP_MODE: u32) {
        record.seccomp_mode = mode;
        record.bits |= known::SECCOMP;
    }
    if get!(task, TASK_PTRACE: u32).is_some_and(|flags| flags != 0) {
        record.bits |= known::TRACED;
    }
    let Some(signal) = task.follow(TASK_SIGNAL.load()) else { return };
    if let (Some(flags), Some(policy), Some(open_files)) = (
        get!(signal, SIGNAL_FLAGS: u32),
        get!(task, TASK_POLICY: u32),
        rlimit(signal, RLIMIT_NOFILE),
    ) {
        record.signal_flags = flags;
        record.policy = policy;
        record.open_files_max = open_files;
        record.bits |= known::SIGNAL;
    }
}

#[inline(always)]
fn rlimit(signal: At, which: u32) -> Option<u64> {
    let offset = SIGNAL_RLIM.load();
    if offset == ABSENT { None } else { signal.read(offset + which * RLIMIT_BYTES) }
}

#[inline(always)]
fn credentials(record: &mut RefusalRecord, cred: At) {
    let user_ns = cred.follow(CRED_USER_NS.load());
    if let (Some(uid), Some(euid), Some(caps), Some(level)) = (
        get!(cred, CRED_UID: u32),
        get!(cred, CRED_EUID: u32),
        get!(cred, CRED_CAPS: u64),
        user_ns.and_then(|ns| get!(ns, USER_NS_LEVEL: u32)),
    ) {
        record.uid = uid;
        record.euid = euid;
        record.caps = caps;
        record.user_ns_level = level;
        record.bits |= known::CRED;
    }
}

/// Processes of the user against `RLIMIT_NPROC`.
///
/// KERNEL: kernel/ucount.c `is_rlimit_overlimit`: in each user namespace outwards, against the limit
/// that stood when the namespace below it was made. Up to 5.18 among the counts of namespaces, up to
/// 5.13 in `user_struct`.
#[inline(always)]
fn processes(record: &mut RefusalRecord, task: At, cred: At) {
    let limit = task.follow(TASK_SIGNAL.load()).and_then(|at| rlimit(at, RLIMIT_NPROC));
    let Some(mut max) = limit else { return };
    if let Some(count) =
        cred.follow(CRED_USER.load()).and_then(|user| get!(user, USER_PROCESSES: u32))
    {
        let uid = u64::from(get!(cred, CRED_UID: u32).unwrap_or_default());
        record.nproc = Counted { current: u64::from(count), max, owner: uid, place: 0 };
        record.bits |= known::NPROC;
        return;
    }
    let (counts, maxima, index) = if UCOUNTS_RLIMIT.load() == ABSENT {
        (UCOUNTS_UCOUNT.load(), USER_NS_UCOUNT_MAX.load(), UCOUNT_NPROC.load())
    } else {
        (UCOUNTS_RLIMIT.load(), USER_NS_RLIMIT_MAX.load(), 0)
    };
    let Some(mut ucounts) = cred.follow(CRED_UCOUNTS.load()) else { return };
    for place in 0..NESTED {
        let (Some(current), Some(uid), Some(ns)) = (
            ucounts.word(counts, index),
            get!(ucounts, UCOUNTS_UID: u32),
            ucounts.follow(UCOUNTS_NS.load()),
        ) else {
            return;
        };
        if place == 0 || current >= max {
            record.nproc = Counted { current, max, owner: u64::from(uid), place };
            record.bits |= known::NPROC;
        }
        if current >= max {
            return;
        }
        max = ns.word(maxima, index).unwrap_or(u64::MAX);
        let Some(outer) = ns.follow(USER_NS_UCOUNTS.load()) else { return };
        ucounts = outer;
    }
}

/// The first full limit of namespaces among those that were asked for.
///
/// KERNEL: kernel/ucount.c `inc_ucount`: in each user namespace outwards.
#[inline(always)]
fn namespaces(record: &mut RefusalRecord, cred: At) {
    let Some(own) = cred.follow(CRED_UCOUNTS.load()) else { return };
    record.bits |= known::NAMESPACES;
    for kind in &NAMESPACE_ORDER {
        let kind = *kind;
        let asked = NAMESPACES.get(kind as usize).map_or(0, |(flag, _)| *flag);
        if record.args[arg::FLAGS] & asked == 0 {
            continue;
        }
        if let Some(full) = full_namespace(own, kind) {
            record.namespaces = full;
            record.bits |= known::NAMESPACE_FULL;
            return;
        }
    }
}

#[inline(always)]
fn full_namespace(own: At, kind: u32) -> Option<Counted> {
    let mut ucounts = own;
    for place in 0..NESTED {
        let ns = ucounts.follow(UCOUNTS_NS.load())?;
        let current = ucounts.word(UCOUNTS_UCOUNT.load(), kind)?;
        let max = ns.word(USER_NS_UCOUNT_MAX.load(), kind)?;
        if current >= max {
            let owner = u64::from(get!(ucounts, UCOUNTS_UID: u32)?);
            return Some(Counted { current, max, owner, place: u64::from(kind) << 32 | place });
        }
        ucounts = ns.follow(USER_NS_UCOUNTS.load())?;
    }
    None
}

/// The pid namespace of the caller's children, and the fullest of it and those around it.
#[inline(always)]
fn pid_namespaces(record: &mut RefusalRecord, task: At) {
    /// KERNEL: `include/linux/pid_namespace.h` `PIDNS_ADDING`.
    const ADDING: u32 = 1 << 31;
    let Some(nsproxy) = task.follow(TASK_NSPROXY.load()) else { return };
    let Some(children) = nsproxy.follow(NSPROXY_PID_NS.load()) else { return };
    if let (Some(active), Some(level), Some(allocated), Some(inum)) = (
        active_pid_ns(record, task),
        get!(children, PID_NS_LEVEL: u32),
        get!(children, PID_NS_ALLOCATED: u32),
        get!(children, PID_NS_INUM: u32),
    ) {
        record.children_level = level;
        record.children_allocated = allocated;
        record.children_inum = inum;
        record.bits |= known::PID_NS;
        if active != children {
            record.bits |= known::OTHER_PID_NS;
        }
    }
    let time =
        (nsproxy.follow(NSPROXY_TIME_NS.load()), nsproxy.follow(NSPROXY_CHILD_TIME_NS.load()));
    if let (Some(own), Some(children)) = time
        && own != children
    {
        record.bits |= known::OTHER_TIME_NS;
    }
    let mut ns = children;
    for place in 0..NESTED {
        let (Some(allocated), Some(max), Some(inum)) = (
            get!(ns, PID_NS_ALLOCATED: u32),
            get!(ns, PID_NS_PID_MAX: u32),
            get!(ns, PID_NS_INUM: u32),
        ) else {
            return;
        };
        let current = u64::from(allocated & !ADDING);
        let counted = Counted { current, max: u64::from(max), owner: u64::from(inum), place };
        if place == 0 || left(&counted) < left(&record.pid_ns) {
            record.pid_ns = counted;
            record.bits |= known::PID_MAX;
        }
        let Some(outer) = ns.follow(PID_NS_PARENT.load()) else { return };
        ns = outer;
    }
}

#[inline(always)]
fn left(counted: &Counted) -> u64 {
    counted.max.saturating_sub(counted.current)
}

/// The caller's own pid namespace; its level is noted.
#[inline(always)]
fn active_pid_ns(record: &mut RefusalRecord, task: At) -> Option<At> {
    let pid = task.follow(TASK_THREAD_PID.load())?;
    let level = get!(pid, PID_LEVEL: u32)?;
    record.pid_level = level;
    let number = PID_NUMBERS.load().wrapping_add(level.wrapping_mul(UPID_SIZE.load()));
    pid.follow(number.wrapping_add(UPID_NS.load()))
}

/// The control groups that the child would be in: the caller's, or the one it names.
#[inline(always)]
fn groups(record: &mut RefusalRecord, task: At, no_memory: bool) {
    let named = record.args[arg::FLAGS] & CLONE_INTO_CGROUP != 0;
    let (holder, offset) = if named {
        let Some(group) = named_group(task, record.args[arg::CGROUP]) else { return };
        record.bits |= known::INTO;
        (group, CGROUP_SUBSYS.load())
    } else {
        let Some(set) = task.follow(TASK_CGROUPS.load()) else { return };
        (set, CSET_SUBSYS.load())
    };
    // VERIFIER: plain words: of an `Option`'s value LLVM saves what was never written.
    let (mut shown, mut place) = (0, 0);
    if let Some(css) = holder.word(offset, PIDS_CGRP_ID.load()).filter(|css| *css != 0) {
        pids(record, At(css));
        (shown, place) = (css, record.pids.place);
    }
    if let Some(css) = holder.word(offset, MEMORY_CGRP_ID.load()).filter(|css| *css != 0) {
        memory(record, At(css));
        if no_memory {
            (shown, place) = (css, record.memory.place);
        }
    }
    if shown != 0 {
        path(record, At(shown), place);
    }
    if !named {
        moved(record);
    }
}

/// What the caller's own groups count of their refusals.
#[inline(always)]
fn moved(record: &mut RefusalRecord) {
    let task = Task::current();
    if let Some(refusals) = task.pids_refusals() {
        record.pids_refusals = refusals;
        record.bits |= known::PIDS_REFUSALS;
    }
    if let Some(ooms) = task.memory_ooms() {
        record.memory_ooms = ooms;
        record.bits |= known::MEMORY_OOMS;
    }
}

/// The control group behind file descriptor `fd`.
#[inline(always)]
fn named_group(task: At, fd: u64) -> Option<At> {
    let table = task.follow(TASK_FILES.load())?.follow(FILES_FDT.load())?;
    if fd >= u64::from(get!(table, FDT_MAX_FDS: u32)?) {
        return None;
    }
    let files = table.follow(FDT_FD.load())?;
    let file = At(files.0.wrapping_add(fd.wrapping_mul(8))).follow(0)?;
    let node = file.follow(FILE_INODE.load())?.follow(INODE_PRIVATE.load())?;
    let group = node.follow(KN_PRIV.load())?;
    // What another file system keeps there does not point back.
    (group.follow(CGROUP_KN.load())? == node).then_some(group)
}

/// The first full group of the pids controller, else the one with the fewest left.
///
/// KERNEL: kernel/cgroup/pids.c `pids_try_charge`: from the group upwards, the root has no limit.
/// `struct pids_cgroup` begins with its `cgroup_subsys_state`.
#[inline(always)]
fn pids(record: &mut RefusalRecord, own: At) {
    let mut css = own;
    for place in 0..GROUPS {
        let Some(parent) = get!(css, CSS_PARENT: u64) else { return };
        if parent == 0 {
            record.bits |= known::PIDS_WALKED;
            return;
        }
        let (Some(current), Some(max)) = (get!(css, PIDS_COUNTER: u64), get!(css, PIDS_LIMIT: u64))
        else {
            return;
        };
        let counted = Counted { current, max, owner: id(css).unwrap_or_default(), place };
        if place == 0 || left(&counted) < left(&record.pids) {
            record.pids = counted;
            record.bits |= known::PIDS;
        }
        if current >= max {
            record.bits |= known::PIDS_WALKED;
            return;
        }
        css = At(parent);
    }
}

/// The group of the memory controller with the least left.
///
/// KERNEL: include/linux/memcontrol.h: `struct mem_cgroup` begins with its `cgroup_subsys_state`.
#[inline(always)]
fn memory(record: &mut RefusalRecord, own: At) {
    let mut css = own;
    for place in 0..GROUPS {
        let Some(parent) = get!(css, CSS_PARENT: u64) else { return };
        if parent == 0 {
            return;
        }
        let (Some(current), Some(max)) = (get!(css, MEMORY_USAGE: u64), get!(css, MEMORY_MAX: u64))
        else {
            return;
        };
        let counted = Counted { current, max, owner: id(css).unwrap_or_default(), place };
        if place == 0 || left(&counted) < left(&record.memory) {
            record.memory = counted;
            record.bits |= known::MEMORY;
        }
        css = At(parent);
    }
}

#[inline(always)]
fn node(css: At) -> Option<At> {
    css.follow(CSS_CGROUP.load())?.follow(CGROUP_KN.load())
}

#[inline(always)]
fn id(css: At) -> Option<u64> {
    get!(node(css)?, KN_ID: u64)
}

/// The names of the path of the group that lies `place` above `own`.
#[inline(always)]
fn path(record: &mut RefusalRecord, own: At, place: u64) {
    let mut css = own;
    for above in 0..GROUPS {
        if above == place {
            break;
        }
        let Some(parent) = css.follow(CSS_PARENT.load()) else { return };
        css = parent;
    }
    let Some(mut node) = node(css) else { return };
    for slot in &mut record.names {
        let parent = node.follow(KN_PARENT.load()).or_else(|| node.follow(KN_PARENT_RCU.load()));
        // The root has neither name nor parent.
        let Some(parent) = parent else {
            record.bits |= known::GROUP_PATH;
            return;
        };
        let Some(name) = node.follow(KN_NAME.load()) else { return };
        let name = name.0 as *const c_void;
        // SAFETY: the helper checks the address and fails on a bad one.
        let read = unsafe { bpf_probe_read_kernel_str_bytes(name.cast(), slot) };
        if read.is_err() {
            return;
        }
        node = parent;
    }
    if node.follow(KN_PARENT.load()).or_else(|| node.follow(KN_PARENT_RCU.load())).is_none() {
        record.bits |= known::GROUP_PATH;
    }
}
