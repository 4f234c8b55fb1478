//! Safe doors to the system calls forker needs around its forks: clock, ids, waiting, signals.
//!
//! Out: plain numbers; an error is a bare errno, because it may have to fit a child's exit status.

use std::{
    ffi::{c_int, c_ulong},
    io,
    sync::atomic::{AtomicI32, Ordering},
};

/// An errno; every failure here is one, because it also has to fit a child's exit status.
pub(crate) type Errno = c_int;

/// How a child ended.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// It exited with this status.
    Exit(c_int),
    /// This signal killed it.
    Signal(c_int),
}

/// The signal that asked forker to stop, 0 for none.
static STOP: AtomicI32 = AtomicI32::new(0);

extern "C" fn ask_to_stop(signal: c_int) {
    STOP.store(signal, Ordering::Relaxed);
}

/// The signal that asked forker to stop, if any has.
pub(crate) fn stop_signal() -> Option<c_int> {
    Some(STOP.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
}

/// The errno of an error of std.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn number(error: io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The last call's errno.
pub(crate) fn errno() -> Errno {
    number(io::Error::last_os_error())
}

/// Turns a libc return value into a result.
pub(crate) fn check(ret: c_int) -> Result<c_int, Errno> {
    if ret == -1 { Err(errno()) } else { Ok(ret) }
}

/// `CLOCK_MONOTONIC`, the tracer's clock.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Sleeps.
pub(crate) fn sleep_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// This process's id, asked of the kernel each time.
pub(crate) fn tgid() -> c_int {
    // SAFETY: always succeeds.
    unsafe { libc::getpid() }
}

/// This thread's id.
pub(crate) fn tid() -> c_int {
    // SAFETY: takes no arguments, always succeeds.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    c_int::try_from(tid).unwrap_or(0)
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Ends this process without running anything of std or libc.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(status) }
}

/// Sends a signal.
pub(crate) fn kill(tgid: c_int, signal: c_int) -> Result<(), Errno> {
    // SAFETY: touches no memory.
    check(unsafe { libc::kill(tgid, signal) }).map(drop)
}

/// Reaps the child `tgid`, or any for -1; None when `flags` has `WNOHANG` and none has ended.
pub(crate) fn try_wait(tgid: c_int, flags: c_int) -> Result<Option<End>, Errno> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    let ret = unsafe { libc::waitpid(tgid, &raw mut status, flags | libc::__WALL) };
    Ok(match check(ret)? {
        0 => None,
        _ if libc::WIFSIGNALED(status) => Some(End::Signal(libc::WTERMSIG(status))),
        _ => Some(End::Exit(libc::WEXITSTATUS(status))),
    })
}

/// Waits until the child `tgid` has ended, through signals.
pub(crate) fn wait(tgid: c_int) -> Result<End, Errno> {
    loop {
        match try_wait(tgid, 0) {
            Ok(Some(end)) => return Ok(end),
            Ok(None) | Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits until the child `tgid` has ended, whatever way.
pub(crate) fn reap(tgid: c_int) {
    wait(tgid).ok();
}

/// Closes a file, if it is open.
pub(crate) fn close(fd: c_int) {
    // SAFETY: callers own the descriptor, or pass -1.
    unsafe { libc::close(fd) };
}

/// Waits for every child there is, adopted ones too.
pub(crate) fn reap_all() {
    while wait(-1).is_ok() {}
}

/// `prctl` with numbers only.
fn prctl(option: c_int, value: c_int) -> Result<(), Errno> {
    let word = c_ulong::try_from(value).map_err(|_negative| libc::EINVAL)?;
    // SAFETY: the options used take numbers.
    check(unsafe { libc::prctl(option, word, 0_u64, 0_u64, 0_u64) }).map(drop)
}

/// Makes the kernel kill this process when the thread that forked it ends; `parent` is that
/// thread's process, to notice that it has ended already. Must be repeated after a change of uid,
/// which clears it.
pub(crate) fn die_with(parent: c_int) {
    let set = prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    // SAFETY: always succeeds.
    let now = unsafe { libc::getppid() };
    // 0: the parent is in an outer pid namespace.
    if set.is_err() || (now != parent && now != 0) {
        exit_now(libc::ESRCH);
    }
}

/// Makes orphaned descendants this process's children, so that it can reap them.
pub(crate) fn adopt_orphans() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Lets an ordinary process install a seccomp filter.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Gives up root for this uid, and every capability with it.
pub(crate) fn become_user(uid: libc::uid_t) -> Result<(), Errno> {
    // SAFETY: touches no memory; forker's processes with other threads never call it.
    check(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// Sets a resource limit of this process.
pub(crate) fn limit(which: libc::__rlimit_resource_t, most: libc::rlim_t) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a valid limit.
    check(unsafe { libc::setrlimit(which, &raw const limit) }).map(drop)
}

/// Leaves namespaces behind, for this process or its children.
pub(crate) fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: touches no memory.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Makes this directory the root of this process.
pub(crate) fn chroot(dir: &std::ffi::CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with a NUL.
    check(unsafe { libc::chroot(dir.as_ptr()) }).map(drop)
}

/// Waits until a child has ended, and leaves it unreaped.
pub(crate) fn await_zombie(tid: c_int) -> Result<(), Errno> {
    let id = libc::id_t::try_from(tid).map_err(|_negative| libc::EINVAL)?;
    // SAFETY: all zeros is a valid place for the answer.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: `info` is a valid place for the answer.
    check(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) }).map(drop)
}

/// Runs this thread under `SCHED_DEADLINE`, a tenth of a CPU.
pub(crate) fn run_by_deadline() -> Result<(), Errno> {
    const SCHED_DEADLINE: u32 = 6;
    /// The kernel's `struct sched_attr`, its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let attributes = Attributes {
        size: 48,
        policy: SCHED_DEADLINE,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime_ns: 10_000_000,
        deadline_ns: 100_000_000,
        period_ns: 100_000_000,
    };
    // SAFETY: the struct has the size that it says; 0 is the calling thread.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if ret == -1 { Err(errno()) } else { Ok(()) }
}

/// A signal handler that was there before; comes back on drop.
pub(crate) struct OldHandler {
    signal: c_int,
    old: libc::sigaction,
}

impl Drop for OldHandler {
    fn drop(&mut self) {
        // SAFETY: `old` came from the kernel; no answer is asked for.
        unsafe { libc::sigaction(self.signal, &raw const self.old, std::ptr::null_mut()) };
    }
}

/// Installs a handler by its address.
///
/// # Safety
/// `handler` must be a handler of the kind that `flags` says, and async-signal-safe.
pub(crate) unsafe fn handle(
    signal: c_int,
    handler: libc::sighandler_t,
    flags: c_int,
) -> Result<OldHandler, Errno> {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    let mut old = action;
    // SAFETY: both structs are valid; the caller answers for the handler.
    check(unsafe { libc::sigaction(signal, &raw const action, &raw mut old) })?;
    Ok(OldHandler { signal, old })
}

/// Makes SIGTERM and SIGINT ask forker to stop, for as long as the handles live.
pub(crate) fn stop_on_signals() -> Result<[OldHandler; 2], Errno> {
    let handler = ask_to_stop as *const () as libc::sighandler_t;
    // SAFETY: `ask_to_stop` only stores to an atomic.
    let term = unsafe { handle(libc::SIGTERM, handler, 0) }?;
    // SAFETY: as above.
    let int = unsafe { handle(libc::SIGINT, handler, 0) }?;
    Ok([term, int])
}

/// Maps private memory, which is promised and not used; it stays to the end.
pub(crate) fn promise(bytes: usize) -> Result<*mut libc::c_void, Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: asks for new memory, at no special place.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(errno()) } else { Ok(at) }
}

/// As [`promise`], twice, side by side.
pub(crate) fn promise_twice(bytes: usize) -> Result<(), Errno> {
    const PAGE: usize = 4096;
    let bytes = bytes / PAGE * PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: asks for new memory, at no special place.
    let room = unsafe { libc::mmap(std::ptr::null_mut(), 2 * bytes, 0, flags, -1, 0) };
    if room == libc::MAP_FAILED {
        return Err(errno());
    }
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    for half in [room, room.wrapping_byte_add(bytes)] {
        // SAFETY: within the room, which nobody else knows.
        if unsafe { libc::mmap(half, bytes, prot, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(errno());
        }
    }
    Ok(())
}

/// Maps private memory and writes to each of its pages, none of them huge; it stays to the end.
pub(crate) fn touch(bytes: usize) -> Result<(), Errno> {
    const PAGE: usize = 4096;
    if bytes == 0 {
        return Ok(());
    }
    let at = promise(bytes)?;
    // SAFETY: advice about the mapping just made.
    unsafe { libc::madvise(at, bytes, libc::MADV_NOHUGEPAGE) };
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: within the mapping just made, which nobody else knows.
        unsafe { at.cast::<u8>().wrapping_add(offset).write_volatile(1) };
    }
    Ok(())
}
