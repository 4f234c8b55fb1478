//! Everything that is built: the eBPF object, with the tools it takes, and fork-trace's own
//! programs.

pub(crate) mod apt;
pub(crate) mod ebpf;
pub(crate) mod programs;
pub(crate) mod setup;
pub(crate) mod toolchain;
