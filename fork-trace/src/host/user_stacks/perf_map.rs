//! Names of code that a runtime makes as it goes: it writes them to `/tmp/perf-PID.map`.

use std::{
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

use super::names::bounded;
use crate::event::bytes::text;

/// Bytes of a file that are read.
const MOST_BYTES: u64 = 16 << 20;
/// Functions that are kept.
const MOST: usize = 1 << 18;

/// Functions by address.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    /// Where each begins, how long it is, and its name.
    functions: Vec<(u64, u64, Box<str>)>,
}

impl PerfMap {
    /// Reads the file of a process of user `uid`, whose own view of the file system is at `root`; empty where
    /// there is no such file, or where somebody else has made it.
    pub(super) fn of_process(root: &Path, pid: u32, uid: u32) -> Self {
        let path = root.join(format!("tmp/perf-{pid}.map"));
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let Ok(file) = file else { return Self::default() };
        let is_own = file.metadata().is_ok_and(|of| of.is_file() && [0, uid].contains(&of.uid()));
        let mut bytes = Vec::new();
        if !is_own || file.take(MOST_BYTES).read_to_end(&mut bytes).is_err() {
            return Self::default();
        }
        Self::parse(&bytes)
    }

    /// Lines of an address, a size and a name. One that is none costs only itself.
    fn parse(bytes: &[u8]) -> Self {
        let function = |line: &[u8]| {
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let mut hex = || {
                let word = std::str::from_utf8(words.next()?).ok()?;
                u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
            };
            let (start, size) = (hex()?, hex()?);
            let name = words.next()?.trim_ascii();
            (!name.is_empty()).then(|| (start, size, bounded(text(name)).into()))
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        let mut functions: Vec<_> = lines.filter_map(function).take(MOST).collect();
        // Of two at one address the later one counts: the runtime has used the room again.
        functions.sort_by_key(|(start, ..)| *start);
        Self { functions }
    }

    /// The function that `address` lies in.
    pub(super) fn name(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, size, name) = self.functions.get(after.checked_sub(1)?)?;
        (address - start < *size).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_function_around_it() {
        let map = PerfMap::parse(
            b"2000 10 py::b:/x y.py\nbroken\n0x1000 20 a\n1000 8 new a\n3000 5\nzz 5 x\n4000 4 \xff\n",
        );
        assert_eq!(map.name(0x200f), Some("py::b:/x y.py"));
        assert_eq!((map.name(0x2010), map.name(0xfff), map.name(0x3001)), (None, None, None));
        assert_eq!(map.name(0x1000), Some("new a"));
        assert_eq!(map.name(0x4003), Some("\\xff"));
    }

    #[test]
    fn only_a_file_of_the_process_or_of_root_is_read() {
        let root = std::env::temp_dir().join(format!("fork-trace-perf-map-{}", std::process::id()));
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        std::fs::write(root.join("tmp/perf-7.map"), "10 10 f\n").unwrap();
        std::os::unix::fs::symlink("perf-7.map", root.join("tmp/perf-8.map")).unwrap();
        let own = nix::unistd::Uid::effective().as_raw();
        let name = |pid, uid| {
            let map = PerfMap::of_process(&root, pid, uid);
            map.name(0x18).map(str::to_owned)
        };
        assert_eq!(name(7, own).as_deref(), Some("f"));
        assert_eq!(name(8, own), None, "a link");
        assert_eq!(name(9, own), None);
        if own != 0 {
            assert_eq!(name(7, own + 1), None);
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            PerfMap::parse(&bytes).name(5);
        }
    }
}
