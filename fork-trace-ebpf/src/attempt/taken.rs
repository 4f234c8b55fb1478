//! Calls that a tracer takes away from the kernel. It stops the caller at the entry and puts -1 in the
//! place of the call's number, so that the kernel does nothing. From then on the registers no longer
//! say which call it was.
//!
//! The number is still there while the caller is stopped, so it is kept as the caller leaves its CPU.
//! Only tasks that are traced are looked at.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};

use crate::{
    kernel::{
        errno::ENOSYS,
        regs::Regs,
        syscall::{is_taken, may_fork},
        task::Task,
    },
    maps::{REGS_PLACE, STOPPED},
};

/// What a call is to return, until it has been made.
const NOT_MADE: i64 = -ENOSYS;

/// Learns from the registers of any call how far they lie from the beginning of a task's kernel stack:
/// that is the same for all tasks.
#[inline(always)]
pub(crate) fn learn(regs: Regs) {
    let Some(place) = REGS_PLACE.get_ptr_mut(0) else { return };
    // SAFETY: the slot exists; whoever writes to it at the same time writes the same.
    if unsafe { place.read() } != 0 {
        return;
    }
    let typed = regs.address();
    // VERIFIER: 5.10 does not calculate with a pointer whose type it knows. What a helper has copied
    // is a plain number.
    // SAFETY: it reads a word of this program's stack.
    let address = unsafe { bpf_probe_read_kernel(&raw const typed) };
    if let Ok(address) = address
        && let Some(stack) = Task::current().stack()
    {
        // SAFETY: as above.
        unsafe { place.write(address.wrapping_sub(stack)) };
    }
}

/// The calling task, which is traced, leaves its CPU.
///
/// KERNEL: kernel/ptrace.c `ptrace_stop` is where it does so for its tracer. A call that has not been
/// made yet returns -ENOSYS by its registers.
#[inline(always)]
pub(crate) fn leaves_cpu(task: Task) {
    let Some(place) = REGS_PLACE.get(0).copied().filter(|place| *place != 0) else { return };
    let Some(stack) = task.by_helper().stack() else { return };
    let Some((nr, ret)) = Regs::at(stack.wrapping_add(place)).number_and_return() else { return };
    let key = bpf_get_current_pid_tgid();
    if ret == NOT_MADE && may_fork(nr) {
        // If the map is full, a call that is taken away is not shown.
        _ = STOPPED.insert(key, nr, 0);
    } else if ret != NOT_MADE || !is_taken(nr) {
        forget(key);
    }
}

/// The number that the calling task's call had before it was taken away; 0 where that is not known.
#[inline(always)]
pub(crate) fn number() -> u64 {
    let key = bpf_get_current_pid_tgid();
    // SAFETY: only programs of the thread that the key stands for touch the entry.
    let nr = unsafe { STOPPED.get(key) }.copied().unwrap_or_default();
    if nr != 0 {
        forget(key);
    }
    // A tracer that has let go of it in the meantime has let it make its call.
    if Task::current().tracer().is_some() { nr } else { 0 }
}

/// The call of a traced thread is over.
#[inline(always)]
pub(crate) fn over(task: Task, key: u64) {
    if task.tracer().is_some() {
        forget(key);
    }
}

/// Forgets what a thread was about to call.
#[inline(always)]
pub(super) fn forget(key: u64) {
    // It may not be there.
    _ = STOPPED.remove(key);
}
