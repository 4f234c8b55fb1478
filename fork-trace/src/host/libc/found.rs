//! Which C libraries there are: the host's own, those of running processes, and those of a program
//! that is about to run.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use fork_trace_common::arch::ARCH;
use object::{Object as _, ObjectSection as _, ReadCache};

use super::{elf, library::Library};
use crate::{
    error::UserError,
    host::process::{
        mappings::{MOST_MAPPINGS, Mapping, mapping},
        numbers,
    },
};

/// How many libraries are probed at most.
pub const MOST: usize = 32;

/// Where a host keeps its own; `ARCH` stands for the machine's name.
const OWN: [&str; 7] = [
    "/lib/ARCH-linux-gnu/libc.so.6",
    "/usr/lib/ARCH-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
    "/usr/lib64/libc.so.6",
    "/usr/lib/libc.so.6",
    "/lib/ld-musl-ARCH.so.1",
    "/lib/libc.musl-ARCH.so.1",
];

/// Libraries that can be probed, and why others cannot.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Those that can be.
    pub libraries: Vec<Library>,
    /// Those that cannot: the file's name, and the reason.
    pub refused: Vec<(String, String)>,
    seen: BTreeSet<(u64, u64)>,
}

impl Found {
    /// Adds the library that `path` reaches, unless it was added before.
    fn add(&mut self, path: &Path, name: &str, root: &Path) {
        if !file_id(path).is_some_and(|file| self.seen.insert(file)) {
            return;
        }
        if self.libraries.len() == MOST {
            let reason = format!("{MOST} others are probed already");
            self.refused.push((name.to_owned(), reason));
            return;
        }
        match elf::library(path, name, root) {
            Ok(library) => self.libraries.push(library),
            Err(error) => self.refused.push((name.to_owned(), format!("{error:#}"))),
        }
    }

    /// Adds those that a process maps; returns how many it maps, whether they are new or not.
    fn add_mapped(&mut self, pid: u32) -> usize {
        let pid = &pid.to_string();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let mapped = mapped(pid).unwrap_or_default();
        for (path, name) in &mapped {
            self.add(path, name, &root);
        }
        mapped.len()
    }
}

/// The C libraries that process `pid` maps, by device and inode; `None` if one of them cannot be looked at.
#[must_use]
pub fn files_of(pid: u32) -> Option<Vec<(u64, u64)>> {
    mapped(&pid.to_string())?.iter().map(|(path, _)| file_id(path)).collect()
}

/// The C libraries that process `pid` maps and that are not among `known`, by device and inode. `None` where it
/// maps none at all, as a program does that has just started.
#[must_use]
pub fn others_of(pid: u32, known: &BTreeSet<(u64, u64)>) -> Option<Found> {
    let mut found = Found { seen: known.clone(), ..Found::default() };
    (found.add_mapped(pid) > 0).then_some(found)
}

/// The program that process `pid` runs, by device and inode.
#[must_use]
pub fn program_of(pid: u32) -> Option<(u64, u64)> {
    file_id(Path::new(&format!("/proc/{pid}/exe")))
}

/// Whether process `pid` runs the program that `/proc/PID/exe` called `path` before.
#[must_use]
pub fn runs(pid: u32, path: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == path)
}

/// The C library with which the program at `path` runs, by device and inode; none if it is static. `None` if
/// the program cannot be read.
#[must_use]
pub fn files_of_program(path: &Path) -> Option<Vec<(u64, u64)>> {
    let library = interpreter_library(path)?;
    if library == path { Some(Vec::new()) } else { Some(vec![file_id(&library)?]) }
}

/// The device and the inode of a file.
pub(super) fn file_id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The libraries that forks of the traced processes may pass: those that were `named`, the host's own,
/// and those of the processes `pids`; without any, those of every running process.
///
/// # Errors
/// [`UserError::Filter`]: one that was named cannot be probed.
pub fn found(
    named: &[PathBuf],
    command: Option<&Path>,
    pids: Option<&[u32]>,
) -> Result<Found, UserError> {
    let root = Path::new("/");
    let mut found = Found::default();
    for path in named {
        let library = elf::library(path, &path.display().to_string(), root);
        let library = library.map_err(|error| UserError::Filter {
            option: "--libc",
            value: path.display().to_string(),
            reason: format!("{error:#}"),
        })?;
        if found.seen.insert(library.file) {
            found.libraries.push(library);
        }
    }
    for path in OWN.map(|path| path.replace("ARCH", ARCH.name)) {
        found.add(Path::new(&path), &path, root);
    }
    if let Some(library) = command.and_then(interpreter_library) {
        found.add(&library, &library.display().to_string(), root);
    }
    let running = if pids.is_none() { numbers("/proc").unwrap_or_default() } else { Vec::new() };
    for pid in pids.unwrap_or(&running) {
        found.add_mapped(*pid);
    }
    Ok(found)
}

/// The C library with which the program at `path` would run: that of its interpreter, or itself if it has
/// none. `None` where that cannot be told.
fn interpreter_library(path: &Path) -> Option<PathBuf> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let Some(section) = elf.section_by_name(".interp") else {
        return Some(path.to_owned());
    };
    let interpreter = section.uncompressed_data().ok()?;
    let interpreter = std::str::from_utf8(&interpreter).ok()?.trim_end_matches('\0');
    let interpreter = PathBuf::from(interpreter);
    // musl is interpreter and library in one file.
    if is_libc(&interpreter.to_string_lossy()) {
        return Some(interpreter);
    }
    let folder = fs::canonicalize(&interpreter).ok()?.parent()?.to_owned();
    let library = folder.join("libc.so.6");
    library.is_file().then_some(library)
}

/// The C libraries that a process maps for running: a path that reaches the file from here, and its name.
/// `None` if the process is gone.
fn mapped(pid: &str) -> Option<Vec<(PathBuf, String)>> {
    let file = File::open(format!("/proc/{pid}/maps")).ok()?;
    let mut lines =
        BufReader::new(file).lines().map_while(Result::ok).take(MOST_MAPPINGS).peekable();
    // A process that has ended has no mappings any more.
    lines.peek()?;
    let mappings = lines
        .filter_map(|line| libc_mapping(&line))
        .map(|(range, name)| (reached(pid, &range, &name), name));
    Some(mappings.collect())
}

/// A path by which this process reaches the file `name` that process `pid` maps at `range`.
pub(super) fn reached(pid: &str, range: &str, name: &str) -> PathBuf {
    match name.strip_suffix(" (deleted)") {
        // The file has no name any more, but the mapping leads to it.
        Some(_) => PathBuf::from(format!("/proc/{pid}/map_files/{range}")),
        None => Path::new(&format!("/proc/{pid}/root")).join(name.trim_start_matches('/')),
    }
}

/// The range and the path of a mapping, if it is a C library's code.
fn libc_mapping(line: &str) -> Option<(String, String)> {
    let Mapping { range, rights, path, .. } = mapping(line)?;
    let is_code = rights.as_bytes().get(2) == Some(&b'x');
    let is_wanted = is_libc(path.strip_suffix(" (deleted)").unwrap_or(path));
    (is_code && is_wanted).then(|| (range.to_owned(), path.to_owned()))
}

/// Whether a path names a C library, or a part of one that has wrappers of its own.
fn is_libc(path: &str) -> bool {
    const STARTS: [&str; 5] = ["libc.so", "libc-2.", "libpthread", "ld-musl-", "libc.musl-"];
    let name = path.rsplit('/').next().unwrap_or(path);
    STARTS.iter().any(|start| name.starts_with(start)) && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use fork_trace_common::libc::LibcFunction;

    use super::*;

    #[test]
    fn a_process_runs_its_program_and_no_other() {
        let own = std::env::current_exe().unwrap();
        assert!(runs(std::process::id(), &own));
        assert!(!runs(std::process::id(), Path::new("/bin/sh")));
        assert!(!runs(u32::MAX, &own));
    }

    #[test]
    fn c_libraries_are_known_by_their_names() {
        let of = |path: &str| {
            libc_mapping(&format!(
                "7f00-7f20 r-xp 00001000 fe:00 123                        {path}"
            ))
        };
        for path in [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/x86_64-linux-gnu/libc-2.31.so",
            "/lib/x86_64-linux-gnu/libpthread-2.31.so",
            "/lib/ld-musl-x86_64.so.1",
            "/a b/libc.so.6 (deleted)",
        ] {
            assert_eq!(of(path), Some(("7f00-7f20".to_owned(), path.to_owned())));
        }
        for path in ["/lib/libcap.so.2", "/lib/libcrypt.so.1", "[vdso]", "", "/x/libc.so.6/y"] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(libc_mapping("7f00-7f20 r--p 0 fe:00 1 /lib/libc.so.6"), None);
        assert_eq!(libc_mapping("broken"), None);
    }

    #[test]
    fn the_own_library_has_its_wrappers() {
        let found = found(&[], None, Some(&[std::process::id()])).unwrap();
        let library = found.libraries.first().unwrap_or_else(|| panic!("{found:?}"));
        for function in [LibcFunction::Fork, LibcFunction::PosixSpawn, LibcFunction::StdioLock] {
            assert!(library.functions.iter().any(|(of, _)| *of == function), "{function:?}");
        }
    }

    #[test]
    fn what_was_named_and_is_no_library_is_an_error() {
        let said = |path: &str| found(&[path.into()], None, Some(&[])).unwrap_err().to_string();
        assert!(
            said("/no/such").contains("--libc /no/such: cannot be opened: "),
            "{}",
            said("/no/such")
        );
        assert!(said("/etc/passwd").contains("not an ELF file"), "{}", said("/etc/passwd"));
        assert!(said("/bin/sh").contains("no symbol of a function"), "{}", said("/bin/sh"));
    }

    #[test]
    fn the_library_of_a_program_is_that_of_its_interpreter() {
        let own = std::env::current_exe().unwrap();
        let library = interpreter_library(&own).unwrap();
        assert!(library.ends_with("libc.so.6"), "{library:?}");
        assert_eq!(interpreter_library(Path::new("/etc/passwd")), None);
    }
}
