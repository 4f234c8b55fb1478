//! What the caller asked for: the arguments of its call.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_probe_read_user};
use fork_trace_common::{
    flags::{CLONE_VFORK, CLONE_VM, CSIGNAL, SIGCHLD},
    record::Syscall,
    refusal::{NAME_BYTES, NAMES, RefusalRecord, arg, known},
};

use super::{
    reads::Reads,
    section::{AttemptInfo, Section, section},
};
use crate::{
    current::low_half,
    global_functions::global_functions,
    kernel::{
        arch::ARCH,
        offsets::{
            REGS_ARG_0, REGS_ARG_1, REGS_ARG_2, REGS_ARG_3, REGS_ARG_4, REGS_COMPAT_ARG_0,
            REGS_COMPAT_ARG_1, REGS_COMPAT_ARG_2, REGS_COMPAT_ARG_3, REGS_COMPAT_ARG_4,
        },
    },
};

/// KERNEL: `include/linux/pid_namespace.h` `MAX_PID_NS_LEVEL`: how many ids `set_tid` may have.
const MOST_TIDS: u64 = 32;
/// A page, which is the most that the struct of `clone3` may have.
const MOST_BYTES: u64 = 4096;

global_functions! {
    /// The arguments of the call.
    pub(super) fn evidence_arguments() {
        let Some(Section { record, reads, info, .. }) = &mut section() else { return 0 };
        arguments(record, reads, info);
    }
}

/// Fills in what the caller passed, in the places where `clone3` has it.
#[inline(always)]
fn arguments(record: &mut RefusalRecord, reads: &mut Reads, info: &AttemptInfo) {
    const CLONE: u32 = Syscall::Clone as u32;
    const CLONE3: u32 = Syscall::Clone3 as u32;
    const VFORK: u32 = Syscall::Vfork as u32;
    match info.syscall {
        CLONE3 => clone3(record, reads, info),
        CLONE => {
            reads.start_over();
            let [flags, stack, parent_tid, fourth, fifth] = if info.compat {
                [
                    REGS_COMPAT_ARG_0.load(),
                    REGS_COMPAT_ARG_1.load(),
                    REGS_COMPAT_ARG_2.load(),
                    REGS_COMPAT_ARG_3.load(),
                    REGS_COMPAT_ARG_4.load(),
                ]
            } else {
                [
                    REGS_ARG_0.load(),
                    REGS_ARG_1.load(),
                    REGS_ARG_2.load(),
                    REGS_ARG_3.load(),
                    REGS_ARG_4.load(),
                ]
            };
            let tls_first = info.compat || ARCH.tls_first;
            let (child_tid, tls) = if tls_first { (fifth, fourth) } else { (fourth, fifth) };
            let flags = reads.long(info.regs, flags);
            record.args[arg::FLAGS] = flags & 0xffff_ffff & !CSIGNAL;
            record.args[arg::EXIT_SIGNAL] = flags & CSIGNAL;
            record.args[arg::STACK] = reads.long(info.regs, stack);
            // KERNEL: kernel/fork.c `clone`: one pointer serves both CLONE_PIDFD and
            // CLONE_PARENT_SETTID.
            let parent_tid = reads.long(info.regs, parent_tid);
            record.args[arg::PARENT_TID] = parent_tid;
            record.args[arg::PIDFD] = parent_tid;
            record.args[arg::CHILD_TID] = reads.long(info.regs, child_tid);
            record.args[arg::TLS] = reads.long(info.regs, tls);
            if reads.succeeded() {
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

/// Reads bytes of the caller's memory; returns whether they could be read.
#[inline(always)]
fn user_bytes(to: *mut c_void, bytes: u32, address: u64) -> bool {
    // SAFETY: the callers have room for that many bytes. The helper checks the address, and fills
    // them with zeros if it fails.
    unsafe { bpf_probe_read_user(to, bytes, address as *const c_void) == 0 }
}

/// Fills in the words of the struct of `clone3`, whether only zeros follow them, and the first ids
/// of `set_tid`.
#[inline(always)]
fn clone3(record: &mut RefusalRecord, reads: &mut Reads, info: &AttemptInfo) {
    #[expect(clippy::cast_possible_truncation, reason = "88")]
    const BYTES: u32 = arg::COUNT as u32 * 8;
    reads.start_over();
    let (first, second) = if info.compat {
        (&REGS_COMPAT_ARG_0, &REGS_COMPAT_ARG_1)
    } else {
        (&REGS_ARG_0, &REGS_ARG_1)
    };
    let address = reads.long(info.regs, first.load());
    let size = reads.long(info.regs, second.load());
    if !reads.succeeded() {
        return;
    }
    record.args_bytes = size;
    record.bits |= known::ARGS;
    let bytes = if size < u64::from(BYTES) { low_half(size) } else { BYTES };
    if !user_bytes(record.args.as_mut_ptr().cast(), bytes, address) {
        record.bits |= known::ARGS_UNREADABLE;
    }
    let (set_tid, count) = (record.args[arg::SET_TID], record.args[arg::SET_TID_SIZE]);
    if count > 0 && count <= MOST_TIDS {
        let mut last = 0_u32;
        let last_at = set_tid.wrapping_add((count - 1) * 4);
        let mut readable = user_bytes((&raw mut last).cast(), 4, last_at);
        // VERIFIER: 5.10 does not see a bound of a length that is made of `count`.
        for (index, id) in record.set_tid.iter_mut().enumerate() {
            let index = index as u64;
            if index < count {
                let at = set_tid.wrapping_add(index * 4);
                readable &= user_bytes(core::ptr::from_mut(id).cast(), 4, at);
            }
        }
        if readable {
            record.bits |= known::SET_TID;
        }
    }
    if size > u64::from(BYTES) && size <= MOST_BYTES {
        record.bits |= tail(record, address + u64::from(BYTES), size - u64::from(BYTES));
    }
}

/// How many words are looked at together. They are put where the names of a group's path come
/// later, and are set back to zero.
const WORDS: usize = 8;
#[expect(clippy::cast_possible_truncation, reason = "64")]
const PIECE: u32 = WORDS as u32 * 8;
const _: () = assert!(WORDS * 8 <= NAMES * NAME_BYTES);

/// What is wrong with the `bytes` bytes from `address` on, which ought to be zero, as bits of
/// [`known`].
#[inline(always)]
fn tail(record: &mut RefusalRecord, address: u64, bytes: u64) -> u64 {
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
    not_zero(words, low_half(rest), address.wrapping_add(bytes - rest))
}

/// The same for at most `PIECE` bytes; `words` is where they are put.
#[inline(always)]
fn not_zero(words: *mut u64, bytes: u32, address: u64) -> u64 {
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
        // Before the bytes that cannot be read there may be some that are not zero.
        return known::TAIL_UNREADABLE | known::TAIL_NOT_ZERO;
    }
    if any == 0 { 0 } else { known::TAIL_NOT_ZERO }
}
