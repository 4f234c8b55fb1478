//! x86-64.

use std::{
    arch::{asm, naked_asm},
    ffi::c_int,
    mem::offset_of,
    ptr,
};

use super::super::{
    errno::{Errno, errno},
    script::ChildCall,
};

/// The number and the arguments of the fork system call, if the machine has one.
pub(crate) const FORK: Option<i64> = Some(libc::SYS_fork);
/// The same of vfork.
pub(crate) const VFORK: Option<i64> = Some(libc::SYS_vfork);

/// Makes a system call. Where it returns 0, in the child, it makes the script's calls and exits.
///
/// # Safety
/// The pointers among `args` must be valid for what the call does with them, and `script` must live
/// as long as a child that shares this memory may read it.
pub(crate) unsafe fn fork_call(nr: i64, args: [u64; 5], script: &[ChildCall]) -> i64 {
    let [a, b, c, d, e] = args;
    let range = script.as_ptr_range();
    let mut word = nr;
    // SAFETY: the caller answers for the pointers; the child stays in the block and writes to no
    // memory, so the stack it may share is intact when the parent goes on.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 4f",
            "2:",
            "cmp r12, r13",
            "je 3f",
            "mov rax, [r12]",
            "mov rdi, [r12 + 8]",
            "mov rsi, [r12 + 16]",
            "mov rdx, [r12 + 24]",
            "mov r10, [r12 + 32]",
            "mov r8, [r12 + 40]",
            "add r12, 48",
            "syscall",
            "jmp 2b",
            "3:",
            "xor edi, edi",
            "mov eax, 60", // exit
            "syscall",
            "4:",
            inlateout("rax") word,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r12") range.start, in("r13") range.end,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    word
}

const NUMBER: usize = offset_of!(libc::user_regs_struct, orig_rax);
const RESULT: usize = offset_of!(libc::user_regs_struct, rax);

fn poke(tid: c_int, place: usize, word: i64) -> Result<(), Errno> {
    let place = ptr::without_provenance::<u8>(place);
    // SAFETY: the request writes to the child's registers.
    let ret = unsafe { libc::ptrace(libc::PTRACE_POKEUSER, tid, place, word) };
    if ret == -1 { Err(errno()) } else { Ok(()) }
}

/// The number of the call that a stopped child is in.
pub(crate) fn stopped_in(tid: c_int) -> i64 {
    let place = ptr::without_provenance::<u8>(NUMBER);
    // SAFETY: the answer is returned, not written.
    unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, tid, place, 0) }
}

/// Changes the number of the call that a stopped child is about to make.
pub(crate) fn set_number(tid: c_int, nr: i32) -> Result<(), Errno> {
    poke(tid, NUMBER, nr.into())
}

/// Changes what the call returns that a stopped child has made.
pub(crate) fn set_result(tid: c_int, result: i64) -> Result<(), Errno> {
    poke(tid, RESULT, result)
}

/// Calls [`stack_middle`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn stack_outer() -> c_int {
    naked_asm!("push rbp", "mov rbp, rsp", "call {}", "pop rbp", "ret", sym stack_middle)
}

/// Calls [`stack_fork`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn stack_middle() -> c_int {
    naked_asm!("push rbp", "mov rbp, rsp", "call {}", "pop rbp", "ret", sym stack_fork)
}

/// Forks; the child exits.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn stack_fork() -> c_int {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov eax, 57", // fork
        "syscall",
        "test eax, eax",
        "jnz 2f",
        "xor edi, edi",
        "mov eax, 60", // exit
        "syscall",
        "2:",
        "pop rbp",
        "ret",
    )
}
