//! What the kernel said when it refused a program, in few words.

use anyhow::anyhow;
use aya::programs::ProgramError;

use crate::{
    error::UserError,
    host::rights::{lockdown, locked_bytes},
};

/// Whether the kernel did not permit it.
pub(super) fn not_permitted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// The last cause of an error, which says what the kernel said.
pub(super) fn brief(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// [`UserError::Refused`] where the kernel does not permit it, else the error with what was tried.
pub(super) fn refused_or(what: &str, error: anyhow::Error) -> anyhow::Error {
    if not_permitted(&error) {
        let what = format!("{what}: operation not permitted");
        return UserError::Refused { what, lockdown: lockdown(), locked_bytes: locked_bytes() }
            .into();
    }
    error.context(what.to_owned())
}

/// The verifier's log is long and its reason comes last.
pub(super) fn load_error(error: ProgramError) -> anyhow::Error {
    const LAST: usize = 5;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!(error);
    };
    let log = verifier_log.to_string();
    log::debug!("verifier log:\n{log}");
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("processed ")).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LAST)).copied();
    let last = last.collect::<Vec<_>>().join("\n");
    let error = anyhow::Error::new(io_error);
    if last.is_empty() { error } else { error.context(format!("the verifier says:\n{last}")) }
}
