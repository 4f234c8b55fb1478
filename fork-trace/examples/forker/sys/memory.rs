//! Memory of several sorts: shared with children, promised, touched, and of a file.

use std::{ffi::c_void, fs::File, os::fd::AsRawFd as _, ptr, slice, sync::LazyLock};

use super::errno::{Errno, errno};

/// Bytes in a page.
pub(super) const PAGE: usize = 4096;

/// Words of the one stack; the frame of a signal fits in.
const STACK_WORDS: usize = 4096;

/// Maps new memory that can be read and written.
pub(super) fn map(bytes: usize, flags: i32) -> Result<*mut c_void, Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_ANONYMOUS;
    // SAFETY: this asks for new memory at a place that the kernel chooses.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(errno()) } else { Ok(at) }
}

/// A stack that any number of children get and do not use.
pub(crate) fn stack() -> &'static [u128] {
    static STACK: LazyLock<Vec<u128>> = LazyLock::new(|| vec![0; STACK_WORDS]);
    &STACK
}

/// Maps zeros that this process shares with all its descendants; they stay to the end.
pub(crate) fn share(bytes: usize) -> Result<*mut c_void, Errno> {
    map(bytes, libc::MAP_SHARED | libc::MAP_NORESERVE)
}

/// Maps private memory, which the kernel promises and nobody uses; it stays to the end.
pub(crate) fn promise(bytes: usize) -> Result<*mut c_void, Errno> {
    map(bytes, libc::MAP_PRIVATE)
}

/// Maps private memory and writes to each of its pages, none of them huge; it stays to the end.
pub(crate) fn touch(bytes: usize) -> Result<(), Errno> {
    if bytes == 0 {
        return Ok(());
    }
    let at = promise(bytes)?;
    // SAFETY: this is advice about the mapping just made.
    unsafe { libc::madvise(at, bytes, libc::MADV_NOHUGEPAGE) };
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: the place is inside the mapping just made, which nobody else knows.
        unsafe { at.cast::<u8>().wrapping_add(offset).write_volatile(1) };
    }
    Ok(())
}

/// Writes to this many pages, each so far from the next that it needs a page table of its own; they stay to
/// the end.
pub(crate) fn spread(pages: usize) -> Result<(), Errno> {
    /// What one page table maps.
    const TABLE: usize = 2 << 20;
    let at = map(pages * TABLE, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
    // SAFETY: this is advice about the mapping just made.
    unsafe { libc::madvise(at, pages * TABLE, libc::MADV_NOHUGEPAGE) };
    for index in 0..pages {
        // SAFETY: the place is inside the mapping just made, which nobody else knows.
        unsafe { at.cast::<u8>().wrapping_add(index * TABLE).write_volatile(1) };
    }
    Ok(())
}

/// Whether a file is on no disk but in memory.
///
/// KERNEL: include/uapi/linux/magic.h.
pub(crate) fn is_in_memory(file: &File) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    // SAFETY: all zeros is a valid `statfs`.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is a valid place for the answer.
    let told = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) };
    told == 0 && [TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.f_type)
}

/// Maps the first words of a file, of which nothing is in memory then; they stay to the end.
pub(crate) fn map_file(file: &File, words: usize) -> Result<&'static [u64], Errno> {
    let fd = file.as_raw_fd();
    // SAFETY: advice about a file.
    match unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => {}
        errno => return Err(errno),
    }
    let bytes = words * size_of::<u64>();
    // SAFETY: this asks for new memory at a place that the kernel chooses.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(errno());
    }
    // SAFETY: the mapping begins at a page, is as long as that, and stays; whoever calls this does not
    // write to the file any more.
    Ok(unsafe { slice::from_raw_parts(at.cast(), words) })
}

/// Maps this many private pages and writes to each. No two that touch may be written alike, so each is
/// a mapping of its own; they stay to the end. Returns where they begin.
pub(crate) fn scatter(mappings: usize) -> Result<*mut c_void, Errno> {
    let at = promise(mappings * PAGE)?;
    for index in 0..mappings {
        let page = at.cast::<u8>().wrapping_add(index * PAGE);
        // SAFETY: the page is part of the mapping just made, which nobody else knows.
        unsafe { page.write_volatile(1) };
        let prot =
            if index % 2 == 0 { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
        // SAFETY: as above; nobody writes to it any more.
        if unsafe { libc::mprotect(page.cast(), PAGE, prot) } == -1 {
            return Err(errno());
        }
    }
    Ok(at)
}

/// Writes to each second page of those that [`scatter`] mapped: to those that may be written to.
pub(crate) fn rewrite(at: *mut c_void, mappings: usize) {
    for index in (1..mappings).step_by(2) {
        // SAFETY: the page is part of a mapping that stays, and that nothing else uses.
        unsafe { at.cast::<u8>().wrapping_add(index * PAGE).write_volatile(2) };
    }
}

/// Maps private memory of twice `half` bytes that the kernel promises in two steps, and nobody uses:
/// the two become one mapping, which stays to the end.
pub(crate) fn promise_twice(half: usize) -> Result<(), Errno> {
    let half = half / PAGE * PAGE;
    let prot = libc::PROT_NONE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: this asks for new memory at a place that the kernel chooses.
    let at = unsafe { libc::mmap(ptr::null_mut(), half * 2, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(errno());
    }
    // SAFETY: the whole of it was mapped just now, and nobody else knows it.
    if unsafe { libc::munmap(at, half * 2) } == -1 {
        return Err(errno());
    }
    for part in [at, at.wrapping_byte_add(half)] {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: if something else is there by now, the kernel refuses.
        if unsafe { libc::mmap(part, half, prot, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(errno());
        }
    }
    Ok(())
}
