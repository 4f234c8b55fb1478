//! A file that code is mapped from: which of its bytes are code, and the functions and lines of them.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::OFlag;
use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol, ReadCache, ReadRef,
    SegmentFlags, SymbolKind,
};

use super::{
    lines::Lines,
    names::{bounded, demangled},
};
use crate::{event::bytes::text, host::libc};

/// Bytes of a file's table of symbols, and of their names, that are read.
const MOST_BYTES: u64 = 128 << 20;
/// Places of a file whose functions are remembered.
const MOST_PLACES: usize = 16_384;

/// A build id as the kernel tells it: zero behind its end.
pub(super) type BuildId = [u8; 20];

/// A file that code is mapped from.
pub(super) struct Module {
    /// Its path, as a process sees it.
    pub(super) name: Arc<str>,
    pub(super) build_id: Option<BuildId>,
    /// By which path it can be opened, and its inode number.
    path: PathBuf,
    inode: u64,
    code: Vec<Segment>,
    symbols: Option<Symbols>,
    /// What is known of offsets.
    places: HashMap<u64, Place>,
}

/// What is known of a place in a file's code.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) function: Option<Arc<str>>,
    /// The source file, and the line in it.
    pub(super) file: Option<Arc<str>>,
    pub(super) line: Option<u32>,
}

/// A part of a file that is mapped to be run.
#[derive(Clone, Copy)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
}

impl Module {
    /// Opens the file at `path`, if it is the one with this inode number; `name` is its path as a process sees
    /// it. `None` where it is another one, or no ELF file.
    pub(super) fn open(path: &Path, inode: u64, name: &[u8]) -> Option<((u64, u64), Self)> {
        let (file, device) = open(path, inode)?;
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).ok()?;
        let code = elf.segments().filter(is_code).map(|segment| {
            let (offset, size) = segment.file_range();
            Segment { address: segment.address(), offset, size }
        });
        let build_id = elf.build_id().ok().flatten().and_then(|id| {
            let mut padded = BuildId::default();
            padded.get_mut(..id.len())?.copy_from_slice(id);
            Some(padded)
        });
        let module = Self {
            name: text(name).into(),
            build_id,
            path: path.to_owned(),
            inode,
            code: code.collect(),
            symbols: None,
            places: HashMap::new(),
        };
        Some(((device, inode), module))
    }

    /// Where in the file an address lies, of a program whose lowest code begins at `start_code`; `None` if the
    /// byte before it is none of the program's code.
    ///
    /// KERNEL: `fs/binfmt_elf.c` `load_elf_binary`.
    pub(super) fn offset(&self, address: u64, start_code: u64) -> Option<u64> {
        let lowest = self.code.iter().map(|segment| segment.address).min()?;
        let address = address.wrapping_sub(start_code.wrapping_sub(lowest));
        let before = address.checked_sub(1)?;
        let segment = self.code.iter().find(|segment| {
            before.checked_sub(segment.address).is_some_and(|within| within < segment.size)
        })?;
        Some(before - segment.address + segment.offset + 1)
    }

    /// What is known of the call before `offset`; `None` if no code is there.
    pub(super) fn place(&mut self, offset: u64) -> Option<Place> {
        let before = offset.checked_sub(1)?;
        let segment = self.code.iter().find(|segment| {
            before.checked_sub(segment.offset).is_some_and(|within| within < segment.size)
        })?;
        let address = before - segment.offset + segment.address;
        if let Some(known) = self.places.get(&offset) {
            return Some(known.clone());
        }
        let symbols = self.symbols.get_or_insert_with(|| Symbols::read(&self.path, self.inode));
        let source = symbols.lines.as_ref().and_then(|lines| lines.place(address));
        let place = Place {
            function: symbols.name(address).map(|name| demangled(name).into()),
            file: source.map(|(file, _)| bounded(file.to_owned()).into()),
            line: source.and_then(|(_, line)| line),
        };
        if self.places.len() == MOST_PLACES {
            self.places.clear();
        }
        self.places.insert(offset, place.clone());
        Some(place)
    }

    /// How many bytes its symbols take.
    pub(super) fn bytes(&self) -> usize {
        self.symbols.as_ref().map_or(0, Symbols::bytes)
    }
}

/// The file at `path`, if it is a file with this inode number, and its device.
fn open(path: &Path, inode: u64) -> Option<(File, u64)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && metadata.ino() == inode).then(|| (file, metadata.dev()))
}

fn is_code<'data>(segment: &impl object::ObjectSegment<'data>) -> bool {
    matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags & object::elf::PF_X != 0)
}

/// The functions of a file, in the order of their addresses.
#[derive(Default)]
struct Symbols {
    functions: Vec<Function>,
    /// All names.
    names: Vec<u8>,
    lines: Option<Lines>,
}

#[derive(Clone, Copy)]
struct Function {
    address: u64,
    /// 0: not told, as of code written in assembler.
    size: u64,
    /// Where its name lies among all names.
    name: (u32, u32),
}

impl Symbols {
    /// Reads symbols and lines of a file, and those of the file with its debug symbols where this host has that; none
    /// where it is another file by now.
    fn read(path: &Path, inode: u64) -> Self {
        let mut symbols = Self::default();
        let Some((file, _)) = open(path, inode) else { return symbols };
        let cache = ReadCache::new(file);
        let Ok(elf) = object::File::parse(&cache) else { return symbols };
        symbols.add_all(&elf);
        if let Ok(Some(id)) = elf.build_id()
            && let Some(debug) = libc::debug_file(id, Path::new("/"))
            && let Ok(debug) = File::open(debug)
        {
            let cache = ReadCache::new(debug);
            if let Ok(debug) = object::File::parse(&cache)
                && debug.build_id().ok().flatten() == Some(id)
            {
                symbols.add_all(&debug);
            }
        }
        symbols.arrange();
        symbols
    }

    fn add_all<'data, R: ReadRef<'data>>(&mut self, elf: &object::File<'data, R>) {
        self.lines = self.lines.take().or_else(|| Lines::read(elf));
        let tables = [".symtab", ".strtab", ".dynsym", ".dynstr"];
        let bytes = |table: &&str| elf.section_by_name(table).map_or(0, |table| table.size());
        if tables.iter().map(bytes).any(|bytes| bytes > MOST_BYTES) {
            return;
        }
        self.add(elf.symbols());
        self.add(elf.dynamic_symbols());
    }

    fn add<'data, S: ObjectSymbol<'data>>(&mut self, symbols: impl Iterator<Item = S>) {
        for symbol in symbols {
            let is_function = symbol.kind() == SymbolKind::Text && !symbol.is_undefined();
            let Ok(name) = symbol.name_bytes() else { continue };
            if !is_function || name.is_empty() {
                continue;
            }
            let Ok(begins) = u32::try_from(self.names.len()) else { return };
            let Ok(length) = u32::try_from(name.len()) else { continue };
            self.names.extend_from_slice(name);
            let (address, size) = (symbol.address(), symbol.size());
            self.functions.push(Function { address, size, name: (begins, length) });
        }
    }

    /// Sorts, and keeps one name for each address: one that tells its size, with the fewest underscores before
    /// it, as `fork` of `__libc_fork`.
    fn arrange(&mut self) {
        let Self { functions, names, .. } = self;
        let rank = |function: &Function| {
            let name = name_of(names, function);
            let underscores = name.iter().take_while(|byte| **byte == b'_').count();
            (function.size == 0, underscores, name)
        };
        functions.sort_by(|one, other| {
            one.address.cmp(&other.address).then_with(|| rank(one).cmp(&rank(other)))
        });
        functions.dedup_by_key(|function| function.address);
        functions.shrink_to_fit();
    }

    fn name(&self, address: u64) -> Option<&[u8]> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let is_within = function.size == 0 || address - function.address < function.size;
        is_within.then(|| name_of(&self.names, function))
    }

    fn bytes(&self) -> usize {
        let lines = self.lines.as_ref().map_or(0, |lines| lines.bytes);
        self.names.len() + size_of_val(self.functions.as_slice()) + lines
    }
}

fn name_of<'a>(names: &'a [u8], function: &Function) -> &'a [u8] {
    let (begins, length) = function.name;
    let rest = names.get(begins as usize..).unwrap_or_default();
    rest.get(..length as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(list: &[(u64, u64, &str)]) -> Symbols {
        let mut symbols = Symbols::default();
        for (address, size, name) in list {
            let begins = symbols.names.len().try_into().unwrap();
            symbols.names.extend_from_slice(name.as_bytes());
            let name = (begins, name.len().try_into().unwrap());
            symbols.functions.push(Function { address: *address, size: *size, name });
        }
        symbols.arrange();
        symbols
    }

    #[test]
    fn an_address_is_in_the_function_around_it() {
        let symbols = symbols(&[
            (0x30, 0, "asm"),
            (0x10, 8, "__libc_fork"),
            (0x10, 8, "fork"),
            (0x10, 0, "a"),
            (0x20, 8, "vfork"),
        ]);
        let name = |address| symbols.name(address).map(|name| std::str::from_utf8(name).unwrap());
        assert_eq!((name(0x10), name(0x17)), (Some("fork"), Some("fork")));
        assert_eq!((name(0xf), name(0x18)), (None, None), "between functions");
        assert_eq!((name(0x30), name(0x99)), (Some("asm"), Some("asm")));
    }

    #[test]
    fn the_own_program_names_its_functions() {
        #[inline(never)]
        fn marked() -> u64 {
            std::hint::black_box(7)
        }
        let path = std::env::current_exe().unwrap();
        let inode = path.metadata().unwrap().ino();
        let name = path.to_str().unwrap().as_bytes();
        let (_, mut module) = Module::open(&path, inode, name).unwrap();
        assert!(Module::open(&path, inode + 1, name).is_none(), "another file");
        assert!(Module::open(Path::new("/etc/passwd"), 0, b"/etc/passwd").is_none());
        let own = super::super::maps::of_process(std::process::id()).unwrap();
        let address = marked as *const () as u64 + marked() - 6;
        let mapping = own.iter().find(|map| (map.start..map.end).contains(&address)).unwrap();
        let offset = address - mapping.start + mapping.offset;
        let place = module.place(offset).unwrap();
        let function = place.function.unwrap();
        assert!(function.contains("the_own_program_names_its_functions::marked"), "{function}");
        if let Some(file) = place.file {
            // Its only call is built into it.
            assert!(file.ends_with(".rs") && place.line > Some(1), "{file}");
        }
        assert_eq!(module.place(0), None, "no code is there");
        let stat = crate::host::process::stat::Stat::read(std::process::id()).unwrap();
        assert_eq!(module.offset(address, stat.start_code.unwrap()), Some(offset));
    }
}
