//! What fork-trace's kernel and user sides share: the stage table, the bytes of a record, the
//! switches and struct offsets set before load, and the counters of everything not shown.
//!
//! It owns layouts and names only: no BPF helper, no I/O, no allocation.
#![no_std]

pub mod call_site;
pub mod callee;
pub mod counter;
pub mod filter;
pub mod flags;
pub mod follow_up;
pub mod function;
pub mod memory;
pub mod point;
pub mod record;
pub mod refusal;
pub mod settings;
pub mod stage;
pub mod wait;
