//! A small set of names, looked up while every symbol or type of the kernel is read.

use std::collections::HashMap;

/// A small set of names. Most other names are rejected by their first letter and length alone.
pub struct NameSet {
    names: HashMap<&'static [u8], &'static str>,
    /// Of each first letter a bit for each length modulo 64.
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
    /// The name of these bytes, if it is one of them.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'static str> {
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
    fn finds_its_own_and_no_other() {
        let names: NameSet = ["dup_fd", "dup_mm", "copy_fs"].into_iter().collect();
        assert_eq!(names.get(b"dup_fd"), Some("dup_fd"));
        assert_eq!(names.get(b"dup_xx"), None, "same letter, same length");
        for other in [&b""[..], b"d", b"dup_fds", b"copy_mm", b"\xff\xff"] {
            assert_eq!(names.get(other), None);
        }
    }
}
