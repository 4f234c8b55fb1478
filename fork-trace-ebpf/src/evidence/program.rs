//! The program that a caller runs: the path of its file and its arguments. It is described once for
//! each process and exec, so that it is known of callers that are gone by the time they are shown.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, generated::bpf_probe_read_kernel_str,
    },
};
use fork_trace_common::{
    counter::Counter,
    program::{ProgramRecord, STEP_BYTES, bits},
    record::RecordKind,
};

use super::reads::{Address, Reads};
use crate::{
    current::tgid,
    global_functions::global_functions,
    kernel::{
        offsets::{
            DENTRY_NAME, DENTRY_PARENT, FILE_DENTRY, FILE_MNT, MM_EXE_FILE, MOUNT_MNT,
            MOUNT_MOUNTPOINT, MOUNT_PARENT, TASK_MM, VFSMOUNT_ROOT, inside,
        },
        program::{ARGS_MASK, read_args},
        task::Task,
    },
    maps::{DESCRIBED, Described, PROGRAM, count},
    ring,
};

/// [`STEP_BYTES`] as the helper takes it.
const ROOM: u32 = 64;
const _: () = assert!(ROOM as usize == STEP_BYTES);

global_functions! {
    /// Describes the calling process's program, unless that was done.
    pub(crate) fn describe_program() {
        let task = Task::current().by_helper();
        let process = tgid(bpf_get_current_pid_tgid());
        let (Some(start_ns), Some(exec_id)) = (task.process_start_ns(), task.exec_id()) else {
            return 0;
        };
        let this = Described { start_ns, exec_id };
        // SAFETY: the value is copied at once; at worst a program is described twice.
        if unsafe { DESCRIBED.get(process) }.copied() == Some(this) {
            return 0;
        }
        // SAFETY: the slot is this CPU's own, and what ends attempts is seldom preempted; a
        // description that was mixed up names another process.
        let Some(scratch) = PROGRAM.get_ptr_mut(0).and_then(|scratch| unsafe { scratch.as_mut() })
        else {
            return 0;
        };
        let record = &mut scratch.record;
        record.kind = RecordKind::Program as u32;
        record.bits = 0;
        record.tgid = process;
        record.exec_id = (exec_id & 0xffff_ffff) as u32;
        record.start_ns = start_ns;
        let mut reads = Reads::new(&raw mut scratch.word);
        // SAFETY: the helper has no preconditions.
        let mm = reads.pointer(Address(unsafe { bpf_get_current_task() }), TASK_MM.load());
        if !reads.succeeded() || mm.0 == 0 {
            return 0;
        }
        path(record, &mut reads, mm);
        let kept = args(record, task);
        if !ring::send_program(record, ProgramRecord::HEAD as u64 + (kept & ARGS_MASK)) {
            count(Counter::RingFullPrograms);
            return 0;
        }
        // A full map forgets the oldest.
        _ = DESCRIBED.insert(process, this, 0);
    }
}

/// Fills in the names on the way from the program's file to the root.
///
/// KERNEL: `fs/d_path.c` `prepend_path`: from the root of a mount the way goes on where that is mounted,
/// and the root mount is its own parent.
#[inline(always)]
fn path(record: &mut ProgramRecord, reads: &mut Reads, mm: Address) {
    reads.start_over();
    let file = reads.pointer(mm, MM_EXE_FILE.load());
    let mut dentry = reads.pointer(file, FILE_DENTRY.load());
    let mut mount = mount_of(reads, file);
    if !reads.succeeded() {
        return;
    }
    let (mut cut, mut whole) = (0_u64, false);
    for step in &mut record.steps {
        *step = [0; STEP_BYTES];
        let root = reads.pointer(mount, inside(MOUNT_MNT.load(), VFSMOUNT_ROOT.load()));
        let above = reads.pointer(mount, MOUNT_PARENT.load());
        let mountpoint = reads.pointer(mount, MOUNT_MOUNTPOINT.load());
        let parent = reads.pointer(dentry, DENTRY_PARENT.load());
        let name = reads.pointer(dentry, DENTRY_NAME.load()).0 as *const c_void;
        let room = step.as_mut_ptr().cast();
        // SAFETY: the helper checks the address and writes no more than the room.
        let length = unsafe { bpf_probe_read_kernel_str(room, ROOM, name) };
        if root == dentry && above == mount {
            whole = true;
            *step = [0; STEP_BYTES];
            break;
        }
        // VERIFIER: all bits where the way goes on in another mount, none otherwise. With a branch for
        // each of these, the kernel would try twice as many ways at every step.
        let crosses = u64::from(root == dentry).wrapping_neg();
        dentry = Address(mountpoint.0 & crosses | parent.0 & !crosses);
        mount = Address(above.0 & crosses | mount.0 & !crosses);
        if let Some(first) = step.first_mut() {
            *first &= (!crosses & 0xff) as u8;
        }
        // A name that fills the room may be cut; what was not read is below 0, and so very long.
        cut |= u64::from(length.cast_unsigned() >= STEP_BYTES as u64) & !crosses;
    }
    if whole && cut == 0 && reads.succeeded() {
        record.bits |= bits::WHOLE;
    }
}

/// The `mount` around the `vfsmount` of a file's path.
#[inline(always)]
fn mount_of(reads: &mut Reads, file: Address) -> Address {
    let inner = reads.pointer(file, FILE_MNT.load());
    Address(inner.0.wrapping_sub(u64::from(MOUNT_MNT.load())))
}

/// Reads the arguments of the calling task; returns how many bytes.
#[inline(always)]
fn args(record: &mut ProgramRecord, task: Task) -> u64 {
    record.args_bytes = 0;
    let Some((start, bytes)) = task.args() else { return 0 };
    record.args_bytes = bytes;
    let Some(kept) = read_args(&mut record.args, start, bytes) else { return 0 };
    record.bits |= bits::ARGS;
    kept
}
