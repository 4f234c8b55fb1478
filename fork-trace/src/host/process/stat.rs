//! `/proc/PID/stat`, as far as it is needed.
//!
//! KERNEL: fs/proc/array.c `do_task_stat`.

use std::fs;

/// What the file says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name of the leader's task. It may hold any byte but NUL.
    pub comm: String,
    /// Process id of the parent, in the pid namespace of the mounted `/proc`.
    pub ppid: u32,
    /// When the process was made, in ticks since boot; time asleep counts.
    pub start_ticks: u64,
}

impl Stat {
    /// Reads the file of process `pid`; `None` where there is no such process or it cannot be read.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name may hold anything, so it ends at the last parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (_, comm) = head.split_once('(')?;
        let mut fields = rest.split_ascii_whitespace();
        // Field 4 of all is the 2nd after the name, field 22 the 20th.
        let ppid = fields.nth(1)?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { comm: comm.to_owned(), ppid, start_ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1\n";
        let stat = Stat { comm: "a) b (c".to_owned(), ppid: 3, start_ticks: 4711 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (sh) S 3"), None);
        assert_eq!(Stat::read(std::process::id()).map(|stat| stat.start_ticks > 0), Some(true));
        assert_eq!(Stat::read(u32::MAX), None);
    }
}
