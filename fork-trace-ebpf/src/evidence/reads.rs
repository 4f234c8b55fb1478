//! Reads of the kernel's memory that are checked together.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_probe_read_kernel};
use fork_trace_common::settings::ABSENT;

use crate::kernel::offsets::element;

/// An address in the kernel's memory, as a plain number.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Address(pub(super) u64);

/// Reads that belong together. If one fails, its value is 0, and so is everything that is read
/// through it; the reads go on all the same. At the end [`Reads::succeeded`] says whether all of
/// them worked.
///
/// VERIFIER: with a branch after each read there would be hundreds of thousands of ways through the
/// program, and the kernel tries each of them before it loads the program.
pub(super) struct Reads {
    /// Where the helper puts each value, because a program's stack has no room for a word of each
    /// read.
    word: *mut u64,
    /// Not 0 if a read has failed.
    failed: i64,
}

impl Reads {
    /// Reads that put each value into `word`.
    #[inline(always)]
    pub(super) const fn new(word: *mut u64) -> Self {
        Self { word, failed: 0 }
    }

    /// Begins the next reads that belong together: what failed before is forgotten.
    #[inline(always)]
    pub(super) const fn start_over(&mut self) {
        self.failed = 0;
    }

    /// Makes the reads fail, for a reason of the caller's.
    #[inline(always)]
    pub(super) const fn fail(&mut self) {
        self.failed = -1;
    }

    /// Whether all reads worked since they were last started over.
    #[inline(always)]
    pub(super) const fn succeeded(&self) -> bool {
        self.failed == 0
    }

    /// Reads 64 bits.
    #[inline(always)]
    pub(super) fn long(&mut self, base: Address, offset: u32) -> u64 {
        self.fetch(base, offset, 8);
        // SAFETY: the word is this program's own.
        unsafe { self.word.read_volatile() }
    }

    /// Reads 32 bits.
    #[inline(always)]
    pub(super) fn int(&mut self, base: Address, offset: u32) -> u32 {
        self.fetch(base, offset, 4);
        // SAFETY: as above; this is the first half of it.
        unsafe { self.word.cast::<u32>().read_volatile() }
    }

    /// Reads 8 bits.
    #[inline(always)]
    pub(super) fn byte(&mut self, base: Address, offset: u32) -> u8 {
        self.fetch(base, offset, 1);
        // SAFETY: as above; this is the first byte of it.
        unsafe { self.word.cast::<u8>().read_volatile() }
    }

    /// Puts `bytes` bytes into the word.
    #[inline(always)]
    fn fetch(&mut self, base: Address, offset: u32, bytes: u32) {
        if offset == ABSENT {
            self.fail();
            // SAFETY: the word is this program's own.
            unsafe { self.word.write_volatile(0) };
            return;
        }
        let address = base.0.wrapping_add(u64::from(offset)) as *const c_void;
        // SAFETY: the helper checks the address. It fills as many bytes as are asked for, which are
        // 8 at most, and fills them with zeros if it fails.
        self.failed |= unsafe { bpf_probe_read_kernel(self.word.cast(), bytes, address) };
    }

    /// Reads a pointer.
    #[inline(always)]
    pub(super) fn pointer(&mut self, base: Address, offset: u32) -> Address {
        Address(self.long(base, offset))
    }

    /// Reads the element `index` of the array of words at `offset`.
    #[inline(always)]
    pub(super) fn element(&mut self, base: Address, offset: u32, index: u32) -> u64 {
        self.long(base, element(offset, index))
    }
}
