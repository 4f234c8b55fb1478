//! Everything that touches the kernel's BPF: loading, attaching, reading maps and the ring. It is
//! the only room that knows aya.
//!
//! `prepare` is the way in: it learns call sites (`learn`), loads the object (`load`, `tracer`),
//! probes functions (`functions`) and makes the plan. Before it, `tasks` learns which ids are which.

pub mod detach;
pub mod errors;
pub mod filter;
pub mod functions;
pub mod learn;
mod libc;
pub mod load;
pub mod maps;
pub mod prepare;
pub mod ring;
mod run_stats;
mod sampling;
pub mod skipped_runs;
pub mod tasks;
pub mod tracer;
