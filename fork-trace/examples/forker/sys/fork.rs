//! The raw system calls that make a task, each in one assembler block of the machine's, and libc's `fork`.
//!
//! A function here takes numbers and flags and returns the kernel's own return value in the caller.
//! The child never comes back into Rust, unless its function says so: it makes the calls of a
//! script and exits, all without touching the stack. So the same block serves fork, vfork and
//! children that share this program's memory.

use std::{ffi::c_int, ptr};

use super::{
    clone_args::{Clone3Size, CloneArgs},
    errno::errno,
    flag, machine,
    script::ChildCall,
};

/// Makes a system call, as [`machine::fork_call`] does.
///
/// # Safety
/// As there.
unsafe fn fork_call(nr: i64, args: [u64; 5], script: &[ChildCall]) -> c_int {
    // SAFETY: as this function asks of its caller.
    narrow(unsafe { machine::fork_call(nr, args, script) })
}

/// A return value of the kernel: tids and errnos fit.
fn narrow(word: i64) -> c_int {
    c_int::try_from(word).unwrap_or(c_int::MIN)
}

/// The fork system call; where the machine has none, a clone that does the same.
pub(crate) fn fork() -> c_int {
    let Some(nr) = machine::FORK else { return clone(flag::SIGCHLD) };
    // SAFETY: the call takes no arguments.
    unsafe { fork_call(nr, [0; 5], &[]) }
}

/// The vfork system call, or a clone that does the same; the child runs `script` while this thread is held.
pub(crate) fn vfork(script: &[ChildCall]) -> c_int {
    let as_clone = (libc::SYS_clone, flag::VM | flag::VFORK | flag::SIGCHLD);
    let (nr, flags) = machine::VFORK.map_or(as_clone, |nr| (nr, 0));
    // SAFETY: no address to write to; the script outlives the child because the parent waits for it.
    unsafe { fork_call(nr, [flags, 0, 0, 0, 0], script) }
}

/// The clone system call with every pointer NULL; the child exits at once.
pub(crate) fn clone(flags: u64) -> c_int {
    // SAFETY: the kernel gets no address to write to; the script is empty.
    unsafe { fork_call(libc::SYS_clone, [flags, 0, 0, 0, 0], &[]) }
}

/// Like [`clone`], with a script for a child that has its own memory.
pub(crate) fn clone_scripted(flags: u64, script: &[ChildCall]) -> c_int {
    let own_memory = flags & !flag::VM;
    // SAFETY: no address to write to; the child reads its own copy of the script.
    unsafe { fork_call(libc::SYS_clone, [own_memory, 0, 0, 0, 0], script) }
}

/// Like [`clone`], but the child has its own memory and goes on in Rust, where it sees 0.
pub(crate) fn clone_returning(flags: u64) -> c_int {
    let own_memory = flags & !(flag::VM | flag::VFORK);
    // SAFETY: as fork: no address to write to, and the child returns on its own copy of the stack.
    let ret = unsafe { libc::syscall(libc::SYS_clone, own_memory, 0_u64, 0_u64, 0_u64, 0_u64) };
    if ret == -1 { -errno() } else { narrow(ret) }
}

/// The clone system call with a stack of its own for the child, which exits at once.
pub(crate) fn clone_on_stack(flags: u64, stack: &'static [u128]) -> c_int {
    let top = stack.as_ptr_range().end.addr() as u64;
    // SAFETY: the child never touches the stack it gets; the script is empty.
    unsafe { fork_call(libc::SYS_clone, [flags, top, 0, 0, 0], &[]) }
}

/// The clone3 system call with the first `size` bytes of the struct; the child exits at once.
pub(crate) fn clone3(args: &CloneArgs<'_>, size: Clone3Size) -> c_int {
    // SAFETY: the struct has `size` bytes and its addresses are borrows it holds.
    unsafe { clone3_at(ptr::from_ref(args).addr(), size as usize) }
}

/// The clone3 system call with a struct read from plain words that hold no address.
pub(crate) fn clone3_words(words: &[u64], size: usize) -> c_int {
    let room = size_of_val(words);
    // SAFETY: the kernel reads no further than the words; none of them is a valid user address.
    unsafe { clone3_at(words.as_ptr().addr(), size.min(room)) }
}

/// Like [`clone3_words`], with addresses among the words.
///
/// # Safety
/// Each word that the kernel takes for an address must be valid for what it does with it, or one
/// that no program has.
pub(crate) unsafe fn clone3_raw(words: &[u64], size: usize) -> c_int {
    let room = size_of_val(words);
    // SAFETY: as this function asks of its caller.
    unsafe { clone3_at(words.as_ptr().addr(), size.min(room)) }
}

/// The clone3 system call with a NULL struct.
pub(crate) fn clone3_null(size: usize) -> c_int {
    // SAFETY: the kernel reads from address 0 and fails.
    unsafe { clone3_at(0, size) }
}

/// # Safety
/// The struct at `address`, and every address in it, must be valid.
unsafe fn clone3_at(address: usize, size: usize) -> c_int {
    // SAFETY: as this function asks of its caller; the script is empty.
    unsafe { fork_call(libc::SYS_clone3, [address as u64, size as u64, 0, 0, 0], &[]) }
}

/// libc's `fork`, which here returns what the kernel does.
pub(crate) fn libc_fork() -> c_int {
    // SAFETY: the child of a process with other threads goes on only to exit.
    let ret = unsafe { libc::fork() };
    if ret == -1 { -errno() } else { ret }
}
