//! Whether the caller is being ended, and by what.

use fork_trace_common::{
    refusal::{RefusalRecord, known},
    settings::ABSENT,
};

use super::{
    reads::{Address, Reads},
    section::{Section, section},
};
use crate::{
    global_functions::global_functions,
    kernel::offsets::{
        SIGNAL_EXEC_TASK, SIGNAL_EXIT_TASK, SIGNAL_GROUP_EXIT_CODE, SIGNAL_OOM_MM, TASK_PENDING,
        TASK_SIGNAL,
    },
};

global_functions! {
    /// Whether the caller is being ended, and by what.
    pub(super) fn evidence_ending() {
        let Some(Section { record, reads, task, .. }) = &mut section() else { return 0 };
        ending(record, reads, *task);
    }
}

/// Fills in whether a fatal signal is pending, and where it comes from.
///
/// KERNEL: include/linux/sched/signal.h `__fatal_signal_pending` looks for SIGKILL among the thread's
/// own signals. kernel/signal.c `complete_signal` and `zap_other_threads` put it there for whatever
/// ends a process. `mm/oom_kill.c` `mark_oom_victim` sets `oom_mm`. fs/exec.c `de_thread` sets
/// `group_exec_task`, which up to 5.16 was `group_exit_task`.
#[inline(always)]
fn ending(record: &mut RefusalRecord, reads: &mut Reads, task: Address) {
    const SIGKILL: u64 = 1 << 8;
    reads.start_over();
    let pending = reads.long(task, TASK_PENDING.load());
    let signal = reads.pointer(task, TASK_SIGNAL.load());
    record.group_exit_code = reads.int(signal, SIGNAL_GROUP_EXIT_CODE.load());
    if reads.succeeded() {
        record.bits |= known::ENDING;
        if pending & SIGKILL != 0 {
            record.bits |= known::KILLED;
        }
    }
    let exec_task = match SIGNAL_EXEC_TASK.load() {
        ABSENT => SIGNAL_EXIT_TASK.load(),
        exec_task => exec_task,
    };
    if reads.pointer(signal, exec_task).0 != 0 {
        record.bits |= known::THREAD_TAKES_OVER;
    }
    if reads.pointer(signal, SIGNAL_OOM_MM.load()).0 != 0 {
        record.bits |= known::OOM_VICTIM;
    }
}
