//! The i386 system calls, made by `int 0x80` in a 64 bit process, and memory at a low address for them.

use std::{
    arch::asm,
    ffi::{c_int, c_void},
};

use super::{
    errno::Errno,
    memory::{PAGE, map},
};

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

/// A page whose address fits in 32 bits; it goes away with this.
pub(crate) struct LowPage {
    at: *mut c_void,
}

impl LowPage {
    /// Maps a page that holds `content`.
    pub(crate) fn holding<T>(content: T) -> Result<Self, Errno> {
        const { assert!(size_of::<T>() <= PAGE, "it has to fit in a page") };
        let at = map(PAGE, libc::MAP_PRIVATE | libc::MAP_32BIT)?;
        // SAFETY: the page is new, aligned for any type, large enough and known to nobody else.
        unsafe { at.cast::<T>().write(content) };
        Ok(Self { at })
    }

    /// The page's address.
    pub(crate) fn address(&self) -> usize {
        self.at.addr()
    }
}

impl Drop for LowPage {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `holding`, and only system calls got its address.
        unsafe { libc::munmap(self.at, PAGE) };
    }
}
