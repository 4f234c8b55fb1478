//! The name of an error number, and the error number of a name.

use nix::errno::Errno;

use crate::event::values::Name;

/// The name of an error number; `errno N` for a number without a name.
#[must_use]
pub fn errno_name(errno: u32) -> Name {
    match i32::try_from(errno).map(Errno::from_raw) {
        Ok(known) if known != Errno::UnknownErrno => Name::Owned(format!("{known:?}")),
        _ => Name::Owned(format!("errno {errno}")),
    }
}

/// The error with this name, in upper or lower case, or with this number; `None` where there is
/// none.
#[must_use]
pub fn parse_errno(word: &str) -> Option<Errno> {
    if let Ok(number) = word.parse::<i32>() {
        return known(number);
    }
    let wanted = word.to_ascii_uppercase();
    all().find(|errno| format!("{errno:?}") == wanted)
}

/// The names of all errors.
#[must_use]
pub fn errno_names() -> Vec<String> {
    all().map(|errno| format!("{errno:?}")).collect()
}

/// All errors that have a name.
fn all() -> impl Iterator<Item = Errno> {
    (1..=133).filter_map(known)
}

fn known(number: i32) -> Option<Errno> {
    Some(Errno::from_raw(number)).filter(|errno| *errno != Errno::UnknownErrno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_known_by_name_and_number() {
        assert_eq!(parse_errno("eagain"), Some(Errno::EAGAIN));
        assert_eq!(parse_errno("11"), Some(Errno::EAGAIN));
        for bad in ["", "EWHAT", "0", "-11", "4096"] {
            assert_eq!(parse_errno(bad), None, "{bad}");
        }
    }
}
