//! arm64.

use std::{
    arch::{asm, naked_asm},
    ffi::c_int,
    mem::size_of,
    ptr,
};

use super::super::{
    errno::{Errno, errno},
    script::ChildCall,
};

/// The machine has no fork system call.
pub(crate) const FORK: Option<i64> = None;
/// The machine has no vfork system call.
pub(crate) const VFORK: Option<i64> = None;

/// Makes a system call. Where it returns 0, in the child, it makes the script's calls and exits. The last two
/// arguments are in the order of x86-64.
///
/// # Safety
/// The pointers among `args` must be valid for what the call does with them, and `script` must live
/// as long as a child that shares this memory may read it.
pub(crate) unsafe fn fork_call(nr: i64, args: [u64; 5], script: &[ChildCall]) -> i64 {
    let [a, b, c, e, d] = args;
    let range = script.as_ptr_range();
    let mut word = a.cast_signed();
    // SAFETY: the caller answers for the pointers; the child stays in the block and writes to no
    // memory, so the stack it may share is intact when the parent goes on.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 4f",
            "2:",
            "cmp x9, x10",
            "b.eq 3f",
            "ldp x8, x0, [x9], #16",
            "ldp x1, x2, [x9], #16",
            "ldp x3, x4, [x9], #16",
            "svc #0",
            "b 2b",
            "3:",
            "mov x0, xzr",
            "mov x8, #93", // exit
            "svc #0",
            "4:",
            inlateout("x0") word,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x8") nr,
            in("x9") range.start, in("x10") range.end,
        );
    }
    word
}

/// Sets of registers. KERNEL: include/uapi/linux/elf.h.
const NT_PRSTATUS: usize = 1;
const NT_ARM_SYSTEM_CALL: usize = 0x404;

/// Reads or writes a set of registers of a stopped child.
fn set<T>(request: u32, tid: c_int, kind: usize, registers: &mut T) -> Result<(), Errno> {
    let base = ptr::from_mut(registers).cast();
    let place = libc::iovec { iov_base: base, iov_len: size_of::<T>() };
    let kind = ptr::without_provenance::<u8>(kind);
    // SAFETY: the kernel reads or writes no more than the place has; both types are plain words.
    let ret = unsafe { libc::ptrace(request, tid, kind, ptr::from_ref(&place)) };
    if ret == -1 { Err(errno()) } else { Ok(()) }
}

/// The number of the call that a stopped child is in.
pub(crate) fn stopped_in(tid: c_int) -> i64 {
    let mut number = -1_i32;
    let read = set(libc::PTRACE_GETREGSET, tid, NT_ARM_SYSTEM_CALL, &mut number);
    read.map_or(-1, |()| number.into())
}

/// Changes the number of the call that a stopped child is about to make.
pub(crate) fn set_number(tid: c_int, mut nr: i32) -> Result<(), Errno> {
    set(libc::PTRACE_SETREGSET, tid, NT_ARM_SYSTEM_CALL, &mut nr)
}

/// Changes what the call returns that a stopped child has made.
pub(crate) fn set_result(tid: c_int, result: i64) -> Result<(), Errno> {
    // The first of 31 registers; stack pointer, program counter and state come after them.
    let mut registers = [0_i64; 34];
    set(libc::PTRACE_GETREGSET, tid, NT_PRSTATUS, &mut registers)?;
    registers[0] = result;
    set(libc::PTRACE_SETREGSET, tid, NT_PRSTATUS, &mut registers)
}

/// Calls [`stack_middle`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn stack_outer() -> c_int {
    naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "bl {}",
        "ldp x29, x30, [sp], #16",
        "ret",
        sym stack_middle,
    )
}

/// Calls [`stack_fork`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn stack_middle() -> c_int {
    naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "bl {}",
        "ldp x29, x30, [sp], #16",
        "ret",
        sym stack_fork,
    )
}

/// Forks; the child exits.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn stack_fork() -> c_int {
    naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "mov x0, #17", // SIGCHLD
        "mov x1, xzr",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, #220", // clone
        "svc #0",
        "cbnz x0, 2f",
        "mov x8, #93", // exit
        "svc #0",
        "2:",
        "ldp x29, x30, [sp], #16",
        "ret",
    )
}
