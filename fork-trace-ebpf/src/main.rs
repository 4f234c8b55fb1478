//! fork-trace's kernel side: programs that put the times of one fork attempt into one record and
//! submit it once.
//!
//! Marks come in through `task` (fork's own tracepoints) and `inner` (those that fire inside a
//! fork, whose places `learn` helps to find); `flight` keeps one record per calling
//! thread and submits it; `life` follows the child after that; `kernel` reads kernel structs, and
//! `refusal` those that say why an attempt failed; `filter` says whose attempts are wanted; `maps`
//! holds every map.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod alone;
mod calls;
mod filter;
mod flight;
mod follow_up;
mod functions;
mod inner;
mod kernel;
mod learn;
mod maps;
mod refusal;
mod task;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers for tracing are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
