//! Live tests: the real tool on the real kernel, against truths of their own.
//!
//! `forker` says what it did, `/proc/stat` and ftrace say what the kernel saw. The tests need root.
//! Without it they say so and pass, or fail where `FORK_TRACE_LIVE=require` is set, as in CI. They
//! run one after the other, because some of them trace the whole host. Others may do so at the same
//! time: a test speaks only of its own tracer, its own BPF programs and its own forks.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says why"
)]

mod around;
mod causes;
mod command_line;
mod containers;
mod endings;
mod export;
mod failed_stages;
mod files;
mod filters;
mod follow_up;
mod formats;
mod ftrace;
mod functions;
mod hotplug;
mod inner;
mod libc;
mod little_memory;
mod memory_bill;
mod names;
mod namespaces;
#[path = "../perfetto/mod.rs"]
mod perfetto;
mod python;
mod readme;
mod records;
mod rights;
mod samples;
mod stacks;
mod stopping;
mod storm;
mod support;
mod tree;
mod truth;
mod waits;
