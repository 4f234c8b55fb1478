//! The i386 system calls, made by `int 0x80` in a 64 bit process.

use std::{arch::asm, ffi::c_int};

/// A call by `int 0x80` that makes no task, by its i386 number and with up to three arguments.
pub(crate) fn int80(nr: i32, args: [u32; 3]) -> c_int {
    let [b, c, d] = args.map(u64::from);
    let mut word = i64::from(nr);
    // SAFETY: callers pass numbers only, no addresses; rbx is put back.
    unsafe {
        asm!(
            "xchg rbx, {b}",
            "int 0x80",
            "xchg rbx, {b}",
            b = inout(reg) b => _,
            inlateout("rax") word,
            in("rcx") c, in("rdx") d,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    low(word)
}

/// A call by `int 0x80` that makes a task. The child exits at once, by the 64 bit exit.
///
/// # Safety
/// `first` and `second` must be what the call asks for; addresses among them must be valid.
pub(crate) unsafe fn int80_fork(nr: i32, first: u32, second: u32) -> c_int {
    let (b, c) = (u64::from(first), u64::from(second));
    let mut word = i64::from(nr);
    // SAFETY: the caller answers for the addresses; the child writes to no memory and does not
    // leave the block; rbx is put back.
    unsafe {
        asm!(
            "xchg rbx, {b}",
            "int 0x80",
            "test eax, eax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, 60", // exit
            "syscall",
            "2:",
            "xchg rbx, {b}",
            b = inout(reg) b => _,
            inlateout("rax") word,
            in("rcx") c, in("rdx") 0_u64, in("rsi") 0_u64, inlateout("rdi") 0_u64 => _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    low(word)
}

/// The low half of a register, where an i386 call returns.
fn low(word: i64) -> c_int {
    let [a, b, c, d, ..] = word.to_le_bytes();
    c_int::from_le_bytes([a, b, c, d])
}
