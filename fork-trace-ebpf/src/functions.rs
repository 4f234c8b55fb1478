//! Programs at entry and return of the kernel's functions, four to a row of the function table: by
//! BTF trampoline (fentry, fexit) and by breakpoint (kprobe, kretprobe).
//!
//! Bodies are one call into `calls`. Userspace attaches the first pair only where the kernel's own
//! type information gives the parameters that the row has.

use core::arch::asm;

use aya_ebpf::{Global, cty::c_void, programs::RetProbeContext};
use fork_trace_common::function::{FIRST_MANY, Function, NO_RETURN};

use crate::calls;

/// Stands for the errno that a null pointer does not tell.
const NULL: u32 = 1 << 16;

/// Makes the four programs of a function, and the global that says where its return value lies.
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
            -> $once_returns:ident $(, $once_note:ident)*;)*
        ;;
        $(Many $many:ident = $many_id:ident $many_names:tt $many_lists:tt
            -> $many_returns:ident $(, $many_note:ident)*;)*
    ) => {
        $(programs!(
            $once_id,
            $once_returns,
            calls::enter(Function::$once),
            |errno| calls::leave(Function::$once, errno)
        );)*
        $(programs!(
            $many_id,
            $many_returns,
            calls::enter_many(Function::$many as u32 - FIRST_MANY),
            |errno| calls::leave_many(Function::$many as u32 - FIRST_MANY, errno)
        );)*
    };
}

fork_trace_common::for_each_function!(all);

/// A value that no way of failing is read from.
const NOTHING: u64 = 1;

/// What a BTF program at a return finds behind the function's parameters.
///
/// VERIFIER: before 6.12 a context must not be read at an offset that is not constant, and LLVM
/// would make one of several loads.
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

/// From a return value to an errno, 0 where the function did not fail; named as in the table.
#[expect(non_snake_case, reason = "the table's own words")]
mod errno {
    use super::NULL;

    #[inline(always)]
    fn low(value: u64) -> u32 {
        (value & 0xffff_ffff) as u32
    }

    /// KERNEL: include/linux/err.h `MAX_ERRNO`.
    const MAX_ERRNO: u64 = 4095;

    #[inline(always)]
    pub(super) fn Nothing(_: impl FnOnce() -> u64) -> u32 {
        0
    }

    #[inline(always)]
    pub(super) fn Errno(value: impl FnOnce() -> u64) -> u32 {
        // The upper half of an int's register is not defined.
        let value = low(value());
        if value > u32::MAX - (MAX_ERRNO & 0xffff) as u32 { value.wrapping_neg() } else { 0 }
    }

    #[inline(always)]
    pub(super) fn Pointer(value: impl FnOnce() -> u64) -> u32 {
        match value() {
            0 => NULL,
            value if value > u64::MAX - MAX_ERRNO => low(value.wrapping_neg()),
            _ => 0,
        }
    }
}
