//! Places in source files, from a file's debug information.

use std::{io::Read, rc::Rc};

use addr2line::Context;
use flate2::read::ZlibDecoder;
use gimli::{Dwarf, EndianRcSlice, RunTimeEndian, SectionId};
use object::{CompressionFormat, Object as _, ObjectSection as _, ReadRef};
use ruzstd::decoding::StreamingDecoder;

/// Bytes of debug information that are read of one file.
const MOST_BYTES: u64 = 64 << 20;

type Reader = EndianRcSlice<RunTimeEndian>;

/// The debug information of a file, as far as it leads from addresses to lines.
pub(super) struct Lines {
    context: Context<Reader>,
    /// How many bytes it takes.
    pub(super) bytes: usize,
}

impl Lines {
    /// Reads it; `None` where there is none, or more than is read.
    pub(super) fn read<'data, R: ReadRef<'data>>(elf: &object::File<'data, R>) -> Option<Self> {
        elf.section_by_name(".debug_line")?;
        let mut bytes = 0;
        let mut load = |id: SectionId| {
            let section = section(elf, id.name(), MOST_BYTES - bytes).ok_or(())?;
            bytes += section.len() as u64;
            Ok::<_, ()>(EndianRcSlice::new(Rc::from(section), RunTimeEndian::Little))
        };
        let dwarf = Dwarf::load(&mut load).ok()?;
        let context = Context::from_dwarf(dwarf).ok()?;
        Some(Self { context, bytes: usize::try_from(bytes).ok()? })
    }

    /// The source file and the line of an address.
    pub(super) fn place(&self, address: u64) -> Option<(&str, Option<u32>)> {
        let location = self.context.find_location(address).ok()??;
        Some((location.file?, location.line))
    }
}

/// What a section holds, empty where there is none; `None` if that is more than `most` bytes, or broken.
fn section<'data, R: ReadRef<'data>>(
    elf: &object::File<'data, R>,
    name: &str,
    most: u64,
) -> Option<Vec<u8>> {
    let Some(section) = elf.section_by_name(name) else { return Some(Vec::new()) };
    if section.compressed_file_range().ok()?.uncompressed_size > most {
        return None;
    }
    let packed = section.compressed_data().ok()?;
    let unpacked: Box<dyn Read> = match packed.format {
        CompressionFormat::None => return Some(packed.data.to_vec()),
        CompressionFormat::Zlib => Box::new(ZlibDecoder::new(packed.data)),
        CompressionFormat::Zstandard => Box::new(StreamingDecoder::new(packed.data).ok()?),
        _ => return None,
    };
    let mut bytes = Vec::new();
    unpacked.take(packed.uncompressed_size).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == packed.uncompressed_size).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_allowed() {
        let path = std::env::current_exe().unwrap();
        let cache = object::ReadCache::new(std::fs::File::open(path).unwrap());
        let elf = object::File::parse(&cache).unwrap();
        let debug_bytes: u64 = elf
            .sections()
            .filter(|section| section.name().is_ok_and(|name| name.starts_with(".debug_")))
            .map(|section| section.size())
            .sum();
        match Lines::read(&elf) {
            Some(lines) => assert!(lines.bytes as u64 <= MOST_BYTES),
            None => assert!(debug_bytes > MOST_BYTES || debug_bytes == 0, "{debug_bytes}"),
        }
    }
}
