//! Addresses of the kernel's code to the names of its functions.
//!
//! A table of all functions takes some megabytes and a tenth of a second to read, so it is read when
//! the first stack arrives, and once. The list is opened beforehand: the kernel shows addresses to
//! whoever may see them when the file is opened, and rights are dropped soon after.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

use fork_trace_common::wait::FRAMES;

/// No kernel has more functions than this, modules included.
const MOST: usize = 1 << 20;

/// The kernel's functions by address.
#[derive(Default)]
pub struct Stacks {
    list: Option<File>,
    functions: Option<Functions>,
}

impl Stacks {
    /// Opens the list of symbols, as far as this is permitted; nothing is read.
    #[must_use]
    pub fn open() -> Self {
        Self { list: File::open("/proc/kallsyms").ok(), functions: None }
    }

    /// The functions on a stack of return addresses, the innermost first, as far as the caller has
    /// frames; `None` where the kernel hides its addresses, or nothing was read of the stack.
    pub fn names(&mut self, stack: &[u64]) -> Option<Vec<String>> {
        let functions = self.functions();
        let names = stack.iter().take(FRAMES).map(|address| functions.name(*address));
        let names: Vec<_> = names.collect();
        // The scheduler itself is on every stack.
        (names.iter().any(Option::is_some)).then(|| {
            let named = |(name, address): (Option<&str>, &u64)| {
                name.map_or_else(|| format!("{address:#x}"), str::to_owned)
            };
            names.into_iter().zip(stack).map(named).collect()
        })
    }

    /// Whether the list was read.
    #[must_use]
    pub const fn are_ready(&self) -> bool {
        self.functions.is_some()
    }

    /// Reads the list, if it was not read yet.
    pub fn prepare(&mut self) {
        self.functions();
    }

    fn functions(&mut self) -> &Functions {
        match (&mut self.functions, self.list.take()) {
            (Some(functions), _) => functions,
            (none, list) => none.insert(Functions::read(list)),
        }
    }

    /// Whether the kernel hides its addresses; asked once a stack has arrived.
    #[must_use]
    pub fn are_hidden(&self) -> bool {
        self.functions.as_ref().is_some_and(|functions| functions.places.is_empty())
    }
}

/// Functions in the order of their addresses.
#[derive(Default)]
struct Functions {
    /// Address, and where in `names` the name begins.
    places: Vec<(u64, u32)>,
    /// Names, each closed by a line feed.
    names: String,
}

impl Functions {
    fn read(list: Option<File>) -> Self {
        let functions = list.map(|list| Self::parse(BufReader::new(list)));
        match functions {
            Some(Ok(functions)) => functions,
            Some(Err(error)) => {
                log::warn!("kallsyms: {error}");
                Self::default()
            }
            None => Self::default(),
        }
    }

    fn parse(mut list: impl BufRead) -> io::Result<Self> {
        let mut functions = Self::default();
        let mut line = String::new();
        while list.read_line(&mut line)? > 0 && functions.places.len() < MOST {
            let mut words = line.split_ascii_whitespace();
            if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
                (words.next(), words.next(), words.next())
                && let Ok(address) = u64::from_str_radix(address, 16)
                && address != 0
                && let Ok(place) = u32::try_from(functions.names.len())
            {
                functions.places.push((address, place));
                functions.names.push_str(plain(name));
                functions.names.push('\n');
            }
            line.clear();
        }
        functions.places.sort_by_key(|(address, _)| *address);
        Ok(functions)
    }

    /// The function that a return address lies in. A call may be a function's last instruction, so
    /// the byte before the address decides.
    fn name(&self, returns_to: u64) -> Option<&str> {
        let address = returns_to.checked_sub(1)?;
        let after = self.places.partition_point(|(begins, _)| *begins <= address);
        let (_, place) = self.places.get(after.checked_sub(1)?)?;
        self.names.get(*place as usize..)?.split('\n').next()
    }
}

/// A function's name without what the compiler appends to the names of its copies and pieces.
fn plain(name: &str) -> &str {
    name.split('.').next().filter(|plain| !plain.is_empty()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "ffff2000 t dup_mmap.part.0\nffff1000 T copy_process\nffff1800 d data\n\
                        ffff3000 t dup_fd\t[some]\n";

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let functions = Functions::parse(LIST.as_bytes()).unwrap();
        assert_eq!(functions.name(0xffff_1001), Some("copy_process"));
        assert_eq!(functions.name(0xffff_2000), Some("copy_process"), "a call at its very end");
        assert_eq!(functions.name(0xffff_2001), Some("dup_mmap"));
        assert_eq!(functions.name(0xffff_9999), Some("dup_fd"));
        assert_eq!(functions.name(0x1000), None);
        assert_eq!(functions.name(0), None);
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        let hidden = "0000000000000000 T copy_process\n";
        let functions = Some(Functions::parse(hidden.as_bytes()).unwrap());
        let mut stacks = Stacks { list: None, functions };
        assert_eq!(stacks.names(&[0xffff_1001]), None);
        assert!(stacks.are_hidden());
        let functions = Some(Functions::parse(LIST.as_bytes()).unwrap());
        let mut stacks = Stacks { list: None, functions };
        assert!(!stacks.are_hidden());
        assert_eq!(stacks.names(&[0xffff_1001, 5]).unwrap(), ["copy_process", "0x5"]);
        assert_eq!(stacks.names(&[]), None);
    }
}
