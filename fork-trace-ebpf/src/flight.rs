//! One record per attempt: begun at the entry, filled at each mark, submitted once.
//!
//! A record is kept under the calling thread's ids until the call returns, or, for a vfork, until
//! the child is awake: the parent's wait may last for hours. Marks of the last pass count when the
//! kernel restarts the call.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_get_current_comm,
    },
};
use fork_trace_common::{
    counter::Counter,
    flags::{
        CLONE_PARENT, CLONE_VFORK, CLONE_VM, CSIGNAL, PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER,
    },
    function::Function,
    record::{ForkRecord, RecordKind, StartRecord, Syscall, TaskIds, bits},
    refusal::RefusalRecord,
    stage::Mark,
};

use crate::{
    alone::alone,
    calls, filter, follow_up,
    kernel::{self, Regs, Task},
    maps::{ATTEMPTS, ON_CPU, OnCpu, RING, count},
    refusal::{self, Attempt},
};

/// KERNEL: include/linux/errno.h: the call is made again once a signal was handled.
const ERESTARTNOINTR: i64 = 513;

/// Bytes of a task's name in a record.
const COMM_BYTES: u32 = 16;

/// A default wake-up costs some 16 us inside the traced fork; userspace looks at the ring on its
/// own every few milliseconds.
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;
/// Unread bytes from which userspace is woken all the same.
const WAKE_ABOVE: u64 = 256 << 10;

/// A thread enters one of fork's system calls.
#[inline(always)]
pub(crate) fn enter(regs: Regs, nr: u64) {
    let task = Task::current();
    let compat = task.compat();
    let syscall = kernel::syscall(nr, compat);
    let key = bpf_get_current_pid_tgid();
    if matches!(syscall, Syscall::None) || !filter::wanted(task, tgid(key)) {
        return;
    }
    let now = now();
    let (sp, ip) = regs.place().unwrap_or_default();
    if let Some(flight) = flight(key) {
        let same = flight.syscall == syscall as u32 && flight.sp == sp && flight.ip == ip;
        if flight.has(bits::RESTARTING) && same {
            calls::begin(key);
            flight.bits &= !bits::RESTARTING;
            flight.marks = [0; Mark::IN_RECORD];
            flight.failed_alloc = 0;
            set(flight, Mark::SysEnter, now);
            return;
        }
        return_not_seen(flight, key);
    }
    let Some(record) = insert(key) else { return };
    calls::begin(key);
    record.bits |= bits::ENTERED;
    record.start_ns = now;
    record.sp = sp;
    record.ip = ip;
    set(record, Mark::SysEnter, now);
    call(record, regs, syscall, compat);
    if unwanted(record) {
        // It was there a moment ago, and only this thread removes it.
        _ = ATTEMPTS.remove(key);
        return;
    }
    _ = caller_enters();
}

alone! {
    /// Who calls, and what a refusal or the copy of its memory is held against: the counters of the
    /// caller's groups and its memory, as the call begins.
    caller_enters() {
        let key = bpf_get_current_pid_tgid();
        let Some(record) = flight(key) else { return 0 };
        let task = Task::current();
        identify(record, task, key);
        if let Some(groups) = task.groups() {
            if let Some(refusals) = groups.pids_refusals() {
                record.pids_refusals = refusals;
                record.bits |= bits::PIDS_REFUSALS;
            }
            if let Some(ooms) = groups.memory_ooms() {
                record.memory_ooms = ooms;
                record.bits |= bits::MEMORY_OOMS;
            }
        }
        if record.has(bits::FLAGS)
            && record.clone_flags & CLONE_VM == 0
            && let Some(rss) = task.memory(record.threads, &mut record.memory)
        {
            record.bits |= bits::MEMORY | if rss { bits::RSS } else { 0 };
        }
    }

    /// Who calls, of an attempt that was not seen to begin.
    caller_unentered() {
        let key = bpf_get_current_pid_tgid();
        let Some(record) = flight(key) else { return 0 };
        identify(record, Task::current().by_helper(), key);
    }
}

/// An attempt whose return the kernel passed without this program: it is shown all the same. One
/// that waits for its restart was given up by its caller.
#[inline(always)]
fn return_not_seen(flight: &ForkRecord, key: u64) {
    if !flight.has(bits::RESTARTING) {
        submit(flight, key);
    }
}

/// A record in flight; who calls is still to be filled in.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would pass the stack")]
fn insert(key: u64) -> Option<&'static mut ForkRecord> {
    if ATTEMPTS.insert(key, &EMPTY, 0).is_err() {
        count(Counter::InFlightFull);
    }
    flight(key)
}

/// A record in flight of an attempt that was not seen to begin; it knows who calls.
#[inline(always)]
fn insert_unentered(key: u64) -> Option<&'static mut ForkRecord> {
    insert(key)?;
    _ = caller_unentered();
    flight(key)
}

/// Whether an attempt is known to be of a kind that is not wanted.
#[inline(always)]
fn unwanted(record: &ForkRecord) -> bool {
    record.has(bits::FLAGS) && !filter::kind_wanted(record.clone_flags)
}

/// Takes `mark` of the calling thread's attempt, if there is one; the first time counts.
#[inline(always)]
pub(crate) fn mark(mark: Mark) {
    if let Some(flight) = flight(bpf_get_current_pid_tgid()) {
        first(flight, mark, now());
    }
}

/// An allocation of the calling thread's attempt, if there is one: its mark, and whether there was
/// memory.
#[inline(always)]
pub(crate) fn allocated(mark: Mark, object: bool) {
    let Some(flight) = flight(bpf_get_current_pid_tgid()) else { return };
    first(flight, mark, now());
    if !object && flight.failed_alloc == 0 {
        flight.failed_alloc = mark as u64 + 1;
    }
}

/// The lock of address space `mm`: a mark if it is the caller's own and the attempt has come to
/// `after`.
#[inline(always)]
pub(crate) fn mmap_lock(mm: *const c_void, mark: Mark, after: Mark) {
    let Some(flight) = flight(bpf_get_current_pid_tgid()) else { return };
    if at(flight, after) != 0 && Task::current().has_mm(mm) {
        first(flight, mark, now());
    }
}

/// The lock of address space `mm` is released: the caller's own, or its child's.
#[inline(always)]
pub(crate) fn mmap_unlock(mm: *const c_void) {
    let Some(flight) = flight(bpf_get_current_pid_tgid()) else { return };
    if at(flight, Mark::MmapLockTaken) == 0 {
        return;
    }
    let own = Task::current().has_mm(mm);
    first(flight, if own { Mark::ParentMmapReleased } else { Mark::ChildMmapReleased }, now());
}

/// A writer begins to spin: of an attempt that has its pid, for `tasklist_lock`.
#[inline(always)]
pub(crate) fn lock_contended() {
    let Some(flight) = flight(bpf_get_current_pid_tgid()) else { return };
    if at(flight, Mark::PidAlloc) != 0 && at(flight, Mark::TaskNewtask) == 0 {
        first(flight, Mark::LockContended, now());
    }
}

/// Somebody got a lock.
#[inline(always)]
pub(crate) fn lock_taken() {
    let Some(flight) = flight(bpf_get_current_pid_tgid()) else { return };
    if at(flight, Mark::LockContended) != 0 {
        first(flight, Mark::LockTaken, now());
    }
}

/// A task was made by the calling thread.
#[inline(always)]
pub(crate) fn newtask(child: Task, clone_flags: u64) {
    // First: what this program takes before would be missing in the stage that begins here.
    let now = now();
    let key = bpf_get_current_pid_tgid();
    let Some(ids) = child.ids() else { return };
    filter::born(tgid(key), ids.tgid);
    let pf = child.flags().unwrap_or_default();
    if !filter::task_wanted(ids.tid, pf, clone_flags) {
        count(Counter::FilteredKind);
        calls::forget(key);
        // Only of a call whose flags could not be read at its entry.
        if flight(key).is_some_and(|flight| !flight.has(bits::RESTARTING | bits::CHILD)) {
            _ = ATTEMPTS.remove(key);
        }
        return;
    }
    // A call that waits for its restart makes nothing: this task is somebody else's. One that has
    // made its task has returned unseen.
    let entered = flight(key).filter(|flight| !flight.has(bits::RESTARTING));
    if let Some(flight) = &entered
        && flight.has(bits::CHILD)
    {
        submit(flight, key);
    }
    let entered = entered.filter(|flight| !flight.has(bits::CHILD));
    let Some(flight) = entered.or_else(|| begin_unentered(key, pf)) else {
        return;
    };
    set(flight, Mark::TaskNewtask, now);
    made(flight, child, ids, pf, clone_flags);
}

/// Writes down what was made.
#[inline(always)]
fn made(flight: &mut ForkRecord, child: Task, ids: TaskIds, pf: u32, clone_flags: u64) {
    count(Counter::Seen);
    flight.bits |= bits::CHILD;
    flight.child = ids;
    flight.child_pf = pf;
    flight.task_flags = clone_flags;
    set(flight, Mark::StartTime, ids.start_ns);
    if clone_flags & CLONE_VM == 0
        && let Some((vmas, page_table_bytes)) = child.mm_size()
    {
        flight.copied_vmas = vmas;
        flight.copied_page_table_bytes = page_table_bytes;
        flight.bits |= bits::COPIED;
    }
    if clone_flags & CLONE_PARENT != 0 {
        flight.real_parent = child.ppid().unwrap_or_default();
    }
    if let Some(level) = child.pid_level() {
        flight.child_ns_tid = child.nr_at(level).unwrap_or_default();
    }
    if let Some(nr) = Task::current().pid_level().and_then(|level| child.nr_at(level)) {
        flight.ret = i64::from(nr);
    }
}

/// A new task whose call was not seen to begin: counted, and begun here if it is wanted: made by
/// the kernel for itself, or by a call whose entry was not seen.
#[inline(always)]
fn begin_unentered(key: u64, pf: u32) -> Option<&'static mut ForkRecord> {
    let task = Task::current();
    if !filter::wanted(task, tgid(key)) {
        count(Counter::FilteredTask);
        calls::forget(key);
        return None;
    }
    let Some(record) = insert_unentered(key) else {
        count(Counter::Unentered);
        return None;
    };
    // A kernel thread, a helper program started by one, a worker of io_uring or vhost.
    if pf & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER) != 0
        || task.flags().is_some_and(|pf| pf & PF_KTHREAD != 0)
    {
        record.bits |= bits::KERNEL_MADE;
        record.start_ns = kernel_began_ns(key);
    }
    Some(record)
}

/// When an attempt of the kernel's own began, where its functions are probed; else 0.
#[inline(always)]
fn kernel_began_ns(key: u64) -> u64 {
    match calls::entered_ns(key, Function::KernelClone) {
        0 => calls::entered_ns(key, Function::CopyProcess),
        entered => entered,
    }
}

/// `copy_process` failed with `errno`: the kernel's own attempt ends here, a user's goes on to its
/// return.
#[inline(always)]
pub(crate) fn not_made(key: u64, errno: u32) {
    if flight(key).is_some() {
        return;
    }
    let task = Task::current();
    let by_kernel = task.flags().is_some_and(|pf| pf & PF_KTHREAD != 0)
        || calls::entered_ns(key, Function::KernelClone) == 0;
    let began = if by_kernel { insert_unentered(key) } else { None };
    let Some(record) = began else {
        calls::forget(key);
        return;
    };
    record.bits |= bits::KERNEL_MADE;
    record.start_ns = kernel_began_ns(key);
    record.ret = -i64::from(errno);
    finish(record, key);
}

/// `kernel_clone` announces the child.
#[inline(always)]
pub(crate) fn process_fork() {
    if let Some(flight) = flight(bpf_get_current_pid_tgid()) {
        set(flight, Mark::SchedProcessFork, now());
    }
}

/// The child is on a run queue.
#[inline(always)]
pub(crate) fn wakeup_new(child: Task) {
    let key = bpf_get_current_pid_tgid();
    let Some(flight) = flight(key) else { return };
    let now = now();
    // The kernel may have skipped the program of task_newtask too: from 7.0 or so on programs of
    // every tracepoint may be preempted.
    if flight.has(bits::ENTERED)
        && !flight.has(bits::CHILD | bits::RESTARTING)
        && let Some(ids) = child.by_helper().ids()
    {
        filter::born(tgid(key), ids.tgid);
        let flags = if flight.syscall == Syscall::Clone3 as u32 {
            flight.clone_flags
        } else {
            flight.clone_flags & !CSIGNAL
        };
        made(flight, child.by_helper(), ids, child.flags().unwrap_or_default(), flags);
    }
    if !flight.has(bits::CHILD) || child.tid() != Some(flight.child.tid) {
        return;
    }
    set(flight, Mark::SchedWakeupNew, now);
    flight.parent_cpu = cpu();
    follow_up::begins(flight, key);
    if flight.task_flags & CLONE_VFORK != 0 {
        flight.bits |= bits::VFORK_WAIT;
    }
    // Where the function around this is probed, its return is waited for.
    if flight.has(bits::VFORK_WAIT | bits::KERNEL_MADE)
        && calls::entered_ns(key, Function::WakeUpNewTask) == 0
    {
        finish(flight, key);
    }
}

/// `wake_up_new_task` returns: what comes now of a vfork is its wait.
#[inline(always)]
pub(crate) fn woken(key: u64) {
    if let Some(flight) = flight(key)
        && flight.has(bits::VFORK_WAIT | bits::KERNEL_MADE)
    {
        finish(flight, key);
    }
}

/// A CPU is about to switch to a task for the first time.
#[inline(always)]
pub(crate) fn first_switch(child: Task) {
    let Some(ids) = child.ids() else { return };
    if !filter::start_followed(ids.tgid) {
        return;
    }
    let on_cpu = OnCpu { at_ns: now(), cpu: u64::from(cpu()), tail_entered_ns: 0, tail_ns: 0 };
    if ON_CPU.insert(ids.tid, on_cpu, 0).is_err() {
        count(Counter::OnCpuFull);
    }
}

/// A thread leaves one of fork's system calls.
#[inline(always)]
pub(crate) fn exit(regs: Regs, nr: u64, ret: i64) {
    let task = Task::current();
    let compat = task.compat();
    let syscall = kernel::syscall(nr, compat);
    if matches!(syscall, Syscall::None) {
        return;
    }
    let key = bpf_get_current_pid_tgid();
    if ret == 0 {
        child_returns(task, key);
        return;
    }
    let at_ns = now();
    let refused = ret < 0 && ret != -ERESTARTNOINTR && filter::wanted(task, tgid(key));
    let attempt = Attempt { regs, syscall, compat, ret, tid: low(key), at_ns };
    let refusal = if refused { evidence(&attempt) } else { None };
    let Some(flight) = flight(key) else {
        if let Some(refusal) = refusal {
            refused_before_entry(key, &attempt, refusal);
        } else if ret > 0 {
            follow_up::vfork_returns(task, key);
        }
        return;
    };
    flight.ret = ret;
    if ret == -ERESTARTNOINTR {
        flight.bits |= bits::RESTARTING;
        flight.restarts += 1;
        return;
    }
    // A vfork that is still here was not seen to be woken; its wait is over.
    if !flight.has(bits::VFORK_WAIT) {
        set(flight, Mark::SysExit, at_ns);
    }
    if !flight.has(bits::ENTERED) {
        // The flags are known from the new task; reading the arguments here too makes a program
        // that 5.10 does not load.
        flight.syscall = syscall as u32;
    }
    let waited = flight.has(bits::VFORK_WAIT);
    finish(flight, key);
    if waited {
        follow_up::vfork_returns(task, key);
    }
}

/// A task ends: nothing of it stays behind in a map.
#[inline(always)]
pub(crate) fn task_ends() {
    let key = bpf_get_current_pid_tgid();
    // Most tasks end with no attempt under way, and have returned to user space before.
    if let Some(flight) = flight(key) {
        return_not_seen(flight, key);
        _ = ATTEMPTS.remove(key);
    }
    calls::forget(key);
    _ = ON_CPU.remove(low(key));
    // KERNEL: kernel/exit.c `do_exit` counts `live` down before this tracepoint.
    let last = Task::current().live() == Some(0);
    follow_up::ends(key, last);
    if last {
        filter::died(tgid(key));
    }
}

/// The child returns from its parent's call for the first time.
#[inline(always)]
fn child_returns(task: Task, key: u64) {
    if !filter::start_wanted(tgid(key)) {
        return;
    }
    let Some(child) = task.ids() else { return };
    // SAFETY: only this thread's own programs change its entry.
    let on_cpu = unsafe { ON_CPU.get(low(key)) }.copied();
    let record = StartRecord {
        kind: RecordKind::Start as u32,
        cpu: on_cpu.map_or_else(cpu, |on_cpu| low(on_cpu.cpu)),
        child,
        return_ns: now(),
        on_cpu_ns: on_cpu.map_or(0, |on_cpu| on_cpu.at_ns),
        tail_ns: on_cpu.map_or(0, |on_cpu| on_cpu.tail_ns),
    };
    // It may never have been there.
    _ = ON_CPU.remove(low(key));
    if RING.output::<StartRecord>(&record, wake_up()).is_err() {
        count(Counter::RingFullStarts);
    }
}

/// Submits what is known of a refusal, just before the attempt's own record.
#[inline(always)]
fn evidence(attempt: &Attempt) -> Option<&'static RefusalRecord> {
    let record = refusal::collect(attempt)?;
    if RING.output::<RefusalRecord>(record, wake_up()).is_err() {
        count(Counter::RingFullRefusals);
    }
    Some(record)
}

/// An exit without an entry: seccomp or a tracer refused the call.
///
/// KERNEL: kernel/entry/common.c `syscall_trace_enter`: both come before the `sys_enter`
/// tracepoint.
#[inline(always)]
fn refused_before_entry(key: u64, attempt: &Attempt, refusal: &RefusalRecord) {
    // In the map, as any other: a record and all else that the exit needs do not fit on a stack.
    let Some(record) = insert_unentered(key) else { return };
    set(record, Mark::SysExit, attempt.at_ns);
    // VERIFIER: read once, by the evidence; twice in one program, LLVM merges the reads such that
    // 5.10 sees a register that was never written.
    let args = refusal.called(matches!(attempt.syscall, Syscall::Clone3));
    called(record, attempt.syscall, attempt.compat, args);
    record.ret = attempt.ret;
    if unwanted(record) {
        // It was there a moment ago, and only this thread removes it.
        _ = ATTEMPTS.remove(key);
        return;
    }
    finish(record, key);
}

#[inline(always)]
fn identify(record: &mut ForkRecord, task: Task, key: u64) {
    record.parent = task.ids().unwrap_or_default();
    record.parent.tgid = tgid(key);
    record.parent.tid = low(key);
    record.parent_process_start_ns = task.process_start_ns().unwrap_or_default();
    record.ppid = task.ppid().unwrap_or_default();
    record.uid = low(bpf_get_current_uid_gid());
    if let Some(threads) = task.threads() {
        record.threads = threads;
        record.bits |= bits::THREADS;
    }
    record.parent_ns_pid = task.ns_pid().unwrap_or_default();
    if let Some((ptrace, tracer)) = task.tracer() {
        record.ptrace = ptrace;
        record.tracer = tracer;
    }
    // Straight into the record: the stack of `sys_exit` is nearly full.
    // SAFETY: the helper writes as many bytes as the array has, and none if it fails.
    unsafe { bpf_get_current_comm(record.comm.as_mut_ptr().cast(), COMM_BYTES) };
    // SAFETY: the helper has no preconditions.
    record.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
}

/// What is called.
#[inline(always)]
fn call(record: &mut ForkRecord, regs: Regs, syscall: Syscall, compat: bool) {
    called(record, syscall, compat, regs.clone_args(syscall, compat));
    if let Some(set_tids) = regs.set_tids(syscall, compat) {
        record.set_tids = set_tids;
        record.bits |= bits::SET_TIDS;
    }
}

/// The call, its flags and exit signal.
#[inline(always)]
fn called(
    record: &mut ForkRecord,
    syscall: Syscall,
    compat: bool,
    (flags, exit_signal): (Option<u64>, Option<u64>),
) {
    record.syscall = syscall as u32;
    if compat {
        record.bits |= bits::COMPAT;
    }
    if let Some(flags) = flags {
        record.clone_flags = flags;
        record.bits |= bits::FLAGS;
    }
    if let Some(exit_signal) = exit_signal {
        record.exit_signal = exit_signal;
        record.bits |= bits::EXIT_SIGNAL;
    }
}

#[inline(always)]
fn finish(flight: &ForkRecord, key: u64) {
    submit(flight, key);
    // It was there a moment ago, and only this thread removes it.
    _ = ATTEMPTS.remove(key);
}

#[inline(always)]
fn submit(record: &ForkRecord, key: u64) {
    if !filter::outcome_wanted(record) {
        calls::forget(key);
        if record.has(bits::CHILD) {
            follow_up::unwanted(record);
            count(Counter::FilteredOutcome);
        }
        return;
    }
    calls::submit(key, record.start_ns, BPF_RB_NO_WAKEUP);
    if RING.output::<ForkRecord>(record, wake_up()).is_err() {
        count(if record.has(bits::CHILD) {
            Counter::RingFullForks
        } else {
            Counter::RingFullFailures
        });
    }
}

/// How to submit to the ring.
#[inline(always)]
pub(crate) fn wake_up() -> u64 {
    if RING.query(BPF_RB_AVAIL_DATA) >= WAKE_ABOVE { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}

#[inline(always)]
fn flight(key: u64) -> Option<&'static mut ForkRecord> {
    // SAFETY: only the thread that owns the key reads or writes its record, one program at a time.
    ATTEMPTS.get_ptr_mut(key).and_then(|flight| unsafe { flight.as_mut() })
}

/// What every attempt begins as.
static EMPTY: ForkRecord = ForkRecord::zeroed();

#[inline(always)]
pub(crate) fn at(record: &ForkRecord, mark: Mark) -> u64 {
    record.marks.get(mark as usize).copied().unwrap_or_default()
}

/// The first time a mark is passed counts: unwinding passes some again.
#[inline(always)]
fn first(record: &mut ForkRecord, mark: Mark, at: u64) {
    if let Some(slot) = record.marks.get_mut(mark as usize)
        && *slot == 0
    {
        *slot = at;
    }
}

#[inline(always)]
fn set(record: &mut ForkRecord, mark: Mark, at: u64) {
    if let Some(slot) = record.marks.get_mut(mark as usize) {
        *slot = at;
    }
}

#[inline(always)]
pub(crate) fn tgid(key: u64) -> u32 {
    (key >> 32) as u32
}

/// The low half of a helper's pair of ids: tid, or uid.
#[inline(always)]
pub(crate) fn low(pair: u64) -> u32 {
    (pair & 0xffff_ffff) as u32
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
