//! Pointers into kernel memory, and the two ways to read through them.
//!
//! A direct load takes a few nanoseconds, but the verifier has to know the pointer's type. A helper
//! reads at any address and takes some 10 ns more.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel},
};
use fork_trace_common::settings::ABSENT;

/// 1 where the kernel hands out the calling task as a pointer whose type the verifier knows (5.11
/// and later). Then fields are loaded directly, otherwise each by a call of a helper.
#[unsafe(no_mangle)]
static TYPED: Global<u8> = Global::new(0);

/// A pointer to a struct of the kernel, of which this side knows only offsets.
#[derive(Clone, Copy)]
pub(crate) struct Ptr {
    /// Where the struct lies.
    pub(super) address: *const c_void,
    /// Whether the verifier knows its type, so that it is loaded from directly where [`TYPED`] is
    /// set. That holds for an argument of a BTF tracepoint, for the calling task, and for a field
    /// of either.
    typed: bool,
}

/// Reads the field whose offset the global `$offset` holds.
macro_rules! field {
    ($base:expr, $offset:ident: $type:ty) => {
        $base.read::<$type>($offset.load())
    };
}

pub(super) use field;

impl Ptr {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(super) fn new(address: *const c_void) -> Self {
        Self { address, typed: true }
    }

    /// From a plain number.
    #[inline(always)]
    pub(super) fn at(address: u64) -> Self {
        Self { address: address as *const c_void, typed: false }
    }

    /// The calling task.
    #[inline(always)]
    pub(super) fn current() -> Self {
        if TYPED.load() != 0 {
            // SAFETY: the helper has no preconditions.
            return Self::new(unsafe { bpf_get_current_task_btf() }.cast_const().cast());
        }
        // SAFETY: the helper has no preconditions.
        Self::new(unsafe { bpf_get_current_task() } as *const c_void)
    }

    /// The same pointer, through which only helpers read.
    #[inline(always)]
    pub(super) fn by_helper(self) -> Self {
        Self { address: self.address, typed: false }
    }

    /// Reads a field, in the fastest way there is; `None` if this kernel lacks it or the read
    /// fails.
    #[inline(always)]
    pub(super) fn read<T>(self, offset: u32) -> Option<T> {
        if offset == ABSENT {
            return None;
        }
        if self.typed && TYPED.load() != 0 {
            // SAFETY: the verifier knows the pointer's type.
            return Some(unsafe { self.load(offset) });
        }
        self.read_by_helper(offset)
    }

    /// Reads at an address of any kind; `None` if the read fails.
    #[inline(always)]
    pub(super) fn read_by_helper<T>(self, offset: u32) -> Option<T> {
        let address = self.address.wrapping_byte_add(offset as usize).cast::<T>();
        // SAFETY: the helper checks the address and fails on a bad one; `T` is an integer here.
        unsafe { bpf_probe_read_kernel(address) }.ok()
    }

    /// Reads without a helper.
    ///
    /// # Safety
    /// The pointer must be an argument of a BTF tracepoint. Then the verifier checks type and
    /// offset, and the kernel handles a fault.
    #[inline(always)]
    pub(super) unsafe fn load<T>(self, offset: u32) -> T {
        // SAFETY: as the caller promises.
        unsafe { self.address.wrapping_byte_add(offset as usize).cast::<T>().read_volatile() }
    }

    /// Reads a field that is a pointer; `None` if it is null or cannot be read.
    #[inline(always)]
    pub(super) fn follow(self, offset: u32) -> Option<Self> {
        let address = self.read::<*const c_void>(offset).filter(|target| !target.is_null())?;
        Some(Self { address, typed: self.typed })
    }
}
