//! A recording: the entries of the ring as they came, each behind its length in four bytes,
//! little-endian.

use anyhow::{Context as _, Result};

/// Appends an entry.
pub(crate) fn append(recording: &mut Vec<u8>, entry: &[u8]) -> Result<()> {
    let length = u32::try_from(entry.len()).context("an entry is too long")?;
    recording.extend_from_slice(&length.to_le_bytes());
    recording.extend_from_slice(entry);
    Ok(())
}

/// The entries of a recording.
pub(crate) fn entries(mut recording: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    while !recording.is_empty() {
        let (length, rest) = recording.split_first_chunk().context("a length is cut off")?;
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let (entry, rest) = rest.split_at_checked(length).context("an entry is cut off")?;
        entries.push(entry.to_vec());
        recording = rest;
    }
    Ok(entries)
}
