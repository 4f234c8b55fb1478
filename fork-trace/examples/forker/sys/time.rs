//! The clock that the tracer uses too: what it says, how long something took, and a wait.

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

/// When something began and ended.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

/// Runs something and takes its times.
pub(crate) fn timed<T>(make: impl FnOnce() -> T) -> (T, Times) {
    let start_ns = now_ns();
    let made = make();
    let end_ns = now_ns();
    (made, Times { start_ns, end_ns })
}
