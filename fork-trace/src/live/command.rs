//! Starts the traced command as the user who called, and says how it ended.

use std::{
    ffi::{CString, OsString},
    io,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
};

use anyhow::{Context as _, Result};
use nix::unistd::{Gid, Uid, User, getgrouplist, setgid, setgroups, setuid};
use tokio::process::{Child, Command};

use crate::error::UserError;

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
    /// The variables hold no numbers, or the user's groups cannot be found.
    pub fn of_sudo() -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<u32>> {
            let Some(text) = std::env::var_os(name) else {
                return Ok(None);
            };
            let number = text.to_string_lossy().parse();
            number.map(Some).with_context(|| format!("{name} is {}", text.display()))
        };
        let (Some(uid), Some(gid)) = (number("SUDO_UID")?, number("SUDO_GID")?) else {
            return Ok(None);
        };
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let user = User::from_uid(uid).with_context(|| format!("look up user {uid}"))?;
        let groups = match &user {
            Some(user) => {
                let name = CString::new(user.name.as_bytes()).context("the user's name")?;
                getgrouplist(&name, gid)
                    .with_context(|| format!("look up groups of {}", user.name))?
            }
            None => vec![gid],
        };
        Ok(Some(Self { uid, gid, groups, user }))
    }

    /// Makes `command` run with this user's rights and home.
    fn becomes(self, command: &mut Command) {
        if let Some(user) = &self.user {
            command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
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

/// Starts `words` as `caller`, or with this process's own rights.
///
/// # Errors
/// [`UserError::Command`].
pub fn start(words: &[OsString], caller: Option<Caller>) -> Result<Child> {
    let (name, args) = words.split_first().context("no command was given")?;
    let mut command = Command::new(name);
    command.args(args);
    if let Some(caller) = caller {
        caller.becomes(&mut command);
    }
    let started = command.spawn();
    started.map_err(|error| {
        let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let name = name.to_string_lossy().into_owned();
        UserError::Command { name, cause: error.to_string(), status }.into()
    })
}

/// The status this process ends with: the command's own, or 128 and the signal's number.
#[must_use]
pub fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
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
