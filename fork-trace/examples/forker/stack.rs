//! A fork from a known stack: `stack_outer` calls `stack_middle`, which calls `stack_fork`, which makes the
//! system call itself. All keep frame pointers, whatever the compiler does with them elsewhere.

use std::{arch::naked_asm, ffi::c_int, thread, time::Duration};

use serde_json::{Value, json};

/// Forks once, as the last function of the three; then stays for a while.
pub(crate) fn run(stay: Duration) -> Value {
    // SAFETY: the child exits at once, and touches nothing but its own copy of the stack.
    let child = unsafe { stack_outer() };
    let truth = json!({
        "type": "stack",
        "child": child,
        "parent_tid": std::process::id(),
        "functions": ["stack_fork", "stack_middle", "stack_outer"],
    });
    thread::sleep(stay);
    truth
}

/// Calls [`stack_middle`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn stack_outer() -> c_int {
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
