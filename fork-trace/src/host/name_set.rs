//! A small set of names, looked up while scanning every symbol or type of the kernel.

use std::collections::HashMap;

/// A small set of names. Most other names are rejected by their first letter and length alone.
pub(super) struct NameSet {
    names: HashMap<&'static [u8], &'static str>,
    /// For each first byte of a name, one bit for each length (modulo 64) that such a name has.
    lengths: [u64; 256],
}

impl FromIterator<&'static str> for NameSet {
    fn from_iter<I: IntoIterator<Item = &'static str>>(names: I) -> Self {
        let names: HashMap<_, _> = names.into_iter().map(|name| (name.as_bytes(), name)).collect();
        let mut lengths = [0; 256];
        for name in names.keys() {
            if let Some(lengths) =
                name.first().and_then(|first| lengths.get_mut(usize::from(*first)))
            {
                *lengths |= length_bit(name);
            }
        }
        Self { names, lengths }
    }
}

impl NameSet {
    /// The name that these bytes spell, if it is in the set.
    #[must_use]
    pub(super) fn get(&self, name: &[u8]) -> Option<&'static str> {
        let lengths = self.lengths.get(usize::from(*name.first()?))?;
        if lengths & length_bit(name) == 0 {
            return None;
        }
        self.names.get(name).copied()
    }
}

fn length_bit(name: &[u8]) -> u64 {
    1 << (name.len() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_set_are_found() {
        let names: NameSet = ["dup_fd", "dup_mm", "copy_fs"].into_iter().collect();
        assert_eq!(names.get(b"dup_fd"), Some("dup_fd"));
        assert_eq!(names.get(b"dup_xx"), None, "it has the first letter and the length of another");
        for other in [&b""[..], b"d", b"dup_fds", b"copy_mm", b"\xff\xff"] {
            assert_eq!(names.get(other), None);
        }
    }
}
