//! The code that a process has mapped.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
};

use crate::host::process::mappings::{MOST_MAPPINGS, mapping};

/// Mappings of code that are kept of one process.
const MOST: usize = 1024;

/// One mapping that may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where it begins in its file.
    pub(super) offset: u64,
    /// The inode number of its file; 0: it has none.
    pub(super) inode: u64,
    /// The path of its file, or what the kernel calls it; nothing where it has no name.
    pub(super) name: Vec<u8>,
}

impl Mapping {
    /// The path of its file, as the process sees it; `None` where it has no file.
    pub(super) fn path(&self) -> Option<&[u8]> {
        let path = self.name.strip_suffix(b" (deleted)").unwrap_or(&self.name);
        (self.inode != 0 && path.starts_with(b"/")).then_some(path)
    }
}

/// The code that process `pid` has mapped, by address; `None` where that cannot be read.
pub(super) fn of_process(pid: u32) -> Option<Vec<Mapping>> {
    let mut lines = BufReader::new(File::open(format!("/proc/{pid}/maps")).ok()?);
    let mut mappings = Vec::new();
    let mut line = Vec::new();
    for _ in 0..MOST_MAPPINGS {
        line.clear();
        // A process that has ended has no mappings, and an error comes in the middle of them.
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            break;
        }
        mappings.extend(code(line.strip_suffix(b"\n").unwrap_or(&line)));
        if mappings.len() == MOST {
            break;
        }
    }
    (!mappings.is_empty()).then_some(mappings)
}

/// What a line of `/proc/PID/maps` describes, if that may be run.
fn code(line: &[u8]) -> Option<Mapping> {
    // A name need not be text, and ends the line.
    let text = line.utf8_chunks().next()?.valid();
    let mapping =
        mapping(text).filter(|mapping| mapping.rights.as_bytes().get(2) == Some(&b'x'))?;
    let before = text.len() - mapping.path.len();
    Some(Mapping {
        start: mapping.start,
        end: mapping.end,
        offset: mapping.offset,
        inode: mapping.inode,
        name: line.get(before..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_kept() {
        let line = b"7f10-7f20 r-xp 00001000 fe:00 123                        /a b/c.so (deleted)";
        let mapping = code(line).unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x7f10, 0x7f20, 0x1000));
        assert_eq!((mapping.inode, mapping.path()), (123, Some(&b"/a b/c.so"[..])));
        let anonymous = code(b"1000-2000 rwxp 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.path(), &anonymous.name[..]), (None, &b""[..]));
        let vdso = code(b"1000-2000 r-xp 00000000 00:00 0       [vdso]").unwrap();
        assert_eq!((vdso.path(), &vdso.name[..]), (None, &b"[vdso]"[..]));
        let odd = code(b"1000-2000 r-xp 0 0:0 7 /a\xff/b").unwrap();
        assert_eq!(odd.path(), Some(&b"/a\xff/b"[..]));
        assert_eq!(code(b"1000-2000 rw-p 0 00:00 0"), None);
        assert_eq!(of_process(u32::MAX), None);
        let own = of_process(std::process::id()).unwrap();
        assert!(own.iter().any(|mapping| mapping.path().is_some()));
    }
}
