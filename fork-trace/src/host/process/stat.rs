//! `/proc/PID/stat`, as far as it is needed.
//!
//! KERNEL: fs/proc/array.c `do_task_stat`.

use std::fs;

use crate::event::bytes::text;

/// What the file says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name of the leader's task, as [`text`] tells it: it may hold any byte but NUL.
    pub comm: String,
    /// Its state, one letter.
    pub state: char,
    /// Process id of the parent, in the pid namespace of the mounted `/proc`.
    pub ppid: u32,
    /// When the process was made, in ticks since boot; time asleep counts.
    pub start_ticks: u64,
    /// Where the code of its program begins, as far as this process may know; absent in a line that was cut.
    pub start_code: Option<u64>,
    /// Where its first stack begins, likewise.
    pub start_stack: Option<u64>,
}

impl Stat {
    /// Reads the file of process `pid`; `None` where there is no such process or it cannot be read.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads the file of thread `tid` of process `pid`.
    #[must_use]
    pub fn of_thread(pid: u32, tid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?)
    }

    /// The name may hold anything, so it ends at the last parenthesis.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let (head, rest) = stat.split_at_checked(end)?;
        let begin = head.iter().position(|byte| *byte == b'(')?;
        let comm = head.get(begin + 1..)?;
        let mut fields = std::str::from_utf8(rest.get(1..)?).ok()?.split_ascii_whitespace();
        // Field 3 of all is the 1st after the name, field 4 the 2nd, field 22 the 20th.
        let state = fields.next()?.chars().next()?;
        let ppid = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        // Field 26 is the 4th after that, and field 28 the 2nd after that one.
        let start_code = fields.nth(3).and_then(|field| field.parse().ok());
        let start_stack = fields.nth(1).and_then(|field| field.parse().ok());
        Some(Self { comm: text(comm), state, ppid, start_ticks, start_code, start_stack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line =
            b"7 (a) b (\xffc) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 2 26 3 28 4\n";
        let comm = "a) b (\\xffc".to_owned();
        let (start_code, start_stack) = (Some(26), Some(28));
        let stat = Stat { comm, state: 'S', ppid: 3, start_ticks: 4711, start_code, start_stack };
        assert_eq!(Stat::parse(line), Some(stat));
        for broken in [&b"7 (sh) S 3"[..], b"7 )sh( S 3", b")", b"(", b"", b"7 (sh)"] {
            assert_eq!(Stat::parse(broken), None);
        }
        assert_eq!(Stat::read(std::process::id()).map(|stat| stat.start_ticks > 0), Some(true));
        assert_eq!(Stat::read(u32::MAX), None);
    }

    proptest::proptest! {
        #[test]
        fn fuzz_stat(
            name in proptest::collection::vec(proptest::num::u8::ANY, 0..16),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        ) {
            Stat::parse(&rest);
            let line = [&b"7 ("[..], &name, b") S 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 1"].concat();
            let stat = Stat::parse(&line).unwrap();
            proptest::prop_assert_eq!(crate::event::bytes::bytes(&stat.comm), name);
            Stat::parse(&[line, rest].concat());
        }
    }
}
