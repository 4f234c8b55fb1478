//! Names of functions.

use crate::event::bytes::text;

/// Bytes of a name.
const NAME: usize = 1024;

/// A function's name as its source has it.
pub(super) fn demangled(name: &[u8]) -> String {
    // The version of a symbol may follow.
    let name = text(name.split(|byte| *byte == b'@').next().unwrap_or(name));
    if name.len() <= NAME
        && let Ok(rust) = rustc_demangle::try_demangle(&name)
    {
        return bounded(format!("{rust:#}"));
    }
    if name.len() <= NAME
        && name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name.as_str())
        && let Ok(source) = symbol.demangle()
    {
        return bounded(source);
    }
    bounded(name)
}

/// A name that is no longer than allowed.
pub(super) fn bounded(mut name: String) -> String {
    if name.len() > NAME {
        let mut end = NAME;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source_and_bounded() {
        assert_eq!(demangled(b"_ZN3foo3bar17h0123456789abcdefE"), "foo::bar");
        assert_eq!(demangled(b"_ZN5space4workEi"), "space::work(int)");
        assert_eq!(demangled(b"fork@@GLIBC_2.2.5"), "fork");
        assert_eq!(demangled(b"a\xff"), "a\\xff");
        assert_eq!(demangled(&vec![b'x'; 5000]).len(), NAME + '…'.len_utf8());
    }
}
