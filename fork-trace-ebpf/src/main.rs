//! The kernel side of fork-trace: eBPF programs that gather everything known of one attempt to fork
//! in one record and send that record once.
//!
//! The way of the data: a program in [`programs`] runs and makes one call. [`attempt`] keeps the
//! record of the calling thread, from the entry of its system call to the end of the attempt.
//! For an attempt that failed, [`evidence`] reads what may have refused it. [`follow_up`] watches
//! what becomes of the child. [`ring`] hands all records to user space.
//!
//! Modules lie in layers, and each imports only from layers below its own:
//!
//! 1. [`programs`]
//! 2. [`attempt`]
//! 3. [`evidence`], [`follow_up`]
//! 4. [`filter`]: whose attempts are wanted; [`learn`]: what happens inside the tool's own forks
//! 5. [`kernel`]: every read of a kernel struct; [`ring`]
//! 6. [`maps`]: every map; [`current`]: ids, clock and CPU; [`global_functions`]
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod attempt;
mod current;
mod evidence;
mod filter;
mod follow_up;
mod global_functions;
mod kernel;
mod learn;
mod maps;
mod programs;
mod ring;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only programs under a GPL-compatible license call the helpers used for tracing.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
