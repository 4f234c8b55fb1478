//! The names of the clone flags in a word.

use fork_trace_common::flags::{CSIGNAL, FLAGS};

use crate::event::values::{Call, Name};

/// The names of the flags in `word`, as the system call `call` reads it; bits without a name follow
/// as one hexadecimal number.
///
/// In the word of `clone` the low byte is the exit signal and holds no flags; only `clone3` has
/// flags there.
#[must_use]
pub fn names(word: u64, call: Option<Call>) -> Vec<Name> {
    let word = if call == Some(Call::Clone3) { word } else { word & !CSIGNAL };
    let mut rest = word;
    let mut names = Vec::new();
    for (bit, name) in FLAGS {
        if word & bit != 0 {
            names.push(Name::Borrowed(*name));
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(Name::Owned(format!("{rest:#x}")));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_byte_holds_flags_only_for_clone3() {
        assert_eq!(
            names(0x120_0011, Some(Call::Clone)),
            ["CLONE_CHILD_CLEARTID", "CLONE_CHILD_SETTID"]
        );
        assert_eq!(names(0x91, Some(Call::Clone)), [""; 0]);
        assert_eq!(names(0x91, Some(Call::Clone3)), ["CLONE_NEWTIME", "0x11"]);
        assert_eq!(names(1 << 40 | 0x100, Some(Call::Clone3)), ["CLONE_VM", "0x10000000000"]);
    }
}
