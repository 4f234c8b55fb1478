//! Turns the errors of loading and attaching into a short reason.

use anyhow::anyhow;
use aya::programs::ProgramError;

use crate::{
    error::UserError,
    host::rights::{lockdown, locked_bytes},
};

/// Whether an error says that the kernel does not permit the operation.
pub(super) fn not_permitted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// The reason that the kernel gave: the text of an error's root cause, without its number.
pub(super) fn brief(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// [`UserError::Refused`] where the kernel does not permit the operation, otherwise the same error.
/// Both name the operation, `what`, for example "create the maps".
pub(super) fn refused_or(what: &str, error: anyhow::Error) -> anyhow::Error {
    if not_permitted(&error) {
        let what = format!("{what}: operation not permitted");
        return UserError::Refused { what, lockdown: lockdown(), locked_bytes: locked_bytes() }
            .into();
    }
    error.context(what.to_owned())
}

/// The error of loading a program, with the last lines of the verifier's log: the log is long, and
/// the reason stands at its end.
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
