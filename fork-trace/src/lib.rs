//! fork-trace: what a Linux host really does when a process forks, stage by stage.
//!
//! Data goes through the rooms in this order: `host` reads what this machine has, `plan` decides
//! what to attach, `bpf` loads and attaches it and reads the records from the ring, `assemble`
//! turns records into forks, `cause` finds out why a fork failed, `live` drives all of this and
//! turns it into a stream of events, and `output` writes the events. `event` holds the values that
//! all rooms exchange, and reads them back for a replay; `cli` reads the command line and holds one
//! outline for each command. ARCHITECTURE.md says which room may import which.

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
