//! The kernel's symbols: the addresses of the functions whose allocations are marks, and how many
//! symbols have each name of the table of functions. `/proc/kallsyms` is read once, as a stream; the lines of
//! functions are kept for whoever names kernel stacks later, when there may be no right to read them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    ops::Range,
};

use anyhow::Result;
use fork_trace_common::call_site::{ALLOCATING_FUNCTIONS, COPY_PROCESS};

use crate::host::{
    call_sites::Symbols,
    functions::{self, Counts},
    name_set::NameSet,
};

/// The kernel's array of per-CPU offsets; a kernel without `CONFIG_KALLSYMS_ALL` does not show it.
/// KERNEL: `arch/x86/kernel/setup_percpu.c`, mm/percpu.c.
pub(super) const PER_CPU_OFFSETS: &str = "__per_cpu_offset";

/// Reads two things: the addresses of [`PER_CPU_OFFSETS`] and of the functions whose allocations
/// are marks, or the reason why they are not known; and how many symbols have each name of the
/// table of functions, or `None` where symbols cannot be read at all. Puts the lines of functions into
/// `lines`.
pub(super) fn read_symbols(lines: &mut Vec<u8>) -> (Result<Symbols, String>, Option<Counts>) {
    let file = File::open("/proc/kallsyms");
    match file.and_then(|file| parse_symbols(BufReader::new(file), lines)) {
        Ok((symbols, counts)) => (symbols, Some(counts)),
        Err(error) => (Err(format!("kallsyms: {error}")), None),
    }
}

/// No list of functions has more bytes.
const MOST_BYTES: usize = 64 << 20;

/// Whether a line is that of a function: its kind stands after the address.
fn is_function(line: &[u8]) -> bool {
    let kind = line.split(|byte| *byte == b' ').nth(1);
    matches!(kind, Some(b"t" | b"T" | b"w" | b"W"))
}

/// What was found of one name.
#[derive(Default)]
struct Symbol {
    /// From the address of the first symbol with this name to the next higher address.
    place: Range<u64>,
    /// How many symbols have this name.
    count: usize,
}

fn parse_symbols(
    mut kallsyms: impl BufRead,
    lines: &mut Vec<u8>,
) -> io::Result<(Result<Symbols, String>, Counts)> {
    let places = ALLOCATING_FUNCTIONS.iter().map(|(name, _)| *name);
    let places: Vec<_> =
        places.chain(COPY_PROCESS.iter().copied()).chain([PER_CPU_OFFSETS]).collect();
    let names: NameSet = places.iter().copied().chain(functions::names()).collect();
    let mut found: HashMap<&str, Symbol> = HashMap::new();
    // The symbols of the kernel itself come in the order of their addresses. Several may have the
    // same address, so a symbol ends only where a higher address follows.
    let mut open: Vec<(&str, u64)> = Vec::new();
    let mut line = Vec::new();
    while kallsyms.read_until(b'\n', &mut line)? > 0 {
        let bytes = line.trim_ascii_end();
        if is_function(bytes) && lines.len() + line.len() <= MOST_BYTES {
            lines.extend_from_slice(&line);
        }
        if !open.is_empty() {
            let address = address(bytes);
            for (name, start) in open.extract_if(.., |(_, start)| address > *start) {
                found.entry(name).or_default().place = start..address;
            }
        }
        // In the line of a module's symbol a tab and the module follow the name, so that what
        // stands behind the last blank is no name of the set.
        let name = bytes.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        if let Some(name) = names.get(name) {
            let symbol = found.entry(name).or_default();
            symbol.count += 1;
            if symbol.count == 1 {
                open.push((name, address(bytes)));
            }
        }
        line.clear();
    }
    let count = |name| found.get(name).map_or(0, |symbol| symbol.count);
    let counts = functions::names().map(|name| (name, count(name))).collect();
    let mut symbols = found.values();
    if symbols.all(|symbol| symbol.place.is_empty()) {
        let hidden = "kernel addresses are hidden: set kernel.kptr_restrict to 1 or 0, and run \
                      with CAP_SYSLOG";
        return Ok((Err(hidden.to_owned()), counts));
    }
    let place = |name: &&'static str| {
        let Symbol { place, count } = found.get(name)?;
        // Where several symbols have the name, it is not certain which one is meant.
        Some((*name, if *count == 1 { place.clone() } else { 0..0 }))
    };
    Ok((Ok(places.iter().filter_map(place).collect()), counts))
}

/// The address at the beginning of a line; 0 where the kernel hides it or the line has none.
fn address(line: &[u8]) -> u64 {
    let digits = line.iter().map_while(|digit| char::from(*digit).to_digit(16));
    digits.fold(0, |address, digit| address << 4 | u64::from(digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_symbol_ends_where_the_next_address_begins() {
        let text = "ffff1000 T copy_process\nffff1000 t dup_mm\nffff1800 t y\nffff2000 T dup_fd\n\
                    ffff3000 t dup_fd\t[btrfs]\nffff4000 T alloc_pid\nffff5000 t alloc_pid\n";
        let parse = |text: &str| parse_symbols(text.as_bytes(), &mut Vec::new()).unwrap();
        let (symbols, counts) = parse(text);
        let symbols = symbols.unwrap();
        assert_eq!(symbols["copy_process"], 0xffff_1000..0xffff_1800);
        assert_eq!(symbols["dup_mm"], symbols["copy_process"], "two names of one address");
        assert_eq!(symbols["dup_fd"], 0xffff_2000..0xffff_3000);
        assert!(symbols["alloc_pid"].is_empty(), "two symbols of one name");
        assert_eq!((counts["dup_fd"], counts["alloc_pid"], counts["copy_creds"]), (1, 2, 0));
        let (hidden, counts) = parse("0000000000000000 T copy_process\n");
        assert!(hidden.unwrap_err().contains("kptr_restrict"));
        assert_eq!(counts["copy_process"], 1, "only addresses are hidden");
    }

    proptest::proptest! {
        /// Lines of symbols in which bytes were changed, or anything at all.
        #[test]
        fn fuzz_kallsyms(
            lines in proptest::collection::vec(line(), 0..12),
            ending in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let text = [lines.concat(), ending].concat();
            let (symbols, counts) = parse_symbols(&text[..], &mut Vec::new()).unwrap();
            prop_assert_eq!(counts.len(), functions::names().count());
            if let Ok(symbols) = symbols {
                prop_assert!(symbols.values().all(|place| place.start <= place.end));
            }
        }
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let name = prop::sample::select(vec![
            "copy_process",
            "dup_mm",
            "dup_fd",
            "alloc_pid",
            "__per_cpu_offset",
            "other",
            "",
        ]);
        let end = prop::sample::select(vec!["\n", "\t[btrfs]\n", " \n", "", "\r\n", "\0\n"]);
        let address = prop_oneof![
            any::<u64>().prop_map(|address| format!("{address:016x}")),
            Just("0000000000000000".to_owned()),
            Just("fffffffffffffffffffff".to_owned()),
            ".{0,4}",
        ];
        let symbol = (address, name, end)
            .prop_map(|(address, name, end)| format!("{address} T {name}{end}").into_bytes());
        prop_oneof![8 => symbol, 1 => proptest::collection::vec(any::<u8>(), 0..30)]
    }
}
