//! The C libraries of this host: which files they are, and where in them the functions lie that are
//! probed around a fork.
//!
//! Probes are attached to a file and not to a process, so one library serves every process that maps
//! it, also those that start later. `found` looks for the files, `elf` for the functions in one file,
//! and a `library` is what both find. A `handler` is a
//! function that a program has registered to run at each fork.

mod elf;
mod found;
mod handler;
mod library;

pub(in crate::host) use elf::debug_file;
pub use found::{Found, MOST, files_of, files_of_program, found, others_of, program_of, runs};
pub use handler::{Place, places};
pub use library::Library;
