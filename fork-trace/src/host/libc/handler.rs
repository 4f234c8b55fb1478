//! A handler that a process has registered with `pthread_atfork`: which file it lies in, and where.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use super::{
    elf,
    found::{file_id, reached},
};
use crate::host::process::mappings::{MOST_MAPPINGS, mapping};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path by which its process knows the file.
    pub module: String,
    /// A path by which this process reaches it.
    pub path: PathBuf,
    /// The file's device and inode.
    pub file: (u64, u64),
    /// Where in the file it lies.
    pub file_offset: u64,
}

impl Place {
    /// Its address in the file's own numbering, as debuggers and `addr2line` take it, and the name of the function
    /// there, where the file has symbols. `None` if it is no code of an ELF file.
    #[must_use]
    pub fn symbol(&self) -> Option<(u64, Option<String>)> {
        elf::symbol_at(&self.path, self.file_offset)
    }
}

/// Finds what lies at each of `addresses` in the process `pid`, as /proc has it; 0 stands for nothing. There is
/// nothing either where the process is gone, may not be looked into, or has no file there (code that was made while
/// it runs).
#[must_use]
pub fn places(pid: u32, addresses: [u64; 3]) -> [Option<Place>; 3] {
    let mut places = [const { None }; 3];
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else { return places };
    for line in BufReader::new(maps).lines().map_while(Result::ok).take(MOST_MAPPINGS) {
        for (place, address) in places.iter_mut().zip(addresses) {
            if place.is_none() {
                *place = place_in(&line, pid, address);
            }
        }
    }
    places
}

/// What lies at `address`, if this is a line about a file's mapping around it.
fn place_in(line: &str, pid: u32, address: u64) -> Option<Place> {
    let mapping = mapping(line)?;
    let holds = (mapping.start..mapping.end).contains(&address);
    if !holds || !Path::new(mapping.path).is_absolute() {
        return None;
    }
    let path = reached(&pid.to_string(), mapping.range, mapping.path);
    let file = file_id(&path)?;
    let file_offset = address - mapping.start + mapping.offset;
    Some(Place { module: mapping.path.to_owned(), path, file, file_offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    #[unsafe(no_mangle)]
    extern "C" fn a_handler_of_this_test() {}

    #[test]
    fn a_function_of_this_process_is_found_by_its_address() {
        let address = a_handler_of_this_test as *const () as u64;
        let [place, none, nowhere] = places(std::process::id(), [address, 0, 1]);
        let place = place.unwrap();
        let (_, function) = place.symbol().unwrap();
        assert_eq!(function.as_deref(), Some("a_handler_of_this_test"));
        assert_eq!(Path::new(&place.module), std::env::current_exe().unwrap());
        assert_eq!((none, nowhere), (None, None));
        assert_eq!(places(u32::MAX, [address; 3]), [const { None }; 3]);
    }

    #[test]
    fn what_is_no_file_is_no_place() {
        for line in ["7f00-7f20 r-xp 0 00:00 0 [vdso]", "7f00-7f20 r-xp 0 00:00 0", "broken"] {
            assert_eq!(place_in(line, 1, 0x7f00), None, "{line}");
        }
        assert_eq!(place_in("7f00-7f20 r-xp 0 fe:00 1 /bin/sh", 1, 0x7f20), None, "behind it");
    }
}
