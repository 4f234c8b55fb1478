//! Programs at the entry and the return of kernel functions. Each row of the function table has
//! four: two for BTF trampolines (fentry, fexit) and two for breakpoints (kprobe, kretprobe).
//!
//! User space attaches the first pair only if the parameters that the kernel's own type information
//! gives for the function are those of the row.

use core::arch::asm;

use aya_ebpf::{Global, cty::c_void, helpers::bpf_get_current_pid_tgid, programs::RetProbeContext};
use fork_trace_common::function::{FIRST_MANY, Function, NO_RETURN};

use crate::attempt::{child, functions_passed, start};

/// Stands in place of an errno for a null pointer, which does not say why the function failed.
const NULL: u32 = 1 << 16;

/// Defines the four programs of a function, and the global that says where its return value lies.
macro_rules! programs {
    ($id:ident, $returns:ident, $enter:expr, $leave:expr) => {
        mod $id {
            use super::*;

            #[unsafe(export_name = concat!("ARITY_", stringify!($id)))]
            static ARITY: Global<u8> = Global::new(NO_RETURN);

            #[unsafe(export_name = concat!("fentry_", stringify!($id)))]
            #[unsafe(link_section = concat!("fentry/", stringify!($id)))]
            extern "C" fn fentry(_: *mut c_void) -> i32 {
                $enter
            }

            #[unsafe(export_name = concat!("fexit_", stringify!($id)))]
            #[unsafe(link_section = concat!("fexit/", stringify!($id)))]
            extern "C" fn fexit(ctx: *mut c_void) -> i32 {
                let value = || returned(ctx, ARITY.load());
                $leave(errno::$returns(value))
            }

            #[unsafe(export_name = concat!("kprobe_", stringify!($id)))]
            #[unsafe(link_section = concat!("kprobe/", stringify!($id)))]
            extern "C" fn kprobe(_: *mut c_void) -> i32 {
                $enter
            }

            #[unsafe(export_name = concat!("kretprobe_", stringify!($id)))]
            #[unsafe(link_section = concat!("kretprobe/", stringify!($id)))]
            extern "C" fn kretprobe(ctx: *mut c_void) -> i32 {
                let value = || {
                    if ARITY.load() == NO_RETURN {
                        NOTHING
                    } else {
                        RetProbeContext::new(ctx).ret()
                    }
                };
                $leave(errno::$returns(value))
            }
        }
    };
}

macro_rules! all {
    (
        $(Once $once:ident = $once_id:ident $once_names:tt $once_lists:tt
            -> $once_returns:ident $(, $($once_note:ident)+)?;)*
        ;;
        $(Many $many:ident = $many_id:ident $many_names:tt $many_lists:tt
            -> $many_returns:ident $(, $($many_note:ident)+)?;)*
    ) => {
        $(programs!(
            $once_id,
            $once_returns,
            enter(Function::$once),
            |errno| leave(Function::$once, errno)
        );)*
        $(programs!(
            $many_id,
            $many_returns,
            functions_passed::enter_many(Function::$many as u32 - FIRST_MANY),
            |errno| functions_passed::leave_many(Function::$many as u32 - FIRST_MANY, errno)
        );)*
    };
}

fork_trace_common::for_each_function!(all);

/// Entry of a function that runs once. Which function it is is known at compile time, so only the
/// programs of those that need it carry more than the plain case.
#[inline(always)]
fn enter(function: Function) -> i32 {
    match function {
        Function::KernelClone | Function::CopyProcess => functions_passed::begin_unseen(),
        Function::ScheduleTail => return start::tail_begins(),
        _ => {}
    }
    if function.row().last {
        return functions_passed::enter_last(function as u32);
    }
    functions_passed::enter_once(function as u32)
}

/// Return of a function that runs once, which failed with `errno` unless that is 0.
#[inline(always)]
fn leave(function: Function, errno: u32) -> i32 {
    if matches!(function, Function::ScheduleTail) {
        return start::tail_ends();
    }
    functions_passed::leave_once(function as u32, errno);
    match function {
        Function::WakeUpNewTask => child::woken(bpf_get_current_pid_tgid()),
        Function::CopyProcess if errno != 0 => child::not_made(bpf_get_current_pid_tgid(), errno),
        _ => {}
    }
    0
}

/// A return value that says of no function that it failed.
const NOTHING: u64 = 1;

/// The return value of a function with `arity` parameters, which a BTF program finds behind them in
/// its context.
///
/// VERIFIER: before 6.12 a context must not be read at an offset that is not constant. LLVM would
/// merge the loads into one at such an offset, if they were not assembly.
#[inline(always)]
fn returned(ctx: *mut c_void, arity: u8) -> u64 {
    macro_rules! slot {
        ($place:literal) => {{
            let value: u64;
            // SAFETY: the verifier checks what may be read of a context.
            unsafe {
                asm!("{0} = *(u64 *)({1} + {2})", out(reg) value, in(reg) ctx, const $place * 8);
            }
            value
        }};
    }
    match arity {
        0 => slot!(0),
        1 => slot!(1),
        2 => slot!(2),
        3 => slot!(3),
        4 => slot!(4),
        5 => slot!(5),
        _ => NOTHING,
    }
}

/// From a return value to an errno, which is 0 if the function did not fail. The functions are
/// named as the ways to fail are in the table.
#[expect(non_snake_case, reason = "the table's own words")]
mod errno {
    use super::NULL;
    use crate::current::low_half;

    /// KERNEL: include/linux/err.h `MAX_ERRNO`.
    const MAX_ERRNO: u64 = 4095;

    #[inline(always)]
    pub(super) fn Nothing(_: impl FnOnce() -> u64) -> u32 {
        0
    }

    #[inline(always)]
    pub(super) fn Errno(value: impl FnOnce() -> u64) -> u32 {
        // The upper half of an int's register is not defined.
        let value = low_half(value());
        if value > u32::MAX - (MAX_ERRNO & 0xffff) as u32 { value.wrapping_neg() } else { 0 }
    }

    #[inline(always)]
    pub(super) fn Pointer(value: impl FnOnce() -> u64) -> u32 {
        match value() {
            0 => NULL,
            value if value > u64::MAX - MAX_ERRNO => low_half(value.wrapping_neg()),
            _ => 0,
        }
    }
}
