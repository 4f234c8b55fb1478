//! Global functions: functions that the kernel verifies once, apart from the programs that call
//! them.

/// Defines functions without arguments as symbols that the object exports, which makes the verifier
/// call them global. What a function returns has no meaning.
///
/// VERIFIER: the kernel verifies a global function once, and assumes nothing of what its callers
/// know. Without it loading takes ten times as long, for two reasons. The kernel tries every way
/// through a program, and the ways through a function that is inlined multiply with those through
/// the code before it. And for each load of a pointer from a struct whose type the kernel knows, it
/// searches all of its types.
/// KERNEL: kernel/bpf/verifier.c `do_check_subprogs`, `check_ptr_to_btf_access`.
macro_rules! global_functions {
    ($($(#[$doc:meta])* $visible:vis fn $name:ident() $body:block)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            #[inline(never)]
            $visible extern "C" fn $name() -> u64 {
                $body
                0
            }
        )*
    };
}

pub(crate) use global_functions;
