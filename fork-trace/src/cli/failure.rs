//! How a failure is told, and the exit status that it gives.
//!
//! What a message quotes may come from a hostile file or name: nothing of it reaches the terminal as
//! more than text.

use std::io::{self, Write as _};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit},
};

use crate::{
    error::UserError,
    output::{notes::Stderr, text::line::printable},
};

/// Says on standard error what failed and, where that is known, what to do about it; returns the exit
/// status.
pub fn tell(error: &anyhow::Error) -> u8 {
    let files = too_few_files(error);
    let cured = error.downcast_ref::<UserError>().or(files.as_ref());
    let mut text = format!("fork-trace: {}\n", message(error));
    if let Some(cured) = cured {
        text.push_str(&format!("  hint: {}\n", printable(&cured.hint())));
    }
    // Nobody listens: nothing to be done.
    Stderr::patient().write_all(text.as_bytes()).ok();
    cured.map_or(1, UserError::exit_status)
}

/// A failure for want of a file descriptor, whatever was tried.
fn too_few_files(error: &anyhow::Error) -> Option<UserError> {
    let is_it = error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        io == Some(Errno::EMFILE as i32) || cause.downcast_ref() == Some(&Errno::EMFILE)
    });
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok().filter(|_| is_it)?;
    Some(UserError::TooFewFiles { limit })
}

/// The message: of a [`UserError`] one line, of others with the verifier's words, which have more.
fn message(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if error.is::<UserError>() {
        return printable(&text).into_owned();
    }
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn nothing_that_is_quoted_reaches_the_terminal() {
        let place = "a\x1b]0;b\x07\nfork-trace: fine".to_owned();
        let error = UserError::Replay { place, cause: "\u{202e}".to_owned() };
        assert_eq!(
            message(&error.into()),
            "a\\x1b]0;b\\x07\\nfork-trace: fine: \\u{202e}",
            "one line"
        );
        let error = anyhow::anyhow!("the verifier says:\n\x1b[31mno").context("load");
        assert_eq!(message(&error), "load: the verifier says:\n\\x1b[31mno");
    }

    #[test]
    fn too_few_files_are_found_behind_anything() {
        let io = Err::<(), _>(io::Error::from_raw_os_error(Errno::EMFILE as i32));
        assert!(too_few_files(&io.context("open").context("start").unwrap_err()).is_some());
        let nix = Err::<(), _>(Errno::EMFILE);
        assert!(too_few_files(&nix.context("open").unwrap_err()).is_some());
        let other = Err::<(), _>(io::Error::from_raw_os_error(Errno::EPERM as i32));
        assert!(too_few_files(&other.context("open").unwrap_err()).is_none());
    }
}
