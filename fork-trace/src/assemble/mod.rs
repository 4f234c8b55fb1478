//! From bytes of the ring to a [`Fork`](crate::event::fork::Fork): pure, without I/O.
//!
//! `decode` turns bytes into records, `join` pairs the records of one attempt, `times` answers when
//! it passed which point, `failure` where a failed one turned back, `fallback` ties two attempts that
//! are one spawn, `spans` makes the stages of one, `waits` and
//! `samples` tell where it stood still and what it did for long, and `fork` makes the whole value. `program` keeps what
//! callers run, `libc` tells of the C library around the call, and `follow_up` does the same as all of these for what becomes of a child.

pub mod decode;
mod failure;
pub mod fallback;
pub mod follow_up;
pub mod fork;
pub mod join;
pub mod joined;
pub mod libc;
pub mod memory;
pub mod program;
pub mod samples;
pub mod spans;
pub mod times;
pub mod tracer;
pub mod waits;
