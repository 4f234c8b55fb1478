//! What it takes to get a fork into trouble: scheduling, memory that is being filled, userfaultfd and
//! ptrace.

use std::{
    ffi::{c_int, c_long, c_ulong, c_void},
    fs, ptr,
};

use super::{
    errno::{Errno, check, errno},
    memory::promise,
};

/// CPU time of the calling thread.
pub(crate) fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// How often the calling thread has left its CPU.
pub(crate) fn switches() -> i64 {
    let usage = usage();
    usage.ru_nvcsw + usage.ru_nivcsw
}

/// How often a page was read from a disk for the calling thread.
pub(crate) fn major_faults() -> i64 {
    usage().ru_majflt
}

/// What the calling thread has used so far.
fn usage() -> libc::rusage {
    // SAFETY: all zeros is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the answer.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage
}

/// For how long the calling thread was runnable so far without a CPU.
pub(crate) fn delay_ns() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

/// Runs this process only while nobody else wants its CPU.
pub(crate) fn be_idle() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is valid for the call.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    check(set).map(drop)
}

/// Pins this process to the last CPU that it may use.
pub(crate) fn stay_on_one_cpu() -> Result<(), Errno> {
    // SAFETY: an all-zero set is an empty one.
    let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `all` is a valid place of that size.
    check(unsafe { libc::sched_getaffinity(0, size, &raw mut all) })?;
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: the number is below the size of the set.
    let last = (0..most).rev().find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &all) });
    // SAFETY: an all-zero set is an empty one.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(last.unwrap_or(0), &mut one) };
    // SAFETY: `one` is valid for the call.
    check(unsafe { libc::sched_setaffinity(0, size, &raw const one) }).map(drop)
}

/// Maps memory, has the kernel fill it, and unmaps it: the process's `mmap_lock` is held meanwhile.
pub(crate) fn fill_memory(bytes: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: asks for new memory, at no special place.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, prot, flags, -1, 0) };
    if at != libc::MAP_FAILED {
        // SAFETY: the mapping just made, which nobody else knows.
        unsafe { libc::munmap(at, bytes) };
    }
}

/// A userfaultfd that hears of forks, with a piece of memory registered; returns its descriptor.
///
/// KERNEL: include/uapi/linux/userfaultfd.h.
pub(crate) fn userfaultfd() -> Result<c_int, Errno> {
    const API: u64 = 0xaa;
    const FEATURE_EVENT_FORK: u64 = 1 << 1;
    const MODE_MISSING: u64 = 1;
    const UFFDIO_API: c_ulong = 0xc018_aa3f;
    const UFFDIO_REGISTER: c_ulong = 0xc020_aa00;
    const BYTES: usize = 1 << 20;
    // SAFETY: takes flags only.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(errno)?;
    let mut api = [API, FEATURE_EVENT_FORK, 0];
    // SAFETY: the struct has three words.
    check(unsafe { libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()) })?;
    let at = promise(BYTES)?;
    let mut register = [at.addr() as u64, BYTES as u64, MODE_MISSING, 0];
    // SAFETY: the struct has four words.
    check(unsafe { libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()) })?;
    Ok(fd)
}

/// Reads one event of a userfaultfd.
pub(crate) fn read_event(fd: c_int) {
    let mut message = [0u8; 32];
    // SAFETY: the buffer is as long as is said.
    unsafe { libc::read(fd, message.as_mut_ptr().cast(), message.len()) };
}

/// A request to the kernel about a tracee, of those that take no address.
pub(crate) fn ptrace(what: libc::c_uint, tid: c_int, data: c_long) -> Result<(), Errno> {
    // SAFETY: the address is not used.
    let ret = unsafe { libc::ptrace(what, tid, ptr::null_mut::<c_void>(), data) };
    if ret == -1 { Err(errno()) } else { Ok(()) }
}

/// Waits for a child or tracee, any of them if `tid` is -1, to stop or end; returns which and how.
pub(crate) fn wait_for_stop(tid: c_int) -> Result<(c_int, c_int), Errno> {
    let mut status = 0;
    let flags = libc::WUNTRACED | libc::__WALL;
    // SAFETY: `status` is a valid place for the answer.
    let tid = check(unsafe { libc::waitpid(tid, &raw mut status, flags) })?;
    Ok((tid, status))
}

/// Opens a counter of this thread's page faults, which its children inherit. It stays to the end.
///
/// KERNEL: `include/uapi/linux/perf_event.h` `struct perf_event_attr`, as long as its first version.
pub(crate) fn inherited_counter() -> Result<(), Errno> {
    const PERF_TYPE_SOFTWARE: u64 = 1;
    const BYTES: u64 = 64;
    const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
    const INHERIT: u64 = 1 << 1;
    // Type and size share a word; then come the event, three words that are not needed, and flags.
    let attributes =
        [PERF_TYPE_SOFTWARE | BYTES << 32, PERF_COUNT_SW_PAGE_FAULTS, 0, 0, 0, INHERIT, 0, 0];
    let at = attributes.as_ptr();
    // SAFETY: the kernel reads as many bytes as the attributes say they have.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, at, 0, -1, -1, 0_u64) };
    if fd < 0 { Err(errno()) } else { Ok(()) }
}
