//! A fork of a process with much memory of one kind, and what `/proc` says of parent and child.

use std::{fs, ptr};

use serde::Serialize;

use crate::{
    attempt::in_child,
    call::Call,
    report::print,
    sys::{self, Errno, fork::libc_fork},
};

const PAGE: usize = 4096;
/// What one page table of the lowest level maps.
const TABLE_SPAN: usize = 2 << 20;

/// A kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Private, each page written to.
    Private,
    /// Shared with nobody yet, but `MAP_SHARED`.
    Shared,
    /// Private, but `MADV_DONTFORK`.
    Dontfork,
    /// Private, but `MADV_WIPEONFORK`.
    Wipeonfork,
    /// Private, in transparent huge pages where the kernel has them.
    Huge,
    /// Private mappings of one page each.
    Mappings,
    /// Private, one page written to in each page table.
    Sparse,
}

/// What a process says of its memory, in KiB.
#[derive(Serialize)]
struct Line {
    r#type: &'static str,
    rss_kib: u64,
    anonymous_kib: u64,
    huge_kib: u64,
    page_tables_kib: u64,
    mappings: usize,
}

/// Maps the memory, and forks once.
pub(crate) fn fork_with(kind: Kind, amount: usize) -> Result<(), Errno> {
    if kind == Kind::Mappings {
        for place in 0..amount {
            // Neighbours that differ in what they permit are not made one.
            map(PAGE, libc::MAP_PRIVATE, place % 2 == 0)?;
        }
    } else {
        map_one(kind, amount << 20)?;
    }
    print_memory("parent")?;
    let child = in_child(&Call::libc_fork(), true, libc_fork, || print_memory("child"));
    sys::wait(child.tid()?).map(drop)
}

/// What a child used, as `wait4` tells it.
#[derive(Serialize)]
struct Usage {
    r#type: &'static str,
    pid: i32,
    cpu_us: i64,
    max_rss_kib: i64,
}

/// Forks once; the child touches memory and works.
pub(crate) fn use_up(cpu_ms: u64, mib: usize) -> Result<(), Errno> {
    let child = in_child(&Call::libc_fork(), true, libc_fork, || {
        sys::memory::touch(mib << 20)?;
        while usage(|usage| {
            // SAFETY: the struct is this process's own.
            unsafe { libc::getrusage(libc::RUSAGE_SELF, usage) }
        })?
        .cpu_us
            < i64::try_from(cpu_ms * 1000).unwrap_or(i64::MAX)
        {}
        Ok(())
    });
    let tid = child.tid()?;
    let used = usage(|usage| {
        // SAFETY: the struct is this process's own, and no status is asked for.
        unsafe { libc::wait4(tid, ptr::null_mut(), 0, usage) }
    })?;
    print(&Usage { pid: tid, ..used }).map_err(|_failed| libc::EIO)
}

fn usage(ask: impl FnOnce(*mut libc::rusage) -> i32) -> Result<Usage, Errno> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    if ask(usage.as_mut_ptr()) < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    // SAFETY: it was zeroed, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let cpu_us = time(usage.ru_utime) + time(usage.ru_stime);
    Ok(Usage { r#type: "usage", pid: 0, cpu_us, max_rss_kib: usage.ru_maxrss })
}

fn map_one(kind: Kind, bytes: usize) -> Result<(), Errno> {
    let sharing = if kind == Kind::Shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let room = map(bytes + TABLE_SPAN, sharing | libc::MAP_NORESERVE, false)?;
    let room = room.map_addr(|at| at.next_multiple_of(TABLE_SPAN));
    let advice = if kind == Kind::Huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    advise(room, bytes, advice);
    let step = if kind == Kind::Sparse { TABLE_SPAN } else { PAGE };
    for offset in (0..bytes).step_by(step) {
        // SAFETY: within the mapping just made, which nobody else knows.
        unsafe { room.cast::<u8>().wrapping_add(offset).write_volatile(1) };
    }
    match kind {
        Kind::Dontfork => advise(room, bytes, libc::MADV_DONTFORK),
        Kind::Wipeonfork => advise(room, bytes, libc::MADV_WIPEONFORK),
        _ => {}
    }
    Ok(())
}

fn advise(at: *mut libc::c_void, bytes: usize, advice: i32) {
    // SAFETY: advice about a mapping of this module, from which nothing but itself reads.
    unsafe { libc::madvise(at, bytes, advice) };
}

/// New memory at no special place; its first page is written to. It stays to the end.
fn map(bytes: usize, flags: i32, executable: bool) -> Result<*mut libc::c_void, Errno> {
    let more = if executable { libc::PROT_EXEC } else { 0 };
    let prot = libc::PROT_READ | libc::PROT_WRITE | more;
    // SAFETY: asks for new memory, at no special place.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), bytes, prot, flags | libc::MAP_ANONYMOUS, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    // SAFETY: the mapping just made, which nobody else knows.
    unsafe { at.cast::<u8>().write_volatile(1) };
    Ok(at)
}

fn print_memory(who: &'static str) -> Result<(), Errno> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").map_err(sys::number)?;
    let status = fs::read_to_string("/proc/self/status").map_err(sys::number)?;
    let maps = fs::read_to_string("/proc/self/maps").map_err(sys::number)?;
    let kib = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    let line = Line {
        r#type: who,
        rss_kib: kib(&rollup, "Rss:"),
        anonymous_kib: kib(&rollup, "Anonymous:"),
        huge_kib: kib(&rollup, "AnonHugePages:"),
        page_tables_kib: kib(&status, "VmPTE:"),
        mappings: maps.lines().count(),
    };
    print(&line).map_err(|_failed| libc::EIO)
}
