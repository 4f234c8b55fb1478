//! A fork from a known stack: `stack_outer` calls `stack_middle`, which calls `stack_fork`, which makes the
//! system call itself. All keep frame pointers, whatever the compiler does with them elsewhere.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::sys::machine::stack_outer;

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
