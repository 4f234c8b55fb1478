//! Addresses of the kernel's code to the names of its functions.
//!
//! The table of all functions takes some megabytes and some hundredths of a second to make. It is made before
//! tracing begins: later it would keep records waiting, and the rights to read addresses are dropped.

use fork_trace_common::wait::FRAMES;

/// No kernel has more functions than this, modules included.
const MOST: usize = 1 << 20;

/// The kernel's functions by address.
#[derive(Default)]
pub struct Stacks {
    functions: Functions,
}

impl Stacks {
    /// By the lines of functions in `/proc/kallsyms`.
    #[must_use]
    pub fn of(lines: &[u8]) -> Self {
        Self { functions: Functions::parse(&String::from_utf8_lossy(lines)) }
    }

    /// The functions on a stack of return addresses, the innermost first, as far as the caller has
    /// frames; `None` where the kernel hides its addresses, or nothing was read of the stack.
    pub fn names(&self, stack: &[u64]) -> Option<Vec<String>> {
        let names = stack.iter().take(FRAMES).map(|address| self.functions.name(*address));
        let names: Vec<_> = names.collect();
        // The scheduler itself is on every stack.
        (names.iter().any(Option::is_some)).then(|| {
            let named = |(name, address): (Option<&str>, &u64)| {
                name.map_or_else(|| format!("{address:#x}"), str::to_owned)
            };
            names.into_iter().zip(stack).map(named).collect()
        })
    }

    /// Whether the kernel hides its addresses.
    #[must_use]
    pub fn are_hidden(&self) -> bool {
        self.functions.places.is_empty()
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
    fn parse(list: &str) -> Self {
        let mut functions = Self::default();
        for line in list.split('\n') {
            if functions.places.len() == MOST {
                break;
            }
            if let Some((address, rest)) = line.split_once(' ')
                && let Some((b't' | b'T' | b'w' | b'W', b' ')) =
                    rest.as_bytes().first_chunk().map(|[kind, space]| (*kind, *space))
                && let Ok(address) = u64::from_str_radix(address, 16)
                && address != 0
                && let Some(name) = rest.get(2..)
                && let Ok(place) = u32::try_from(functions.names.len())
            {
                // The name of a module may follow.
                let name = name.split_once('\t').map_or(name, |(name, _)| name);
                functions.places.push((address, place));
                functions.names.push_str(plain(name));
                functions.names.push('\n');
            }
        }
        functions.places.sort_by_key(|(address, _)| *address);
        functions
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
        let functions = Functions::parse(LIST);
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
        let stacks = Stacks::of(hidden.as_bytes());
        assert_eq!(stacks.names(&[0xffff_1001]), None);
        assert!(stacks.are_hidden());
        let stacks = Stacks::of(LIST.as_bytes());
        assert!(!stacks.are_hidden());
        assert_eq!(stacks.names(&[0xffff_1001, 5]).unwrap(), ["copy_process", "0x5"]);
        assert_eq!(stacks.names(&[]), None);
    }
}
