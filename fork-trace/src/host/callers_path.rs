//! Where programs are looked for: on PATH, and on the PATH of the user who called sudo, which gives the programs
//! that it starts another one.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::PermissionsExt as _,
    },
    path::PathBuf,
};

use crate::host::process::stat::Stat;

/// How many ancestors are looked at: sudo may have started itself, and a monitor beside it.
const MOST: usize = 8;

/// Where the program `name` lies on the PATH with which sudo was called; `None` where it does not, or
/// where sudo did not start this process.
///
/// What sudo itself was started with is what the caller's shell had exported by then. Where sudo is gone,
/// because it made itself the program that it was asked for, nothing is known.
#[must_use]
pub fn find(name: &OsStr) -> Option<PathBuf> {
    let environment = sudos_environment()?;
    let path = variable(&environment, b"PATH=")?;
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).find_map(|folder| {
        let file = folder.join(name);
        let data = fs::metadata(&file).ok()?;
        (data.is_file() && data.permissions().mode() & 0o111 != 0).then_some(file)
    })
}

/// What the nearest sudo among this process's ancestors was started with.
fn sudos_environment() -> Option<Vec<u8>> {
    let mut pid = Stat::read(std::process::id())?.ppid;
    for _ in 0..MOST {
        let Stat { comm, ppid, .. } = Stat::read(pid)?;
        if comm == "sudo" {
            return fs::read(format!("/proc/{pid}/environ")).ok();
        }
        pid = ppid;
    }
    None
}

/// The value of a variable in `/proc/PID/environ`.
fn variable(environment: &[u8], name: &[u8]) -> Option<OsString> {
    let mut all = environment.split(|byte| *byte == 0);
    let value = all.find_map(|one| one.strip_prefix(name))?;
    Some(OsString::from_vec(value.to_vec()))
}

/// The file that is run by this name, as far as PATH tells it.
#[must_use]
pub fn on_path(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether a file of this name lies where programs are looked for: on PATH, or where the name says. `true`
/// also where that cannot be told.
#[must_use]
pub fn may_exist(name: &OsStr) -> bool {
    let exists = |file: PathBuf| fs::exists(file).unwrap_or(true);
    if name.as_bytes().contains(&b'/') {
        return exists(PathBuf::from(name));
    }
    let Some(path) = std::env::var_os("PATH") else { return true };
    !name.is_empty() && std::env::split_paths(&path).any(|folder| exists(folder.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_in_an_environment() {
        let environment = b"XPATH=/no\0PATH=/a:/b c\0PATH=/second\0";
        assert_eq!(variable(environment, b"PATH="), Some("/a:/b c".into()));
        assert_eq!(variable(environment, b"HOME="), None);
        assert_eq!(variable(b"", b"PATH="), None);
    }

    #[test]
    fn programs_exist_or_not() {
        for name in ["sh", "/bin/sh", "/"] {
            assert!(may_exist(OsStr::new(name)), "{name}");
        }
        for name in ["", "no-such-program", "/no/such/program", "./no-such"] {
            assert!(!may_exist(OsStr::new(name)), "{name}");
        }
    }
}
