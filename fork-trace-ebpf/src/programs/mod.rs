//! The programs that the kernel runs, each with a body of one call into the rooms below.
//!
//! User space attaches those that it needs, by the names of the sections that they lie in.

mod functions;
mod inner_tracepoints;
mod libc;
mod own_tracepoints;
mod sample;
mod tasks;
