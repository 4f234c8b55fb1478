//! A C library, as far as it is probed.

use std::path::PathBuf;

use fork_trace_common::libc::LibcFunction;

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
