//! Fork's own tracepoints, one program each. The kernel has all of them, and each fires for every
//! fork.
//!
//! A program's doc gives the `TP_PROTO` of its tracepoint. All are BTF tracepoints, because those
//! attach and detach in less than two milliseconds.

use aya_ebpf::{cty::c_void, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;

use crate::{
    attempt::{begin, child, finish, libc, marks, stacks, start, taken, waits},
    current::low_half,
    follow_up,
    kernel::{
        program::Program,
        regs::Regs,
        syscall::{is_taken, may_fork},
        task::Task,
    },
};

/// `sys_enter(struct pt_regs *regs, long id)`. It runs for every system call of the host, so it
/// looks at the number before anything else.
#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let nr: u64 = ctx.arg(1);
    if may_fork(nr) {
        waits::runs_in_fork();
        taken::learn(Regs::new(ctx.arg(0)));
        begin::enter(Regs::new(ctx.arg(0)), nr);
        stacks::take(&ctx);
        // This program may have been preempted, before there was a record to write waits beside.
        waits::runs_in_fork();
        debug!(&ctx, "sys_enter nr {}", nr);
    }
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`. It runs as often, and looks at the number first too.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs = Regs::new(ctx.arg(0));
    // SAFETY: the first argument of this BTF tracepoint is a `pt_regs`.
    let nr = unsafe { regs.nr() };
    let taken = is_taken(nr);
    let nr = if taken { taken::number() } else { nr };
    if may_fork(nr) {
        let ret: i64 = ctx.arg(1);
        let ret = if taken { regs.taken_return(ret) } else { ret };
        finish::exit(regs, nr, ret, taken);
        debug!(&ctx, "sys_exit nr {} ret {}", nr, ret);
    } else if follow_up::may_be_failed_exec(nr, ctx.arg(1)) {
        follow_up::exec_fails(regs, nr, ctx.arg(1));
    }
    0
}

/// `task_newtask(struct task_struct *task, u64 clone_flags)`. Before 6.18 the flags are an
/// `unsigned long`.
#[btf_tracepoint(function = "task_newtask")]
pub(crate) fn task_newtask(ctx: BtfTracePointContext) -> i32 {
    let clone_flags: u64 = ctx.arg(1);
    waits::runs_in_fork();
    child::newtask(Task::new(ctx.arg::<*const c_void>(0)), clone_flags);
    debug!(&ctx, "task_newtask flags {:x}", clone_flags);
    0
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    marks::process_fork();
    debug!(&ctx, "sched_process_fork");
    0
}

/// `sched_wakeup_new(struct task_struct *p)`.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub(crate) fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    child::wakeup_new(Task::new(ctx.arg::<*const c_void>(0)));
    debug!(&ctx, "sched_wakeup_new");
    0
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, ...)`. It runs
/// for every switch of the host, so before anything else it looks whether the previous task is traced,
/// whether it has ended if ends are wanted, whether one of the two is inside a fork, and whether the
/// next one is new.
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let previous = Task::new(ctx.arg::<*const c_void>(1));
    // SAFETY: the second argument of this BTF tracepoint is a `task_struct`.
    if unsafe { previous.is_traced() } {
        taken::leaves_cpu(previous);
    }
    if follow_up::ends_wanted() && Task::shows_its_end() {
        // SAFETY: as above.
        if unsafe { previous.is_dead() } {
            follow_up::last_switch(previous);
        }
    }
    let next = Task::new(ctx.arg::<*const c_void>(2));
    if waits::may_leave()
        // SAFETY: the second argument of this BTF tracepoint is a `task_struct`.
        && let Some(returns) = unsafe { previous.in_fork_call() }
    {
        let preempted = ctx.arg::<u64>(0) & 0xff != 0;
        waits::leaves(&ctx, previous, preempted, returns);
    }
    if waits::may_come_back() {
        waits::comes_back(next);
    }
    // SAFETY: the third argument of this BTF tracepoint is a `task_struct`.
    if unsafe { next.starts() } {
        waits::runs_in_fork();
        start::first_switch(next);
    }
    0
}

/// `sched_process_exit(struct task_struct *p, ...)`.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn sched_process_exit(_ctx: BtfTracePointContext) -> i32 {
    finish::task_ends();
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    libc::execs(low_half(ctx.arg(1)));
    follow_up::execs(Task::new(ctx.arg(0)), Program::new(ctx.arg(2)));
    0
}
