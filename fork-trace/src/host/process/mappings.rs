//! The mappings of a process: what a line about one says, and which of them a copy has to be promised memory for.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
};

/// Mappings that are looked at: as many as `vm.max_map_count` allows by default.
pub const MOST_MAPPINGS: usize = 65_536;

/// Resident memory up to which the flags of mappings are read: the kernel walks the page tables for
/// them.
const MOST_RESIDENT_BYTES: u64 = 1 << 30;

/// The largest private writable mapping of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Its size.
    pub bytes: u64,
    /// Whether the kernel promises memory for it (`VM_ACCOUNT`); `None` where that would take long
    /// to read.
    pub promised: Option<bool>,
}

/// The largest private writable mapping of process `pid` as it is now: of those that memory is
/// promised for, where that is known. `None` where none can be read.
///
/// KERNEL: `fs/proc/task_mmu.c` `show_map_vma`, `show_smap_vma_flags`: `ac` stands for `VM_ACCOUNT`.
#[must_use]
pub fn largest(pid: u32) -> Option<Largest> {
    let resident_pages: u64 = {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split(' ').nth(1)?.parse().ok()?
    };
    let flags = resident_pages.saturating_mul(4096) <= MOST_RESIDENT_BYTES;
    let file = if flags { "smaps" } else { "maps" };
    let file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    largest_of(BufReader::new(file).lines().map_while(Result::ok))
}

/// The same of the lines of `/proc/PID/maps` or `/proc/PID/smaps`.
fn largest_of(lines: impl Iterator<Item = String>) -> Option<Largest> {
    let mut found: Option<Largest> = None;
    // The mapping whose flags come next.
    let mut bytes = None;
    let mut mappings = 0;
    let mut take = |bytes: u64, promised: Option<bool>| {
        if promised != Some(false) && found.is_none_or(|found| found.bytes < bytes) {
            found = Some(Largest { bytes, promised });
        }
    };
    for line in lines {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let promised = flags.split_ascii_whitespace().any(|flag| flag == "ac");
            if let Some(bytes) = bytes.take() {
                take(bytes, Some(promised));
            }
        } else if let Some(mapping) = private_writable(&line) {
            // Without flags, as in `maps`, the next mapping comes at once.
            if let Some(bytes) = bytes.replace(mapping) {
                take(bytes, None);
            }
            mappings += 1;
            if mappings == MOST_MAPPINGS {
                break;
            }
        }
    }
    if let Some(bytes) = bytes {
        take(bytes, None);
    }
    found
}

/// The size of the private writable mapping that a line describes.
fn private_writable(line: &str) -> Option<u64> {
    let mapping = mapping(line)?;
    let rights = mapping.rights.as_bytes();
    let is_it = rights.get(1) == Some(&b'w') && rights.get(3) == Some(&b'p');
    is_it.then_some(mapping.end - mapping.start)
}

/// What a line of `/proc/PID/maps`, or the first line about a mapping in `/proc/PID/smaps`, says.
///
/// KERNEL: `fs/proc/task_mmu.c` `show_map_vma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// Its addresses as they are written, which is the name of its link in `/proc/PID/map_files`.
    pub range: &'a str,
    /// Its first address.
    pub start: u64,
    /// The address behind its last one; never before `start`.
    pub end: u64,
    /// `rwxp`, or `-` for a right that it has not; `s` in place of `p`: it is shared.
    pub rights: &'a str,
    /// Where in its file it begins.
    pub offset: u64,
    /// The inode number of its file; 0: it has none.
    pub inode: u64,
    /// Its file, or what else it is, such as `[heap]`; empty where it has no name.
    pub path: &'a str,
}

/// The mapping that a line describes, if it describes one.
#[must_use]
pub fn mapping(line: &str) -> Option<Mapping<'_>> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut words = line.splitn(6, ' ');
    let (range, rights, offset) = (words.next()?, words.next()?, hex(words.next()?)?);
    let (start, end) = range.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let inode = words.nth(1)?.parse().ok()?;
    let path = words.next().unwrap_or_default().trim_start();
    (start <= end).then_some(Mapping { range, start, end, rights, offset, inode, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Largest> {
        largest_of(text.lines().map(str::to_owned))
    }

    #[test]
    fn the_largest_that_is_promised_counts() {
        let maps = "1000-2000 r-xp 0 00:00 0 /bin/a\n2000-5000 rw-p 0 00:00 0 [heap]\n\
                    6000-9000 rw-s 0 00:00 0\na000-b000 rw-p 0 00:00 0 [stack]\n";
        assert_eq!(of(maps), Some(Largest { bytes: 0x3000, promised: None }));
        let smaps = "1000-9000 rw-p 0 00:00 0\nSize: 32 kB\nVmFlags: rd wr mr nr\n\
                     a000-c000 rw-p 0 00:00 0\nVmFlags: rd wr mr ac\n\
                     d000-e000 rw-p 0 00:00 0\nVmFlags: rd wr ac\n";
        assert_eq!(of(smaps), Some(Largest { bytes: 0x2000, promised: Some(true) }));
        assert_eq!(of("1000-2000 r--p 0 00:00 0\nbroken\n"), None);
    }

    #[test]
    fn a_line_says_what_is_mapped_where() {
        let line = "7f00-7f20 r-xp 00001000 fe:00 123                        /a b/libx.so";
        let found = Mapping {
            range: "7f00-7f20",
            start: 0x7f00,
            end: 0x7f20,
            rights: "r-xp",
            offset: 0x1000,
            inode: 123,
            path: "/a b/libx.so",
        };
        assert_eq!(mapping(line), Some(found));
        assert_eq!(mapping("7f00-7f20 rw-p 0 00:00 0").unwrap().path, "");
        assert_eq!(mapping("7f20-7f00 rw-p 0 00:00 0"), None);
        for other in ["Size: 32 kB", "", "x", "1-2 r-xp", "z-2 r-xp 0 0:0 0"] {
            assert_eq!(mapping(other), None);
        }
    }

    #[test]
    fn the_own_process_has_one() {
        let largest = largest(std::process::id()).unwrap();
        assert!(largest.bytes >= 4096);
        assert_eq!(super::largest(u32::MAX), None);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,99}") {
            let found = mapping(&line);
            proptest::prop_assert!(found.is_none_or(|found| found.start <= found.end));
        }
    }
}
