//! The iterators over tasks. One tells user space the ids that the kernel has for every task that user
//! space sees, the other which tasks fill a limit.
//!
//! KERNEL: `kernel/bpf/task_iter.c`: it runs in the context of the process that reads, once for each
//! task of that process's pid namespace and the namespaces below, and once more without a task.

use aya_ebpf::{
    Global,
    cty::{c_int, c_void},
    helpers::generated::bpf_seq_write,
};
use fork_trace_common::{holder::HolderSeen, task_seen::TaskSeen};

use crate::{kernel::task::Task, maps::HOLDERS_OF};

/// How many levels the pid namespace that user space's `/proc` shows lies above the reader's own.
#[unsafe(no_mangle)]
static PROC_ABOVE: Global<u32> = Global::new(0);

/// Bytes of an entry of each iterator.
const TASK_BYTES: u32 = 32;
const HOLDER_BYTES: u32 = 72;
const _: () = assert!(TASK_BYTES as usize == size_of::<TaskSeen>());
const _: () = assert!(HOLDER_BYTES as usize == size_of::<HolderSeen>());

/// KERNEL: `kernel/bpf/task_iter.c` `struct bpf_iter__task`.
#[repr(C)]
struct Step {
    meta: *const Meta,
    task: *const c_void,
}

/// The first field of `struct bpf_iter_meta`, the only one that is needed.
///
/// KERNEL: include/linux/bpf.h.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// The task of a step, and where to write; `None` at the end of all.
///
/// # Safety
/// The kernel has passed `step`.
#[inline(always)]
unsafe fn task(step: *const Step) -> Option<(*mut c_void, Task)> {
    // SAFETY: the context has these fields.
    let Step { meta, task } = unsafe { step.read() };
    // SAFETY: the kernel passes a valid pointer to it with every step.
    let Meta { seq } = unsafe { meta.read() };
    (!task.is_null()).then(|| (seq, Task::new(task).by_helper()))
}

/// Writes a [`TaskSeen`] for each task.
///
/// # Safety
/// The kernel passes a valid context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
unsafe extern "C" fn tasks(step: *const Step) -> c_int {
    // SAFETY: the kernel has passed it.
    let Some((seq, task)) = (unsafe { task(step) }) else { return 0 };
    if let Some(seen) = see(task, Task::current().by_helper()) {
        // An entry for which there is no room is written again when the reader has made some.
        // SAFETY: the bytes are those of a local variable, and the file is the iterator's own.
        unsafe { bpf_seq_write(seq.cast(), (&raw const seen).cast(), TASK_BYTES) };
    }
    0
}

/// Writes a [`HolderSeen`] for each task that fills the limit which `HOLDERS_OF` names.
///
/// # Safety
/// The kernel passes a valid context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
unsafe extern "C" fn holders(step: *const Step) -> c_int {
    // SAFETY: the kernel has passed it.
    let Some((seq, task)) = (unsafe { task(step) }) else { return 0 };
    let Some(of) = HOLDERS_OF.get(0) else { return 0 };
    if task.counts_for(of)
        && let Some(holder) = task.holder()
    {
        // SAFETY: as above.
        unsafe { bpf_seq_write(seq.cast(), (&raw const holder).cast(), HOLDER_BYTES) };
    }
    0
}

/// What is written of a task; `None` for one that has just ended and lost its ids.
#[inline(always)]
fn see(task: Task, reader: Task) -> Option<TaskSeen> {
    let level = reader.pid_level()?;
    let is_reader = task.tid()? == reader.tid()?;
    let proc_level = level.wrapping_sub(PROC_ABOVE.load());
    Some(TaskSeen {
        tgid: task.tgid()?,
        tid: task.tid()?,
        ppid: task.ppid()?,
        seen_tgid: task.process_nr_at(level)?,
        seen_tid: task.nr_at(level)?,
        is_reader: u32::from(is_reader),
        level: if is_reader { level } else { 0 },
        proc_ns: if is_reader { task.pid_namespace_at(proc_level).unwrap_or(0) } else { 0 },
    })
}
