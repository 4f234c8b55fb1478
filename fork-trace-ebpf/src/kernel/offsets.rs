//! The offsets of struct fields, one read-only global each, and how offsets are added up.

use aya_ebpf::Global;
use fork_trace_common::settings::ABSENT;

macro_rules! globals {
    ($($name:ident: $of:literal, $field:expr, $need:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(ABSENT);
        )*
    };
}

fork_trace_common::for_each_offset!(globals);

/// The offset of an element of an array of 64-bit words; absent where this kernel lacks either.
#[inline(always)]
pub(crate) fn element(array: u32, index: u32) -> u32 {
    const WORD: u32 = 8;
    if array == ABSENT || index == ABSENT { ABSENT } else { array + index * WORD }
}

/// The offset of what lies `within` a field; absent where either is.
#[inline(always)]
pub(crate) fn inside(field: u32, within: u32) -> u32 {
    if field == ABSENT || within == ABSENT { ABSENT } else { field + within }
}
