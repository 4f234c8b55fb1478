//! The functions that are probed, in one ELF file.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use fork_trace_common::libc::{FUNCTIONS, LibcFunction};
use object::{
    Architecture, Object as _, ObjectSegment as _, ReadCache, ReadRef, SymbolFlags, SymbolKind,
};

use super::library::Library;
use crate::event::bytes::hex;

/// The machine that libraries have to be for.
#[cfg(target_arch = "aarch64")]
const OWN: Architecture = Architecture::Aarch64;
#[cfg(not(target_arch = "aarch64"))]
const OWN: Architecture = Architecture::X86_64;

/// Where files of debug symbols lie, by build id.
const DEBUG: &str = "usr/lib/debug/.build-id";

/// The type of a symbol whose address is only chosen when the program is loaded.
///
/// ELF: `STT_GNU_IFUNC`.
const GNU_IFUNC: u8 = 10;

/// Reads the library that `path` reaches and its users know as `name`. Debug symbols are looked for
/// under `root` too.
///
/// # Errors
/// It cannot be read, is no ELF file of this machine, or has none of the functions.
pub(super) fn library(path: &Path, name: &str, root: &Path) -> Result<Library> {
    let file = File::open(path).context("cannot be opened")?;
    let metadata = file.metadata().context("cannot be looked at")?;
    if !metadata.is_file() {
        bail!("no file");
    }
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).context("not an ELF file that can be read")?;
    if elf.architecture() != OWN {
        bail!("for another machine ({:?})", elf.architecture());
    }
    let mut addresses = BTreeSet::new();
    collect(elf.dynamic_symbols(), &mut addresses);
    collect(elf.symbols(), &mut addresses);
    let mut has_debug_symbols = elf.symbols().next().is_some();
    if let Ok(Some(id)) = elf.build_id()
        && let Some(debug) = debug_file(id, root)
        && let Ok(debug) = File::open(&debug)
    {
        let cache = ReadCache::new(debug);
        if let Ok(debug) = object::File::parse(&cache)
            && debug.build_id().ok().flatten() == Some(id)
        {
            has_debug_symbols = true;
            collect(debug.symbols(), &mut addresses);
        }
    }
    let functions: BTreeSet<_> = addresses
        .into_iter()
        .filter_map(|(function, address)| Some((function, file_offset(&elf, address)?)))
        .collect();
    if !functions.iter().any(|(function, _)| function.row().role.is_wrapper()) {
        bail!("no symbol of a function that makes a task");
    }
    Ok(Library {
        name: name.to_owned(),
        path: path.to_owned(),
        file: (metadata.dev(), metadata.ino()),
        functions: functions.into_iter().collect(),
        has_debug_symbols,
    })
}

/// The file of debug symbols for a build id, if there is one: under `root`, or on this host.
pub(in crate::host) fn debug_file(id: &[u8], root: &Path) -> Option<PathBuf> {
    let (first, rest) = id.split_at_checked(1)?;
    let file = format!("{DEBUG}/{}/{}.debug", hex(first), hex(rest));
    [root, Path::new("/")].map(|root| root.join(&file)).into_iter().find(|file| file.is_file())
}

/// Adds the addresses of the functions among some symbols.
fn collect<'data, S: object::ObjectSymbol<'data>>(
    symbols: impl Iterator<Item = S>,
    addresses: &mut BTreeSet<(LibcFunction, u64)>,
) {
    for symbol in symbols {
        let is_function = symbol.kind() == SymbolKind::Text && !symbol.is_undefined();
        if !is_function || is_chosen_at_load(&symbol) {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        // A static symbol of a library may have a version in its name.
        let name = name.split('@').next().unwrap_or(name);
        if let Some(row) = FUNCTIONS.iter().find(|row| row.symbols.contains(&name)) {
            addresses.insert((row.function, symbol.address()));
        }
    }
}

fn is_chosen_at_load<'data>(symbol: &impl object::ObjectSymbol<'data>) -> bool {
    matches!(symbol.flags(), SymbolFlags::Elf { st_info, .. } if st_info & 0xf == GNU_IFUNC)
}

/// What lies at `file_offset` in the file that `path` reaches: its address in the file's own numbering, and the
/// name of the function, where there is a symbol. `None` if that is no code of an ELF file.
pub(super) fn symbol_at(path: &Path, file_offset: u64) -> Option<(u64, Option<String>)> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let elf = object::File::parse(&cache).ok()?;
    let address = elf.segments().find_map(|segment| {
        let (start, size) = segment.file_range();
        let within = file_offset.checked_sub(start)?;
        (within < size).then(|| segment.address() + within)
    })?;
    let named = function_at(elf.symbols(), address);
    Some((address, named.or_else(|| function_at(elf.dynamic_symbols(), address))))
}

/// The name of the function that lies around `address`.
fn function_at<'data, S: object::ObjectSymbol<'data>>(
    mut symbols: impl Iterator<Item = S>,
    address: u64,
) -> Option<String> {
    let found = symbols.find(|symbol| {
        let within = address.checked_sub(symbol.address());
        let is_function = symbol.kind() == SymbolKind::Text && !symbol.is_undefined();
        is_function && within.is_some_and(|within| within < symbol.size().max(1))
    });
    found.and_then(|symbol| symbol.name().ok().map(str::to_owned))
}

/// Where in the file an address lies.
fn file_offset<'data, R: ReadRef<'data>>(
    elf: &object::File<'data, R>,
    address: u64,
) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let within = address.checked_sub(segment.address())?;
        let (offset, size) = segment.file_range();
        (within < size).then(|| offset + within)
    })
}
