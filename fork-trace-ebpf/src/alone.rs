//! Functions that are verified on their own.

/// Defines functions without arguments that the object exports.
///
/// VERIFIER: the kernel verifies such a function once, whatever its callers know. The ways through what
/// is inlined are multiplied by those before it, and each load of a pointer by one whose type is known
/// makes the kernel search all of its types: without this, loading takes ten times as long.
/// KERNEL: kernel/bpf/verifier.c `do_check_subprogs`, `check_ptr_to_btf_access`.
macro_rules! alone {
    ($($(#[$doc:meta])* $name:ident() $body:block)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name() -> u64 {
                $body
                0
            }
        )*
    };
}

pub(crate) use alone;
