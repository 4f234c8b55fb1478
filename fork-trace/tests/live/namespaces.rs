//! Starting a program in namespaces of its own, without any tool for it: a guest has few.

#![expect(clippy::multiple_unsafe_ops_per_block, reason = "all are plain system calls")]

use std::{ffi::CStr, io, os::unix::process::CommandExt as _, process::Command};

/// Where a program is to run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    /// `CLONE_NEW*` flags of the namespaces that are its own.
    pub(crate) new: libc::c_int,
    /// It is a child of the process that made them, as a pid or time namespace wants it.
    pub(crate) fork: bool,
    /// File systems that are mounted for it.
    pub(crate) mounts: &'static [(&'static CStr, &'static CStr)],
    /// Offsets of its clocks, in a time namespace.
    pub(crate) clocks: Option<&'static CStr>,
    /// Before it a process goes through all this and stays, in the same mount namespace: the program
    /// itself stays in the pid namespace that it was started in.
    pub(crate) guest: bool,
}

/// Makes `command` start there.
pub(crate) fn inside(command: &mut Command, place: Place) -> &mut Command {
    // SAFETY: system calls only, on what is constant.
    unsafe { command.pre_exec(move || enter(place)) }
}

fn enter(place: Place) -> io::Result<()> {
    ok(unshare(place.new))?;
    if let Some(clocks) = place.clocks {
        write(c"/proc/self/timens_offsets", clocks)?;
    }
    if place.new & libc::CLONE_NEWNS != 0 {
        // What is mounted here is not seen elsewhere.
        mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    }
    if place.guest {
        return beside_a_guest(place);
    }
    if place.fork {
        // SAFETY: the test that calls this has other threads, none of which holds what the child uses.
        match ok(unsafe { libc::fork() })? {
            0 => {}
            child => wait_for(child),
        }
    }
    mount_all(place)
}

/// The child mounts, says so, and stays until the program has ended; the program goes on.
fn beside_a_guest(place: Place) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    ok(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    // SAFETY: as above.
    match ok(unsafe { libc::fork() })? {
        0 => {
            let done = mount_all(place).is_ok();
            // SAFETY: system calls on descriptors of this process; it ends with the program, or soon.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if done {
                    libc::write(ends[1], c"x".as_ptr().cast(), 1);
                }
                libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                libc::sleep(60);
                libc::_exit(0)
            }
        }
        _ => {
            let mut byte = 0_u8;
            // SAFETY: as above, and one byte of room.
            let read = unsafe {
                libc::close(ends[1]);
                libc::read(ends[0], (&raw mut byte).cast(), 1)
            };
            if read == 1 { Ok(()) } else { Err(io::Error::other("it could not mount")) }
        }
    }
}

/// Ends as the child does. Nothing of the test stays open here, or it would wait for us.
fn wait_for(child: libc::pid_t) -> ! {
    let mut status = 0;
    // SAFETY: system calls, on nothing but the status.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        while libc::waitpid(child, &raw mut status, 0) < 0 {}
        libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 })
    }
}

fn mount_all(place: Place) -> io::Result<()> {
    place.mounts.iter().try_for_each(|(kind, at)| match *kind {
        kind if kind.to_bytes().starts_with(b"/") => bind(kind, at),
        kind => mount(kind, at, 0),
    })
}

fn bind(what: &CStr, at: &CStr) -> io::Result<()> {
    // SAFETY: strings closed by NUL.
    ok(unsafe {
        libc::mount(what.as_ptr(), at.as_ptr(), c"".as_ptr(), libc::MS_BIND, c"".as_ptr().cast())
    })?;
    Ok(())
}

fn mount(kind: &CStr, at: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: as above.
    ok(unsafe {
        libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, c"".as_ptr().cast())
    })?;
    Ok(())
}

fn write(file: &CStr, text: &CStr) -> io::Result<()> {
    // SAFETY: a string closed by NUL.
    let fd = ok(unsafe { libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })?;
    // SAFETY: as many bytes as the string has.
    let written = unsafe { libc::write(fd, text.as_ptr().cast(), text.count_bytes()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn unshare(flags: libc::c_int) -> libc::c_int {
    // SAFETY: no memory is involved.
    unsafe { libc::unshare(flags) }
}

fn ok(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}
