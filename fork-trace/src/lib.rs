//! fork-trace: what a Linux host really does when a process forks, stage by stage.
//!
//! The data's way: `host` -> `plan` -> `attach` -> `ring` -> `decode` -> `join` -> `assemble` ->
//! `enrich` -> `pipeline` -> `sink`; `replay` enters before `pipeline`. `live` is the loop that
//! drives it, `run` has one function per command.

pub mod account;
pub mod advice;
pub mod after;
pub mod aside;
pub mod assemble;
pub mod attach;
pub mod btf;
pub mod cause;
pub mod cgroups;
pub mod cli;
pub mod command;
pub mod decode;
pub mod doctor;
pub mod enrich;
pub mod filters;
pub mod flags;
pub mod follow;
pub mod fork;
pub mod functions;
pub mod host;
pub mod identity;
pub mod join;
pub mod learn;
pub mod life;
pub mod live;
pub mod memory;
pub mod missed;
pub mod names;
pub mod pipeline;
pub mod plan;
pub mod probe;
pub mod replay;
pub mod ring;
pub mod run;
pub mod sink;
pub mod sites;
pub mod spans;
pub mod summary;
pub mod warn;
pub mod wishes;
