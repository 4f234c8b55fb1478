//! Starts the traced command as the user who called, and says how it ended.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    process::ExitStatus,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::SigSet,
    unistd::{Gid, Uid, getgrouplist, setgid, setgroups, setuid},
};
use tokio::process::{Child, Command};

use crate::{
    error::UserError,
    event::{bytes::text, nearest::nearest},
    host::{callers_path, descriptors, users::User},
};

/// The user who called sudo.
#[derive(Clone, Debug)]
pub struct Caller {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    user: Option<User>,
}

impl Caller {
    /// From `SUDO_UID` and `SUDO_GID`; `None` where this process is not root or sudo did not
    /// start it.
    ///
    /// # Errors
    /// [`UserError::Environment`]: the variables hold no such numbers. Or the user's groups cannot be
    /// found.
    pub fn of_sudo() -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let (Some(uid), Some(gid)) = (number("SUDO_UID")?, number("SUDO_GID")?) else {
            return Ok(None);
        };
        let user = User::by_uid(uid).with_context(|| format!("look up user {uid}"))?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let groups = match &user {
            Some(user) => getgrouplist(&user.name, gid)
                .with_context(|| format!("look up groups of {}", text(user.name.as_bytes())))?,
            None => vec![gid],
        };
        Ok(Some(Self { uid, gid, groups, user }))
    }

    /// The user and group to whom what is made for this user belongs.
    #[must_use]
    pub fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Makes `command` run with this user's rights and home.
    fn becomes(self, command: &mut Command) {
        if let Some(user) = &self.user {
            let name = OsStr::from_bytes(user.name.as_bytes());
            command.env("HOME", &user.home).env("USER", name).env("LOGNAME", name);
            command.env("SHELL", &user.shell);
        }
        let Self { uid, gid, groups, user: _ } = self;
        let become_user = move || -> io::Result<()> {
            setgroups(&groups)?;
            setgid(gid)?;
            setuid(uid)?;
            Ok(())
        };
        // SAFETY: between fork and exec only these three system calls are made; they neither
        // allocate nor lock.
        unsafe { command.pre_exec(become_user) };
    }
}

/// The number that a variable holds; `None` where it is not set.
///
/// KERNEL: kernel/sys.c: the last number means none in `setuid` and its like.
fn number(name: &'static str) -> Result<Option<u32>, UserError> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let wrong = |reason: &str| UserError::Environment {
        name,
        value: text(value.as_bytes()),
        reason: reason.to_owned(),
    };
    match value.to_str().and_then(|value| value.parse().ok()) {
        Some(u32::MAX) => Err(wrong("no user and no group has this number")),
        Some(number) => Ok(Some(number)),
        None => Err(wrong("it should be a number of a user or group")),
    }
}

/// Looks for the program that the command begins with, before anything is done for it; `subcommands` may
/// have been meant.
///
/// # Errors
/// [`UserError::NoProgram`].
pub fn look_for(command: &[OsString], subcommands: &[String]) -> Result<(), UserError> {
    let Some(name) = command.first().filter(|name| !callers_path::may_exist(name)) else {
        return Ok(());
    };
    let shown = text(name.as_bytes());
    let bare = !shown.contains('/');
    let meant = nearest(&shown, subcommands.iter().map(String::as_str));
    let elsewhere = bare.then(|| callers_path::find(name)).flatten();
    Err(UserError::NoProgram {
        bare,
        meant: meant.filter(|_| bare).map(str::to_owned),
        elsewhere: elsewhere.map(|path| text(path.as_os_str().as_bytes())),
        name: shown,
    })
}

/// Starts `words` as `caller`, or with this process's own rights; it blocks the signals in `blocked`, and
/// not those that this process holds back at the moment.
///
/// # Errors
/// [`UserError::Command`].
pub fn start(words: &[OsString], caller: Option<Caller>, blocked: SigSet) -> Result<Child> {
    let (name, args) = words.split_first().context("no command was given")?;
    let mut command = Command::new(name);
    command.args(args);
    if descriptors::limit_is_raised() {
        // SAFETY: between fork and exec it makes two system calls; it neither allocates nor locks.
        unsafe { command.pre_exec(descriptors::restore_limit) };
    }
    if let Some(caller) = caller {
        caller.becomes(&mut command);
    }
    let unblock = move || -> io::Result<()> { Ok(blocked.thread_set_mask()?) };
    // SAFETY: between fork and exec only this system call is made; it neither allocates nor locks.
    unsafe { command.pre_exec(unblock) };
    let started = command.spawn();
    started.map_err(|error| {
        let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let name = text(name.as_bytes());
        UserError::Command { name, cause: error.to_string(), status }.into()
    })
}

/// The status this process ends with: the command's own, or 128 and the signal's number.
#[must_use]
pub fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Waits for the end of the command; without one for ever.
pub(super) async fn ended(command: &mut Option<Child>) -> Result<ExitStatus> {
    match command {
        Some(child) => child.wait().await.context("wait for the command"),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_from_128() {
        assert_eq!(exit_status(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_status(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_status(ExitStatus::from_raw(9)), 137);
    }
}
