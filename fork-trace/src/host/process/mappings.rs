//! The mappings of a process, as far as a copy of them has to be promised memory.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
};

/// Mappings that are looked at: as many as `vm.max_map_count` allows by default.
const MOST_MAPPINGS: usize = 65_536;

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
    let mut words = line.split(' ');
    let (from, to) = words.next()?.split_once('-')?;
    let mut rights = words.next()?.bytes().skip(1);
    let (write, shared) = (rights.next()?, rights.nth(1)?);
    let size =
        u64::from_str_radix(to, 16).ok()?.checked_sub(u64::from_str_radix(from, 16).ok()?)?;
    (write == b'w' && shared == b'p').then_some(size)
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
    fn the_own_process_has_one() {
        let largest = largest(std::process::id()).unwrap();
        assert!(largest.bytes >= 4096);
        assert_eq!(super::largest(u32::MAX), None);
    }
}
