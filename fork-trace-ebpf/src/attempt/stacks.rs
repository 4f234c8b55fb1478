//! The user-space stack of a caller, where it is asked for.
//!
//! It is taken as the attempt begins and sent at once, and nothing is kept. The scratch memory of a CPU is
//! used by the program of one tracepoint only, which the kernel does not run again on that CPU before it is done.

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_stack},
    programs::BtfTracePointContext,
};
use fork_trace_common::{
    counter::Counter,
    record::{RecordKind, TracerProgram, bits},
    stack::{STACK_BYTES, StackRecord},
    stage::Mark,
};

use super::record::{set_tracer_ns, under_way};
use crate::{
    current::low_half,
    kernel::task::Task,
    maps::{STACK, count},
    ring,
};

/// 1 if callers' stacks are taken.
#[unsafe(no_mangle)]
static STACKS_ON: Global<u8> = Global::new(0);

/// KERNEL: include/uapi/linux/bpf.h `BPF_F_USER_STACK`, `BPF_F_USER_BUILD_ID`: an address in a file that is in
/// memory and has a build id is given as an offset in that file.
const FLAGS: u64 = 1 << 8 | 1 << 11;

/// The calling thread has entered one of fork's system calls.
#[inline(always)]
pub(crate) fn take(ctx: &BtfTracePointContext) {
    if STACKS_ON.load() == 0 {
        return;
    }
    let key = bpf_get_current_pid_tgid();
    let Some(record) = under_way(key) else { return };
    // The call that is repeated comes from the same place.
    if !record.has(bits::ENTERED) || record.restarts > 0 {
        return;
    }
    if !ring::has_room_to_spare() {
        count(Counter::StacksLost);
        return;
    }
    // SAFETY: the slot is this CPU's own, and this program does not run twice on a CPU.
    let Some(taken) = STACK.get_ptr_mut(0).and_then(|taken| unsafe { taken.as_mut() }) else {
        return;
    };
    let (start_code, start_stack, exe_inode) = Task::current().by_helper().image();
    taken.kind = RecordKind::Stack as u32;
    taken.tid = low_half(key);
    taken.start_ns = record.start_ns;
    taken.start_code = start_code;
    taken.start_stack = start_stack;
    taken.exe_inode = exe_inode;
    let stack = taken.stack.as_mut_ptr().cast();
    // SAFETY: the helper writes no more bytes than the array has.
    let bytes = unsafe { bpf_get_stack(ctx.as_ptr(), stack, STACK_BYTES, FLAGS) };
    let bytes = u64::try_from(bytes).unwrap_or_default() & !31;
    if bytes > u64::from(STACK_BYTES) {
        return;
    }
    taken.frames = bytes / 32;
    if !ring::send_stack(taken, StackRecord::HEAD as u64 + bytes) {
        count(Counter::StacksLost);
    }
    let began_ns = record.mark_ns(Mark::SysEnter);
    set_tracer_ns(record, TracerProgram::SysEnter, began_ns);
}
