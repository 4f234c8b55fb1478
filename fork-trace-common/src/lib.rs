//! What the kernel side and the user side of fork-trace share: the table of stages, the bytes of
//! every record, the switches and struct offsets that user space sets before load, and the counters
//! of everything that is not shown.
//!
//! Only layouts, tables and names are here. Nothing calls a BPF helper, does I/O or allocates.
#![no_std]

pub mod arch;
pub mod call_site;
pub mod callee;
pub mod counter;
pub mod filter;
pub mod flags;
pub mod follow_up;
pub mod function;
pub mod holder;
pub mod libc;
pub mod memory;
pub mod point;
pub mod program;
pub mod record;
pub mod refusal;
pub mod sample;
pub mod settings;
pub mod stack;
pub mod stage;
pub mod task_seen;
pub mod wait;
