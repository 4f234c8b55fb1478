//! Live tests: the real tool on the real kernel, against truths of their own.
//!
//! `forker` says what it did, `/proc/stat` and ftrace what the kernel saw. They need root; without
//! it they say so and pass, or fail where `FORK_TRACE_LIVE=require` is set, as in CI. They run one
//! after the other: some trace the whole host.

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
mod endings;
mod filters;
mod ftrace;
mod functions;
mod inner;
mod life;
mod readme;
mod rights;
mod storm;
mod support;
mod truth;
mod waits;
