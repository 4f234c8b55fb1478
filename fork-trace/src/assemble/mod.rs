//! From bytes of the ring to a [`Fork`](crate::event::fork::Fork): pure, without I/O.
//!
//! `decode` turns bytes into records, `join` pairs the records of one attempt, `times` answers when
//! it passed which point, `spans` makes its stages, `fork` the whole value. `follow_up` does the
//! same for what becomes of a child.

pub mod decode;
pub mod follow_up;
pub mod fork;
pub mod join;
pub mod memory;
pub mod spans;
pub mod times;
pub mod tracer;
