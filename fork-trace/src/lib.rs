//! fork-trace: what a Linux host really does when a process forks, stage by stage.
//!
//! The data's way: `host` -> `plan` -> `attach` -> `ring` -> `decode` -> `join` -> `assemble` ->
//! `enrich` -> `pipeline` -> `sink`; `replay` enters before `pipeline`. `live` is the loop that
//! drives it, `run` has one function per command.

pub mod account;
pub mod after;
pub mod aside;
pub mod assemble;
pub mod attach;
pub mod btf;
pub mod call_sites;
pub mod cause;
pub mod cgroups;
pub mod cli;
pub mod command;
pub mod decode;
pub mod doctor;
pub mod enrich;
pub mod error;
pub mod filter;
pub mod filters;
pub mod flags;
pub mod follow;
pub mod follow_up;
pub mod fork;
pub mod functions;
pub mod host;
pub mod identity;
pub mod join;
pub mod learn;
pub mod live;
pub mod memory;
pub mod missed;
pub mod name_set;
pub mod pipeline;
pub mod plan;
pub mod probe;
pub mod replay;
pub mod ring;
pub mod run;
pub mod sink;
pub mod spans;
pub mod summary;
pub mod warn;
