//! Programs at the entry and the return of functions of C libraries. Each row of the table in
//! `fork_trace_common::libc` has two: a uprobe and a uretprobe.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::generated::bpf_get_attach_cookie,
    programs::{ProbeContext, RetProbeContext},
};
use fork_trace_common::libc::{LibcFunction, Role};

use crate::{attempt::libc, current::low_half, kernel::arch::sp};

/// 1 if the kernel tells which attachment ran.
#[unsafe(no_mangle)]
static COOKIES: Global<u8> = Global::new(0);

/// Which library the program is attached to: its place in user space's list, plus 1; 0 if the kernel
/// does not tell.
#[inline(always)]
fn library(ctx: *mut c_void) -> u32 {
    if COOKIES.load() == 0 {
        return 0;
    }
    // SAFETY: the context is the one that the kernel has passed.
    low_half(unsafe { bpf_get_attach_cookie(ctx) })
}

#[inline(always)]
fn enter(ctx: *mut c_void, function: LibcFunction) -> i32 {
    let probe = ProbeContext::new(ctx);
    if matches!(function.row().role, Role::Registers) {
        libc::registers([0, 1, 2].map(|place| probe.arg(place).unwrap_or_default()));
        return 0;
    }
    // SAFETY: the context of a uprobe is the registers of the function's entry.
    let sp = unsafe { sp(&*probe.regs) };
    libc::enter(function, sp, || library(ctx));
    0
}

#[inline(always)]
fn leave(ctx: *mut c_void, function: LibcFunction) -> i32 {
    libc::leave(function, RetProbeContext::new(ctx).ret());
    0
}

/// At the entry of a handler that a process has registered; the kernel tells which one it is.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe/atfork_handler")]
extern "C" fn uprobe_atfork_handler(ctx: *mut c_void) -> i32 {
    if COOKIES.load() != 0 {
        // SAFETY: the context is the one that the kernel has passed.
        libc::enter_handler(unsafe { bpf_get_attach_cookie(ctx) });
    }
    0
}

/// At the return of such a handler.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe/atfork_handler")]
extern "C" fn uretprobe_atfork_handler(_ctx: *mut c_void) -> i32 {
    libc::leave_handler();
    0
}

/// Defines the two programs of each function.
macro_rules! programs {
    ($($function:ident = $id:ident $symbols:tt $role:ident $(($part:expr))?;)*) => {
        $(mod $id {
            use super::*;

            #[unsafe(export_name = concat!("uprobe_", stringify!($id)))]
            #[unsafe(link_section = concat!("uprobe/", stringify!($id)))]
            extern "C" fn entered(ctx: *mut c_void) -> i32 {
                enter(ctx, LibcFunction::$function)
            }

            #[unsafe(export_name = concat!("uretprobe_", stringify!($id)))]
            #[unsafe(link_section = concat!("uretprobe/", stringify!($id)))]
            extern "C" fn returned(ctx: *mut c_void) -> i32 {
                leave(ctx, LibcFunction::$function)
            }
        })*
    };
}

fork_trace_common::for_each_libc_function!(programs);
