//! fork-trace: what a Linux host really does when a process forks, stage by stage.
//!
//! Data goes through the rooms in this order: `host` reads what this machine has, `plan` decides what
//! to attach, `bpf` loads and attaches it and empties the ring, `assemble` turns records into forks,
//! `cause` says why one failed, `live` drives all of it and adds what follows, `output` writes it.
//! `event` holds the values that every room speaks in, and reads them back for a replay; `cli` is what
//! was typed. ARCHITECTURE.md says which room may import which.

pub mod assemble;
pub mod bpf;
pub mod cause;
pub mod cli;
pub mod error;
pub mod event;
pub mod host;
pub mod live;
pub mod output;
pub mod plan;
