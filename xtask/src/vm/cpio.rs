//! An archive in cpio's "newc" format, which the kernel unpacks as its first file system.
//!
//! This file knows nothing of what is in it.

use anyhow::{Context as _, Result};

/// File types, as in `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive in the making.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A directory; its parent has to come first.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// A file that all may read, and run or not.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8], runs: bool) -> Result<()> {
        self.entry(path, REGULAR | if runs { 0o755 } else { 0o644 }, (0, 0), bytes)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device by its numbers.
    pub(crate) fn device(&mut self, path: &str, numbers: (u32, u32)) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, numbers, &[])
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large"))?;
        let name = u32::try_from(path.len() + 1).context("a path is too long")?;
        let (links, owner, time, check) = (1, 0, 0, 0);
        self.bytes.extend_from_slice(b"070701");
        for number in [
            self.entries,
            mode,
            owner,
            owner,
            links,
            time,
            size,
            0,
            0,
            device.0,
            device.1,
            name,
            check,
        ] {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
        Ok(())
    }

    /// Names and contents begin at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_the_content_each_padded() {
        let mut archive = Archive::default();
        archive.file("a/b", b"hello", true).unwrap();
        let bytes = archive.finish().unwrap();
        let header = "07070100000001000081ed000000000000000000000001000000000000000500000000\
                      0000000000000000000000000000000400000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"a/b\0\0\0hello\0\0\0");
        assert!(bytes[124..].starts_with(b"070701"));
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
