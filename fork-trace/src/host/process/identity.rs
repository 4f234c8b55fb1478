//! Whether a process id still stands for the process that had it: by when that process was made.

use nix::unistd::{SysconfVar, sysconf};

use crate::host::{clock, process::stat::Stat};

/// Compares the kernel's times with those of `/proc`, which are coarser and count time asleep.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// What to add to a moment of `CLOCK_MONOTONIC` to get the time since boot as `/proc` tells it: how
    /// long this host has been asleep so far, and the shift of this process's time namespace.
    pub boot_ns: i64,
    /// The length of a tick of `/proc`.
    pub tick_ns: u64,
}

impl Identity {
    /// As this host has it now.
    #[must_use]
    pub fn new() -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0);
        Self {
            boot_ns: clock::boot_less_monotonic_ns(),
            tick_ns: 1_000_000_000 / ticks.unwrap_or(100),
        }
    }

    /// Whether `ticks` since boot, as `/proc` tells them, are the kernel's `start_ns`
    /// (`CLOCK_MONOTONIC`).
    #[must_use]
    pub const fn is_start(&self, ticks: u64, start_ns: u64) -> bool {
        ticks.abs_diff(self.ticks(start_ns)) <= 1
    }

    /// The kernel's `start_ns` (`CLOCK_MONOTONIC`) in ticks since boot, as `/proc` tells them; one may be missing.
    #[must_use]
    pub const fn ticks(&self, start_ns: u64) -> u64 {
        start_ns.saturating_add_signed(self.boot_ns) / self.tick_ns
    }

    /// Whether process `pid` is there and was made at `start_ns` (`CLOCK_MONOTONIC`).
    #[must_use]
    pub fn is_alive(&self, pid: u32, start_ns: u64) -> bool {
        Stat::read(pid).is_some_and(|stat| self.is_start(stat.start_ticks, start_ns))
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let identity = Identity::new();
        let pid = std::process::id();
        let stat = Stat::read(pid).unwrap();
        let ticks_ns = stat.start_ticks * identity.tick_ns;
        let start_ns = ticks_ns.saturating_add_signed(-identity.boot_ns);
        assert!(identity.is_alive(pid, start_ns));
        assert!(!identity.is_alive(pid, start_ns + 1_000_000_000));
        assert!(!identity.is_alive(u32::MAX, start_ns));
    }
}
