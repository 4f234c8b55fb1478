//! The C libraries of this host: which files they are, and where in them the functions lie that are
//! probed around a fork.
//!
//! Probes are attached to a file and not to a process, so one library serves every process that maps
//! it, also those that start later. `found` looks for the files, `elf` for the functions in one file.

mod elf;
mod found;

use std::path::PathBuf;

use fork_trace_common::libc::LibcFunction;

pub use found::{Found, found};

/// A C library, or a program that has one built in.
#[derive(Clone, Debug)]
pub struct Library {
    /// The path by which its users know it.
    pub name: String,
    /// A path by which this process reaches the file.
    pub path: PathBuf,
    /// Its device and inode: the file's identity.
    pub file: (u64, u64),
    /// Where the functions lie in the file, each at least once: a symbol may have versions that lie
    /// in different places.
    pub functions: Vec<(LibcFunction, u64)>,
    /// Whether the names of functions that are not exported are known: from the file itself, or from a
    /// file of debug symbols.
    pub has_debug_symbols: bool,
}
