//! The clock of every record, and what a time namespace does to it.

use std::{fs, io, sync::OnceLock};

use nix::time::{ClockId, clock_gettime};

use crate::host::namespaces;

const NS_PER_SEC: i128 = 1_000_000_000;

/// `CLOCK_MONOTONIC` as the kernel's own records have it, nanoseconds: the clock of every record.
///
/// KERNEL: kernel/time/namespace.c: in a time namespace `clock_gettime` adds an offset, and the
/// kernel's own functions do not.
///
/// # Errors
/// The clock cannot be read.
pub fn monotonic_ns() -> io::Result<u64> {
    let ns = read(ClockId::CLOCK_MONOTONIC)? - i128::from(shift_ns());
    u64::try_from(ns).map_err(io::Error::other)
}

/// What is to be added to a time of [`monotonic_ns`] to get the time since boot as `/proc/PID/stat`
/// tells it to this process: time asleep so far, and the shift of its time namespace.
///
/// KERNEL: fs/proc/array.c `do_task_stat` adds the reader's offset of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boot_less_monotonic_ns() -> i64 {
    let (Ok(boot), Ok(monotonic)) = (read(ClockId::CLOCK_BOOTTIME), monotonic_ns()) else {
        return 0;
    };
    i64::try_from(boot - i128::from(monotonic)).unwrap_or(0)
}

/// By how much `CLOCK_MONOTONIC` is shifted in this process's time namespace.
///
/// The file tells of the namespace that children will be in; `surroundings` makes sure that this is
/// the process's own.
#[must_use]
pub fn shift_ns() -> i64 {
    static SHIFT: OnceLock<i64> = OnceLock::new();
    *SHIFT.get_or_init(|| {
        if namespaces::is_initial("time") {
            return 0;
        }
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        monotonic_offset(&offsets).unwrap_or(0)
    })
}

/// The offset of `CLOCK_MONOTONIC` in `/proc/PID/timens_offsets`: seconds, and nanoseconds.
fn monotonic_offset(offsets: &str) -> Option<i64> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut words = line.split_ascii_whitespace().map(str::parse::<i64>);
    let (seconds, ns) = (words.next()?.ok()?, words.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

fn read(clock: ClockId) -> io::Result<i128> {
    let now = clock_gettime(clock)?;
    Ok(i128::from(now.tv_sec()) * NS_PER_SEC + i128::from(now.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_read() {
        let text = "monotonic        1000         5\nboottime        -7     0\n";
        assert_eq!(monotonic_offset(text), Some(1_000_000_000_005));
        assert_eq!(monotonic_offset("monotonic -2 500000000\n"), Some(-1_500_000_000));
        for broken in ["", "monotonic", "monotonic x 1", "monotonic 9223372036854775807 0"] {
            assert_eq!(monotonic_offset(broken), None, "{broken}");
        }
    }

    #[test]
    fn clocks_go_on() {
        let before = monotonic_ns().unwrap();
        assert!(monotonic_ns().unwrap() >= before);
        assert!(boot_less_monotonic_ns() > -1_000_000_000);
    }
}
