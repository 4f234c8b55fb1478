//! The user database. Names and folders in it are bytes.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    os::unix::ffi::OsStringExt as _,
};

use nix::libc;

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Name.
    pub name: CString,
    /// Home folder.
    pub home: OsString,
    /// Program that a login starts.
    pub shell: OsString,
}

impl User {
    /// The user with this number; `None` where there is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn by_uid(uid: u32) -> io::Result<Option<Self>> {
        look_up(|entry, buffer, found| {
            // SAFETY: all three pointers are valid for the call, the buffer for its length.
            unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        })
    }

    /// The user of this name; `None` where there is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn by_name(name: &[u8]) -> io::Result<Option<Self>> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        look_up(|entry, buffer, found| {
            let (to, length) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: as above; the name ends with NUL.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, to, length, found) }
        })
    }
}

/// Calls one of the two functions, with more room for the entry's strings until they fit.
fn look_up(
    call: impl Fn(*mut libc::passwd, &mut [u8], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<User>> {
    const MOST: usize = 1 << 20;
    let mut buffer = vec![0_u8; 4096];
    loop {
        // SAFETY: a `passwd` of zeros is valid: numbers and null pointers.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        match call(&raw mut entry, &mut buffer, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {}
            libc::ERANGE if buffer.len() < MOST => {
                buffer.resize(buffer.len() * 4, 0);
                continue;
            }
            // Some databases say so of a user that is not there.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        let string = |at: *const libc::c_char| {
            // SAFETY: a string in `buffer`, which lives on, closed by NUL; or null.
            if at.is_null() { CString::default() } else { unsafe { CStr::from_ptr(at) }.to_owned() }
        };
        let words = |at| OsString::from_vec(string(at).into_bytes());
        return Ok(Some(User {
            uid: entry.pw_uid,
            name: string(entry.pw_name),
            home: words(entry.pw_dir),
            shell: words(entry.pw_shell),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_or_not() {
        let root = User::by_uid(0).unwrap().unwrap();
        assert_eq!((root.uid, root.name.as_bytes()), (0, &b"root"[..]));
        let again = User::by_name(b"root").unwrap().unwrap();
        assert_eq!((again.uid, again.home), (0, root.home));
        for nobody in [&b"no such user"[..], b"a\xffb", b"a\0b", b""] {
            assert!(User::by_name(nobody).unwrap().is_none(), "{nobody:?}");
        }
        assert!(User::by_uid(u32::MAX - 1).unwrap().is_none());
    }
}
