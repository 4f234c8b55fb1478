//! A handler that a process has registered with `pthread_atfork`: which file it lies in, and where.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use super::{
    elf,
    found::{MOST_MAPPINGS, file_id, reached},
};

/// A function in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path by which its process knows the file.
    pub module: String,
    /// A path by which this process reaches it.
    pub path: PathBuf,
    /// The file's device and inode.
    pub file: (u64, u64),
    /// Where in the file the function lies.
    pub file_offset: u64,
    /// Its address in the file's own numbering, as debuggers and `addr2line` take it.
    pub offset: u64,
    /// Its name, where the file has symbols.
    pub function: Option<String>,
}

/// Finds what lies at `address` in the process `pid`, as /proc has it. `None` where the process is gone, may not
/// be looked into, or has no file there (code that was made while it runs).
///
/// KERNEL: `fs/proc/task_mmu.c` `show_map_vma`.
#[must_use]
pub fn handler(pid: u32, address: u64) -> Option<Place> {
    let maps = BufReader::new(File::open(format!("/proc/{pid}/maps")).ok()?);
    let mut lines = maps.lines().map_while(Result::ok).take(MOST_MAPPINGS);
    let (range, start, file_start, module) = lines.find_map(|line| mapping(&line, address))?;
    let path = reached(&pid.to_string(), &range, &module);
    let file_offset = address - start + file_start;
    let (offset, function) = elf::symbol_at(&path, file_offset)?;
    let file = file_id(&path)?;
    Some(Place { module, path, file, file_offset, offset, function })
}

/// The range, its start, the place in the file and the file's path, if this is a line about a file's mapping
/// around `address`.
fn mapping(line: &str, address: u64) -> Option<(String, u64, u64, String)> {
    let mut words = line.splitn(6, ' ');
    let range = words.next()?;
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let file_start = u64::from_str_radix(words.nth(1)?, 16).ok()?;
    let path = words.nth(2)?.trim_start();
    let holds = (start..end).contains(&address) && Path::new(path).is_absolute();
    holds.then(|| (range.to_owned(), start, file_start, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_found_by_an_address_in_it() {
        let line = "7f00-7f20 r-xp 00001000 fe:00 123                        /a b/libx.so";
        let found = ("7f00-7f20".to_owned(), 0x7f00, 0x1000, "/a b/libx.so".to_owned());
        assert_eq!(mapping(line, 0x7f00), Some(found));
        assert_eq!(mapping(line, 0x7f20), None);
        assert_eq!(mapping("7f00-7f20 r-xp 0 00:00 0 [vdso]", 0x7f00), None);
        assert_eq!(mapping("7f00-7f20 r-xp 0 00:00 0", 0x7f00), None);
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    extern "C" fn a_handler_of_this_test() {}

    #[test]
    fn a_function_of_this_process_is_found_by_its_address() {
        let address = a_handler_of_this_test as *const () as u64;
        let place = handler(std::process::id(), address).unwrap();
        assert_eq!(place.function.as_deref(), Some("a_handler_of_this_test"));
        assert_eq!(Path::new(&place.module), std::env::current_exe().unwrap());
        assert_eq!(handler(std::process::id(), 1), None);
    }
}
